"""Where a request goes: tiers in order; in a tier the cheaper of two pools; in a pool the endpoint that affinity picks.

Chance is a checksum of the request id, so the same events give the same effects: crc32 is the same on every machine and
in every process, unlike `hash`. Different bits of it draw the pool and the endpoint.
"""

from math import inf
from typing import Protocol
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.traffic.effects import SpillReason
from spillway.traffic.events import Arrived
from spillway.traffic.models import ModelState
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.routes import RouteState


class Placement(Protocol):
    """Answers where a first attempt may be sent now; None: nowhere. It looks at pools, and changes nothing in them."""

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None: ...


class ByTiers:
    """The placement that serves; the simulator compares it with others.

    An ESTIMATED pool sends on the sessions in its spill share, where a later tier takes them.
    """

    __slots__ = ()

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        draw = crc32(arrived.request.encode())
        ceiling, sent_on = (0 if route.panic.active else rank), None
        for tier in route.tiers:
            pool = tier[0]
            share = pool.share
            if share is not None:
                share.offered(arrived.input_tokens + 4.0 * arrived.output_tokens)
            if len(tier) > 1:
                pool = cheaper(tier, ceiling, arrived, draw)
                if pool is None:
                    continue
                share = pool.share
            elif pool.in_flight >= pool.slots[ceiling] or pool.kv_held >= pool.kv_slots[ceiling]:
                continue
            if share is not None and not route.panic.active and share.spills(arrived):
                sent_on = sent_on or pool
                continue
            return endpoint_of(pool, rank, arrived, draw >> 16, now)
        return None if sent_on is None else endpoint_of(sent_on, rank, arrived, draw >> 16, now)


BY_TIERS = ByTiers()


def cheaper(tier: tuple[PoolState, ...], rank: int, arrived: Arrived, draw: int) -> PoolState | None:
    """Of two drawn pools that admit this rank the one where the request is expected to cost less. When neither does, the first
    that does; None: none of the tier."""
    count = len(tier)
    first = draw % count
    one = tier[first]
    other = tier[(first + 1 + (draw >> 8) % (count - 1)) % count]
    if one.admits(rank):
        if not other.admits(rank):
            return one
        one_s, other_s = cost_s(one, arrived), cost_s(other, arrived)
        if one_s == other_s:  # nothing is known of them, or they are alike
            return other if other.load_index < one.load_index else one
        return other if other_s < one_s else one
    for pool in tier if count > 2 else (other,):
        if pool.in_flight < pool.slots[rank] and pool.kv_held < pool.kv_slots[rank]:
            return pool
    return None


def cost_s(pool: PoolState, arrived: Arrived) -> Seconds:
    """J = predicted TTFT + round trip + price term + cold-prefix term, in seconds; the price at `usd_per_s` a second.

    A prefix that is warm in the pool shortens the input that is computed, so the cold-prefix term is in the TTFT.
    """
    spec, cold_tokens = pool.spec, arrived.input_tokens
    if pool.affinity is not None and arrived.prefix:
        cold_tokens -= pool.affinity.warm_tokens(arrived)
    ttft_s = pool.line.ttft_s(pool.in_flight + pool.foreign, cold_tokens)
    return ttft_s + spec.rtt_s + pool.cost_usd(arrived) / pool.usd_per_s


def endpoint_of(pool: PoolState, rank: int, arrived: Arrived, draw: int, now: Seconds) -> EndpointState:
    """The pool must admit the rank (or `can_take`). A HALF_OPEN endpoint gets its trial first; realtime is spared while it can be."""
    ready = pool.ready
    if pool.trials and (rank > 0 or not ready or not pool.trials[0].breaker.spares_realtime(now)):
        return pool.trials[0]
    if len(ready) == 1 or pool.affinity is None:
        return ready[0]
    return pool.affinity.pick(ready, arrived, draw, now)


def place_again(route: RouteState, request: RequestState, now: Seconds) -> EndpointState | None:
    """Where a further attempt may be sent: an endpoint not tried yet, in tiers' order, else any."""
    rank = 0 if route.panic.active else request.rank
    admitting = [pool for pool in route.pools if pool.admits(rank)]
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
