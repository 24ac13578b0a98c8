"""What engines say of their load: one of a host's processes asks each endpoint, for all of them.

What an engine runs and keeps waiting, less what this host has in flight there, is foreign: others sent it. The two are never read at the same
moment. Our own books are looked at before and after the answer and the larger number counts; what is left and no more than the scatter of our
own (its square root) is taken for requests on their way.

An engine that gives no answer that can be used is asked less and less often, up to every MOST_BACK_OFF_S; nothing is told of it meanwhile, and the
brain forgets what is too old.
"""

import asyncio
from collections.abc import Callable, Iterable
from math import sqrt

from spillway.backends.probes import ProbeTarget
from spillway.backends.settings import GaugeSettings
from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl
from spillway.net.ports import ConnectionFault, Headers
from spillway.traffic.events import Scraped
from spillway.wire import engine_metrics
from spillway.wire.engine_metrics import EngineLoad

MOST_BACK_OFF_S = 60.0
SETTLE_S = 0.3  # until every worker has told what it had in flight when the engine answered
MAX_BYTES = engine_metrics.MAX_TEXT_BYTES


class _Text:
    """`net.ports.Receiver`: the body of a 200, None for anything else and for what is too large."""

    def __init__(self) -> None:
        self.text: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._pieces: list[bytes] = []
        self._left_bytes = MAX_BYTES

    def response_head(self, status: int, headers: Headers) -> None:
        self._status = status

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        self._left_bytes -= sum(map(len, pieces))
        if self._left_bytes < 0:
            self._pieces.clear()
            self._answer(None)
        else:
            self._pieces += pieces

    def response_end(self) -> None:
        self._answer(b"".join(self._pieces) if self._status == 200 else None)

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        self._answer(None)

    def _answer(self, text: bytes | None) -> None:
        if not self.text.done():
            self.text.set_result(text)


async def scrape(target: ProbeTarget, timeout_s: Seconds) -> EngineLoad | None:
    """None: no answer in time, or one that says nothing of requests."""
    answer = _Text()
    ticket = target.origin.send(target.request, answer)
    try:
        async with asyncio.timeout(timeout_s):
            text = await answer.text
    except TimeoutError:
        text = None
    if text is None:
        ticket.cancel()
        return None
    load = engine_metrics.read(text)
    return None if load.running is None and load.waiting is None else load


def foreign_of(load: EngineLoad, own: int) -> float:
    """Requests of others, ≥ 0. `own`: what this host has in flight there."""
    beyond = (load.running or 0) + (load.waiting or 0) - own
    return float(beyond) if beyond > sqrt(own) else 0.0


class Scraper:
    """`in_flight`: what all workers of this host have there together. `tell` gets what is foreign to all of them."""

    def __init__(
        self,
        targets: Callable[[], Iterable[ProbeTarget]],
        settings: GaugeSettings,
        in_flight: Callable[[EndpointUrl], int],
        tell: Callable[[Scraped], None],
    ) -> None:
        self._targets = targets
        self._settings = settings
        self._in_flight = in_flight
        self._tell = tell
        self._failures: dict[EndpointUrl, int] = {}
        self._due: dict[EndpointUrl, Seconds] = {}  # of those that failed

    async def run(self) -> None:
        """Endless."""
        while True:
            await asyncio.sleep(self._settings.interval_s)
            await self.round()

    async def round(self) -> None:
        """Asks all that are due, side by side."""
        now = asyncio.get_running_loop().time()
        targets = list(self._targets())
        known = {target.endpoint for target in targets}
        self._failures = {url: count for url, count in self._failures.items() if url in known}
        self._due = {url: at for url, at in self._due.items() if url in known}
        await asyncio.gather(*(self._ask(target) for target in targets if self._due.get(target.endpoint, now) <= now))

    async def _ask(self, target: ProbeTarget) -> None:
        url, loop = target.endpoint, asyncio.get_running_loop()
        before = self._in_flight(url)
        load = await scrape(target, self._settings.timeout_s)
        answered_at = loop.time()
        if load is None:
            failures = self._failures[url] = self._failures.get(url, 0) + 1
            self._due[url] = answered_at + min(MOST_BACK_OFF_S, self._settings.interval_s * 2 ** min(failures, 10))
            return
        self._failures.pop(url, None)
        self._due.pop(url, None)
        await asyncio.sleep(SETTLE_S)
        own = max(before, self._in_flight(url))
        self._tell(Scraped(url, foreign_of(load, own), load.kv_usage, loop.time() - answered_at))
