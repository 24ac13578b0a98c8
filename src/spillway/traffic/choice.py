"""Where a request goes: tiers in order; in a tier the cheaper of two pools; in a pool the endpoint that affinity picks.

Chance is a checksum of the request id, so the same events give the same effects: crc32 is the same on every machine and
in every process, unlike `hash`. Different bits of it draw the pool and the endpoint.
"""

from math import inf
from typing import Protocol
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.traffic.affinity import least_of_two
from spillway.traffic.effects import SpillReason
from spillway.traffic.events import Arrived
from spillway.traffic.models import ModelState
from spillway.traffic.parties import BATCH_RANK
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.routes import RouteState


class Placement(Protocol):
    """Answers where a first attempt may be sent now; None: nowhere. It looks at pools, and changes nothing in them."""

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None: ...


class ByTiers:
    """The placement that serves; the simulator compares it with others.

    A pool sends on what would wait for too many prompts before its own, and an ESTIMATED one the sessions in its spill share: to an
    equal of its tier, or where a later tier takes them; they come back to it when none does.
    """

    __slots__ = ()

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        draw = crc32(arrived.request.encode())
        if rank == BATCH_RANK:
            pool = idlest(route, arrived)
            return None if pool is None else endpoint_of(pool, rank, arrived, draw >> 16, now)
        sent_on = None
        for tier in route.tiers:
            pool = tier[0]
            if len(tier) > 1:
                pool, spills = among(tier, rank, arrived, draw)
                if pool is None:
                    continue
            else:
                spills = pool.prompt_tokens > pool.prompt_most if pool.share is None else wants(pool, arrived)
                if pool.in_flight >= pool.slots[rank] or pool.kv_held >= pool.kv_slots[rank]:
                    continue
            if spills and not route.panic.active:
                sent_on = sent_on or pool
                continue
            return endpoint_of(pool, rank, arrived, draw >> 16, now)
        return None if sent_on is None else endpoint_of(sent_on, rank, arrived, draw >> 16, now)


BY_TIERS = ByTiers()


def idlest(route: RouteState, arrived: Arrived) -> PoolState | None:
    """Where batch goes: where it costs least, and of those that cost the same where most is idle (by quarters: what is equally idle
    is taken in tiers' order), in whatever region. An endpoint that wants a trial is found out about by batch."""
    admitting = [pool for pool in route.idle_pools if pool.admits(BATCH_RANK)]
    if not admitting:
        return None
    return min(admitting, key=lambda pool: (pool.cost_usd(arrived), not pool.trials, int(4.0 * pool.load_index)))


def wants(pool: PoolState, arrived: Arrived) -> bool:
    """The request would go to this pool, which counts it as offered. True: it is one of those that the pool sends on."""
    if pool.share is not None:
        pool.share.offered(arrived, pool.line.work(arrived.input_tokens, arrived.output_tokens))
    return sends_on(pool, arrived)


def sends_on(pool: PoolState, arrived: Arrived) -> bool:
    """A burst fills an engine with prompts long before it fills a pool's slots: first tokens are late then, while the load index is low."""
    return pool.prompt_tokens > pool.prompt_most or (pool.share is not None and pool.share.spills(arrived))


def among(tier: tuple[PoolState, ...], rank: int, arrived: Arrived, draw: int) -> tuple[PoolState | None, bool]:
    """The pool of a tier of equals that the request would go to, None when none admits it; and whether that one sends it on, which
    is so when the other candidate would do the same or does not admit it."""
    pool, other = candidates(tier, rank, arrived, draw)
    if pool is None:
        wants(tier[draw % len(tier)], arrived)  # turned away, but offered
        return None, False
    if not wants(pool, arrived):
        return pool, False
    if other is None or sends_on(other, arrived):
        return pool, True
    return other, False


