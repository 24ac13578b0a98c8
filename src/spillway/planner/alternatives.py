"""The placements to beat: how other gateways decide where a request goes, in the place of `traffic.choice`.

Everything else is the same for all: waiting room, turns, limits, ceilings, breakers, panic, policies, affinity in a pool. So they differ
in one answer, "where may this request go now?", and none of them sends to a pool that does not admit its priority.

Rules
- While some pool of the route admits the request it goes somewhere: refusing room that there is would make a straw man.
- A placement keeps books of its own, for one gateway. It is as deterministic as its arguments.
"""

from collections.abc import Iterable
from math import inf
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.core.ids import PoolName
from spillway.traffic.choice import endpoint_of
from spillway.traffic.events import Arrived
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.routes import RouteState


class LocalOnly:
    """The first tier, whatever it holds. Requests that wait must be kept from the other tiers too: give it a fleet whose models
    have one tier (`policies.only_first_tier`)."""

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        return _send(_first_with_room(route.tiers[0], route, rank), rank, arrived, now)


class RoundRobin:
    """Smooth weighted turns over the pools that admit the request (the algorithm of nginx): each gains its weight, the richest serves
    and pays what all gained. Weight = limit ** `by_limit`, times `hosted` for hosted pools; 0: these only where no other has room."""

    def __init__(self, *, by_limit: float, hosted: float) -> None:
        self._by_limit = by_limit
        self._hosted = hosted
        self._credit: dict[PoolName, float] = {}

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        open_ones = [pool for pool in route.pools if _has_room(pool, route, rank)]
        weighted = [(pool, self._weight(pool)) for pool in open_ones]
        total = sum(weight for _, weight in weighted)
        if not total:
            return _send(open_ones[0] if open_ones else None, rank, arrived, now)
        credit = self._credit
        for pool, weight in weighted:
            credit[pool.spec.name] = credit.get(pool.spec.name, 0.0) + weight
        pool = max((pool for pool, weight in weighted if weight), key=lambda pool: credit[pool.spec.name])
        credit[pool.spec.name] -= total
        return _send(pool, rank, arrived, now)

    def _weight(self, pool: PoolState) -> float:
        weight = max(1, pool.limit) ** self._by_limit
        return weight * self._hosted if pool.spec.hosted else weight


class ErrorTriggered:
    """Pools in order; one that fails is left alone for `cooldown_s` after `errors` of its errors within ERRORS_S.

    An error is what makes such gateways go on: the pool said that it is full (it has no slot for the request: its 429), or that it
    can't serve (no endpoint is well, or all ask to be left alone after 429, 503, a time-out). Each moves its request to the next
    pool. Pools that are left alone are asked when no other has room.
    """

    ERRORS_S: Seconds = 60.0

    def __init__(self, *, cooldown_s: Seconds, errors: int) -> None:
        self._cooldown_s = cooldown_s
        self._errors = errors
        self._failed_at: dict[PoolName, list[Seconds]] = {}
        self._until: dict[PoolName, Seconds] = {}

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        for pool in route.pools:
            if now < self._until.get(pool.spec.name, -inf):
                continue
            if _has_room(pool, route, rank):
                return _send(pool, rank, arrived, now)
            self._fails(pool, now)
        return _send(_first_with_room(route.pools, route, rank), rank, arrived, now)

    def _fails(self, pool: PoolState, now: Seconds) -> None:
        name = pool.spec.name
        recent = [at for at in self._failed_at.get(name, ()) if at > now - self.ERRORS_S]
        recent.append(now)
        self._failed_at[name] = recent[-self._errors :]
        if len(recent) >= self._errors:
            self._until[name] = now + self._cooldown_s
            self._failed_at[name] = []


class Threshold:
    """Pools by preference: one is left when its load reaches `leave`, and returned to when it is down to `back` (a Schmitt trigger).

    Its load: in flight and what gauges say of others, over the limit. When all are left the first with room serves.
    """

    def __init__(self, *, leave: float, back: float) -> None:
        self._leave = leave
        self._back = back
        self._left: set[PoolName] = set()

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        chosen = None
        for pool in route.pools:
            if not self._is_left(pool) and chosen is None and _has_room(pool, route, rank):
                chosen = pool
        return _send(chosen or _first_with_room(route.pools, route, rank), rank, arrived, now)

    def _is_left(self, pool: PoolState) -> bool:
        name, load = pool.spec.name, used(pool)
        if load >= self._leave:
            self._left.add(name)
        elif load <= self._back:
            self._left.discard(name)
        return name in self._left


class LeastKv:
    """The pool whose gauge is lowest, of those with room; hosted ones, whose engines nobody can gauge, after all others.

    A gauge = `kv` · KV usage + (1 − `kv`) · load, as they were when it was last read, which is every PERIOD_S. A tier later than
    the first counts `margin` more, so that a request leaves its home only for one that is so much emptier.
    """

    PERIOD_S: Seconds = 5.0

    def __init__(self, *, kv: float, margin: float) -> None:
        self._kv = kv
        self._margin = margin
        self._gauges: dict[PoolName, float] = {}
        self._read_at: dict[PoolName, Seconds] = {}

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        best, lowest = None, inf
        draw = crc32(arrived.request.encode())
        start = draw % len(route.pools)  # of equals nobody is always the first
        for pool in (*route.pools[start:], *route.pools[:start]):
            if pool.spec.hosted or not _has_room(pool, route, rank):
                continue
            gauge = self._gauge(pool, now) + self._margin * (route.tier_of[pool.spec.name] > 0)
            if gauge < lowest:
                best, lowest = pool, gauge
        return _send(best or _first_with_room(route.pools, route, rank), rank, arrived, now)

    def _gauge(self, pool: PoolState, now: Seconds) -> float:
        name = pool.spec.name
        if now >= self._read_at.get(name, -inf) + self.PERIOD_S:
            self._read_at[name] = now
            self._gauges[name] = self._kv * kv_used(pool) + (1.0 - self._kv) * used(pool)
        return self._gauges[name]


def used(pool: PoolState) -> float:
    """Requests of ours and, by its gauges, of others over what the pool may hold of ours; 1 for a pool without a slot."""
    own = pool.limit * pool.spec.own_share
    return (pool.in_flight + pool.foreign) / own if own > 0 else 1.0


def kv_used(pool: PoolState) -> float:
    """0–1: what its engines said last, or our own books where that is more. Without a KV record: the load."""
    if pool.spec.capacity is None or pool.spec.capacity.kv_tokens is None:
        return used(pool)
    said = [endpoint.foreign.kv_usage for endpoint in pool.endpoints.values()]
    return max(pool.kv_held / pool.kv_limit, sum(said) / len(said))


def _has_room(pool: PoolState, route: RouteState, rank: int) -> bool:
    return pool.admits(0 if route.panic.active else rank)


def _first_with_room(pools: Iterable[PoolState], route: RouteState, rank: int) -> PoolState | None:
    return next((pool for pool in pools if _has_room(pool, route, rank)), None)


def _send(pool: PoolState | None, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
    return None if pool is None else endpoint_of(pool, rank, arrived, crc32(arrived.request.encode()) >> 16, now)
