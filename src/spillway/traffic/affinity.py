"""Which endpoint of a pool: who knows the prompt's beginning, else where its session lives, else the emptier of two.

Rules
- The longest known prefix wins. Of the endpoints that hold it the one with the least work in flight is taken.
- A session without a known prefix lives on a ring: each endpoint owns POINTS points of it, and a session goes to the owner of the
  next point after its own. When an endpoint leaves or joins, only the sessions of its points move.
- Either holds only while the endpoint's work in flight is at most BOUND times the mean of those that are ready, the newcomer's
  counted in (consistent hashing with bounded loads, Mirrokni, Thorup and Zadimoghaddam 2018). A session then walks on to the next
  owner, LOOKED_AT of them at most. So locality costs nobody more than a quarter above the mean and one request.
- Two choices by work for all others; of FEW endpoints the one with the least.

Memory: the BLOCKS blocks of prefixes that were sent last, for all endpoints of the pool together, each with the HOLDERS endpoints
that got it last; at the bound the oldest is forgotten. A block is always touched after those that follow it, so it is never
forgotten before them, and the longest known prefix is found by bisection.
"""

from bisect import bisect
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar
from zlib import crc32

from spillway.core.ids import EndpointUrl
from spillway.traffic.events import Arrived

BOUND = 1.25
BLOCKS = 16_384  # about 3 MB
HOLDERS = 4
POINTS = 64
LOOKED_AT = 8
FEW = 8  # endpoints that are all looked at; of more, two are drawn
_MIX = 0x9E3779B97F4A7C15  # odd, near 2^64 / φ: spreads checksums, which are linear in their input, over the ring
_WHOLE = (1 << 64) - 1


class Loaded(Protocol):
    """An endpoint, as affinity sees it."""

    url: EndpointUrl
    work: float
    in_flight: int


Endpoint = TypeVar("Endpoint", bound=Loaded)


class Affinity(Generic[Endpoint]):
    """Of one pool. `configure` with its endpoints before `pick`. Deterministic: the same calls give the same answers."""

    __slots__ = ("_by_url", "_owners", "_points", "_ready", "_urls", "blocks")

    def __init__(self) -> None:
        self._ready: tuple[Endpoint, ...] = ()
        self._by_url: dict[EndpointUrl, Endpoint] = {}
        self.blocks: OrderedDict[int, tuple[EndpointUrl, ...]] = OrderedDict()
        self._urls: tuple[EndpointUrl, ...] = ()
        self._points: list[int] = []
        self._owners: list[EndpointUrl] = []

    def configure(self, urls: Iterable[EndpointUrl]) -> None:
        """Makes the ring of these endpoints, ready or not: O(endpoints · POINTS)."""
        urls = tuple(urls)
        if urls == self._urls:
            return
        self._urls = urls
        ring = sorted((_place(f"{url} {point}"), url) for url in urls for point in range(POINTS))
        self._points = [place for place, _ in ring]
        self._owners = [url for _, url in ring]

    def near(self, ready: tuple[Endpoint, ...], work: float, arrived: Arrived) -> Endpoint | None:
        """The one of `ready` where its prefix is warm, or its session lives, if that has room. `work`: what they have in flight
        together, the newcomer's included."""
        if ready is not self._ready:
            self._ready = ready
            self._by_url = {endpoint.url: endpoint for endpoint in ready}
        by_url, most = self._by_url, BOUND * work / len(ready)
        known = self._known(arrived.prefix) if arrived.prefix else 0
        if known:
            best = None
            for url in self.blocks[arrived.prefix[known - 1]]:
                endpoint = by_url.get(url)
                if endpoint is not None and endpoint.work <= most and (best is None or endpoint.work < best.work):
                    best = endpoint
            if best is not None:
                return best
        return self._home(most, arrived.session) if arrived.session else None

    def _home(self, most: float, session: str) -> Endpoint | None:
        owners, by_url, passed = self._owners, self._by_url, 0
        count, last = len(owners), ""
        at = bisect(self._points, _place(session))
        for step in range(count):
            url = owners[(at + step) % count]
            endpoint = by_url.get(url) if url != last else None
            last = url
            if endpoint is None:
                continue
            if endpoint.work <= most:
                return endpoint
            passed += 1
            if passed == LOOKED_AT:
                return None
        return None

    def sent(self, arrived: Arrived, url: EndpointUrl) -> int:
        """The prompt is computed there now, and its blocks are warm there from here on. Returns how many tokens were warm before."""
        blocks, warm = self.blocks, 0
        for block in reversed(arrived.prefix):
            holders = blocks.get(block)
            if holders is None:
                blocks[block] = (url,)
                continue
            blocks.move_to_end(block)
            if url in holders:
                warm += 1
            else:
                blocks[block] = (url, *holders[: HOLDERS - 1])
        while len(blocks) > BLOCKS:
            blocks.popitem(last=False)
        return _tokens(warm, arrived)

    def warm_tokens(self, arrived: Arrived) -> int:
        """Of the input what some endpoint of the pool knows, 0 … input_tokens. That the request gets there is likely, not certain."""
        return _tokens(self._known(arrived.prefix), arrived) if arrived.prefix and self.blocks else 0

    def _known(self, prefix: tuple[int, ...]) -> int:
        """How many leading blocks are known."""
        blocks = self.blocks
        if prefix[0] not in blocks:
            return 0
        low, high = 1, len(prefix)
        while low < high:
            middle = (low + high + 1) >> 1
            if prefix[middle - 1] in blocks:
                low = middle
            else:
                high = middle - 1
        return low


def least_of_two(ready: Sequence[Endpoint], draw: int) -> Endpoint:
    """By work in flight, then by count."""
    count = len(ready)
    first = draw % count
    if count <= FEW:
        return min((*ready[first:], *ready[:first]), key=_load)
    one, other = ready[first], ready[(first + 1 + (draw >> 8) % (count - 1)) % count]
    return other if (other.work, other.in_flight) < (one.work, one.in_flight) else one


def _load(endpoint: Loaded) -> tuple[float, int]:
    return endpoint.work, endpoint.in_flight


def _place(text: str) -> int:
    return crc32(text.encode()) * _MIX & _WHOLE


def _tokens(blocks: int, arrived: Arrived) -> int:
    return max(0, min(blocks * arrived.block_tokens, arrived.input_tokens))
