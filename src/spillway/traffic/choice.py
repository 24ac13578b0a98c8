"""Where a request goes: tiers in order; in a tier the roomier pool; in a pool the endpoint with least in flight.

Chance is a checksum of the request id, so the same events give the same effects: crc32 is the same on every machine and
in every process, unlike `hash`. Different bits of it draw the pool and the endpoint.
"""

from math import inf
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.core.ids import RequestId
from spillway.traffic.effects import SpillReason
from spillway.traffic.models import ModelState
from spillway.traffic.pools import FEW, EndpointState, PoolState
from spillway.traffic.requests import RequestState


def place(model: ModelState, rank: int, request: RequestId, now: Seconds) -> EndpointState | None:
    """Where a first attempt may be sent now; None: every tier is full for this rank."""
    draw = crc32(request.encode())
    for tier in model.tiers:
        pool = tier[0]
        if len(tier) > 1:
            pool = roomiest(tier, rank, draw)
            if pool is None:
                continue
        elif pool.in_flight >= pool.slots[rank] or pool.kv_held >= pool.kv_slots[rank]:
            continue
        return endpoint_of(pool, rank, draw >> 16, now)
    return None


def roomiest(tier: tuple[PoolState, ...], rank: int, draw: int) -> PoolState | None:
    """Of two drawn pools that admit this rank the one with the lower load index. When neither does, the first that does."""
    count = len(tier)
    first = draw % count
    one = tier[first]
    other = tier[(first + 1 + (draw >> 8) % (count - 1)) % count]
    if one.in_flight < one.slots[rank] and one.kv_held < one.kv_slots[rank]:
        if other.admits(rank) and other.load_index < one.load_index:
            return other
        return one
    for pool in tier if count > 2 else (other,):
        if pool.in_flight < pool.slots[rank] and pool.kv_held < pool.kv_slots[rank]:
            return pool
    return None


def endpoint_of(pool: PoolState, rank: int, draw: int, now: Seconds) -> EndpointState:
    """The pool must admit the rank (or `can_take`). A HALF_OPEN endpoint gets its trial first; realtime is spared while it can be."""
    ready = pool.ready
    if pool.trials and (rank > 0 or not ready or not pool.trials[0].breaker.spares_realtime(now)):
        return pool.trials[0]
    count = len(ready)
    if count == 1:
        return ready[0]
    first = draw % count
    best = ready[first]
    if count > FEW:
        other = ready[(first + 1 + (draw >> 8) % (count - 1)) % count]
        return other if other.in_flight < best.in_flight else best
    for endpoint in ready:
        if endpoint.in_flight < best.in_flight:
            best = endpoint
    return best


def place_again(model: ModelState, request: RequestState, now: Seconds) -> EndpointState | None:
    """Where a further attempt may be sent: an endpoint not tried yet, in tiers' order, else any."""
    admitting = [pool for pool in model.pools if pool.admits(request.rank)]
    for pool in admitting:
        endpoint = endpoint_again(pool, request, now)
        if endpoint not in request.tried:
            return endpoint
    return endpoint_again(admitting[0], request, now) if admitting else None


def endpoint_again(pool: PoolState, request: RequestState, now: Seconds) -> EndpointState:
    """An endpoint not tried yet, if there is one. Trials come last: who failed once should not find out for others."""
    fresh = [endpoint for endpoint in (pool.ready or pool.trials) if endpoint not in request.tried]
    if not fresh:
        fresh = [endpoint for endpoint in pool.trials if endpoint not in request.tried]
    if not fresh:
        return endpoint_of(pool, request.rank, crc32(request.arrived.request.encode()), now)
    return min(fresh, key=lambda endpoint: endpoint.in_flight)


def spill_reason(model: ModelState, request: RequestState, tier: int) -> SpillReason | None:
    """Why the request is not served by its first tier; None where it is."""
    if tier == 0:
        return None
    for endpoint in request.tried:
        if model.tier_of.get(endpoint.pool.spec.name, tier) < tier:
            return SpillReason.FAILED
    for pool in model.pools:
        if pool.healthy:
            return SpillReason.SATURATED if model.tier_of[pool.spec.name] < tier else SpillReason.UNHEALTHY
    return SpillReason.UNHEALTHY


def is_open_for_any(model: ModelState) -> bool:
    """Whether some endpoint takes requests now, so that only slots are missing."""
    return any(pool.ready or pool.trials for pool in model.pools)


def is_usable(model: ModelState) -> bool:
    """Whether some endpoint may serve, now or when it has room again."""
    return any(endpoint.usable for pool in model.pools for endpoint in pool.endpoints.values())


def back_at(model: ModelState, now: Seconds) -> Seconds:
    """When the first endpoint of a model may take a request again; `inf`: only an operator can change it. O(its endpoints)."""
    return min((endpoint.back_at(now) for pool in model.pools for endpoint in pool.endpoints.values()), default=inf)


def is_last_usable(model: ModelState, endpoint: EndpointState) -> bool:
    """Whether the model has no other endpoint that may serve, now or when it has room again."""
    return not any(
        other.usable and other is not endpoint
        for pool in model.pools
        if pool.limit > 0
        for other in pool.endpoints.values()
    )