def candidates(
    tier: tuple[PoolState, ...], rank: int, arrived: Arrived, draw: int
) -> tuple[PoolState | None, PoolState | None]:
    """Two pools that admit the rank, the one where the request is expected to cost less first; None where there are no (more).

    Of more than two they are drawn by headroom: each with the chance of its part of the free slots.
    """
    if len(tier) == 2:
        one, other = tier if draw & 1 else (tier[1], tier[0])
        if not other.admits(rank):
            return (one if one.admits(rank) else None), None
        if not one.admits(rank):
            return other, None
    else:
        drawn = _by_headroom(tier, rank, draw)
        if len(drawn) < 2:
            return (drawn[0] if drawn else None), None
        one, other = drawn
    one_s, other_s = one.cost_s(arrived), other.cost_s(arrived)
    if one_s == other_s:  # nothing is known of them, or they are alike
        one_s, other_s = one.load_index, other.load_index
    return (other, one) if other_s < one_s else (one, other)


def _by_headroom(tier: tuple[PoolState, ...], rank: int, draw: int) -> list[PoolState]:
    """At most two pools, different ones."""
    free: list[int] = []
    total = 0
    for pool in tier:
        slots = pool.slots[rank] - pool.in_flight
        if slots < 0 or pool.kv_held >= pool.kv_slots[rank]:
            slots = 0
        free.append(slots)
        total += slots
    drawn: list[PoolState] = []
    for chance in (draw & 0xFFFF, (draw * 0x9E3779B1 >> 16) & 0xFFFF):
        if not total:
            break
        point, place = chance * total >> 16, 0
        while point >= free[place]:
            point -= free[place]
            place += 1
        drawn.append(tier[place])
        total -= free[place]
        free[place] = 0
    return drawn


def endpoint_of(pool: PoolState, rank: int, arrived: Arrived, draw: int, now: Seconds) -> EndpointState:
    """The pool must admit the rank (or `can_take`). A HALF_OPEN endpoint gets its trial first; realtime is spared while it can be."""
    ready = pool.ready
    if pool.trials and (rank > 0 or not ready or not pool.trials[0].breaker.spares_realtime(now)):
        return pool.trials[0]
    if len(ready) == 1:
        return ready[0]
    if arrived.prefix or arrived.session:
        work = pool.work if len(ready) == len(pool.endpoints) else sum(endpoint.work for endpoint in ready)
        work += pool.line.work(arrived.input_tokens, arrived.output_tokens)
        endpoint = pool.affinity.near(ready, work, arrived)
        if endpoint is not None:
            return endpoint
    return least_of_two(ready, draw)


def place_again(route: RouteState, request: RequestState, now: Seconds) -> EndpointState | None:
    """Where a further attempt may be sent: an endpoint not tried yet, in tiers' order, else any."""
    rank = request.rank
    admitting = [pool for pool in route.pools_for(rank) if pool.admits(rank) and not pool.wanted_above(rank)]
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
        return endpoint_of(pool, request.rank, request.arrived, crc32(request.arrived.request.encode()), now)
    return min(fresh, key=lambda endpoint: endpoint.work)


def spill_reason(route: RouteState, request: RequestState, tier: int) -> SpillReason:
    """Why the request is served by this tier of its model, which is not the first."""
    if request.rank == BATCH_RANK:
        return SpillReason.IDLE
    for endpoint in request.tried:
        if route.tier_of.get(endpoint.pool.spec.name, tier) < tier:
            return SpillReason.FAILED
    earlier = route.earlier[tier]
    for pool in earlier:
        if pool.healthy:
            return SpillReason.SATURATED
    return SpillReason.UNHEALTHY if earlier else SpillReason.POLICY


def is_open_for_any(route: RouteState) -> bool:
    """Whether some endpoint takes requests now, so that only slots are missing."""
    for pool in route.pools:  # noqa: SIM110 (the first one answers: half the cost)
        if pool.ready or pool.trials:
            return True
    return False


def is_usable(route: RouteState) -> bool:
    """Whether some endpoint may serve, now or when it has room again."""
    return any(endpoint.usable for pool in route.pools for endpoint in pool.endpoints.values())


def back_at(route: RouteState, now: Seconds) -> Seconds:
    """When the first endpoint of a route may take a request again; `inf`: only an operator can change it. O(its endpoints)."""
    return min((endpoint.back_at(now) for pool in route.pools for endpoint in pool.endpoints.values()), default=inf)


def is_last_usable(model: ModelState, endpoint: EndpointState) -> bool:
    """Whether the model has no other endpoint that may serve, now or when it has room again."""
    return not any(
        other.usable and other is not endpoint
        for pool in model.pools
        if pool.limit > 0
        for other in pool.endpoints.values()
    )
