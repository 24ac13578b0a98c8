"""Taking a slot and giving it back: the only place where what is in flight is counted."""

from spillway.core.clock import Seconds
from spillway.traffic.choice import spill_reason
from spillway.traffic.effects import BreakerState, Dispatch, Effect
from spillway.traffic.parties import BATCH_RANK
from spillway.traffic.pools import EndpointState
from spillway.traffic.requests import RequestState
from spillway.traffic.routes import RouteState
from spillway.traffic.snapshot import Counters
from spillway.traffic.world import World


class Slots:
    __slots__ = ("_counters", "_world")

    def __init__(self, world: World, counters: Counters) -> None:
        self._world = world
        self._counters = counters

    def take(
        self, request: RequestState, endpoint: EndpointState, route: RouteState, now: Seconds, effects: list[Effect]
    ) -> None:
        """Sends the request's next attempt to this endpoint, which must have been chosen just now."""
        pool, counters = endpoint.pool, self._counters
        pool.in_flight += 1
        pool.kv_held += request.kv_tokens
        pool.work += request.work
        endpoint.in_flight += 1
        endpoint.work += request.work
        request.rate.in_flight += 1
        request.endpoint = endpoint
        request.sent_beside = pool.in_flight
        request.sent_at = now
        request.attempt += 1
        counters.dispatched += 1
        if request.rank < BATCH_RANK:
            pool.backfill.arrived()
        elif not (request.owed or pool.spec.hosted):
            pool.batch[request.arrived.request] = request
        if pool.in_flight > pool.most_in_flight:
            pool.most_in_flight = pool.in_flight
        if request.arrived.prefix:
            request.warm_tokens = pool.affinity.sent(request.arrived, endpoint.url)
        pool.prompt_tokens += request.arrived.input_tokens - request.warm_tokens
        if request.attempt == 1:
            pool.budget.count(now)
        else:
            counters.retried += 1
        if pool.wanted:
            pool.count_share(request.rank, request.work)
        if endpoint.breaker.state is BreakerState.HALF_OPEN:
            endpoint.breaker.trial = request.arrived.request
            pool.refresh(now)
        name, pool_name = request.arrived.request, pool.spec.name
        tier = route.tier_of[pool_name]
        if not tier:
            effects.append(Dispatch(name, pool_name, endpoint.url, request.attempt))
            return
        counters.spilled += 1
        reason = spill_reason(route, request, tier)
        effects.append(Dispatch(name, pool_name, endpoint.url, request.attempt, reason, route.origin))

    def give_back(self, request: RequestState, endpoint: EndpointState) -> bool:
        """What the running attempt held. True: it was the trial of a HALF_OPEN endpoint; `Health.judge` must follow."""
        pool = endpoint.pool
        pool.in_flight -= 1
        pool.kv_held -= request.kv_tokens
        pool.work -= request.work
        if request.rank == BATCH_RANK:
            pool.batch.pop(request.arrived.request, None)
            request.owed = False
        endpoint.in_flight -= 1
        endpoint.work -= request.work
        request.rate.in_flight -= 1
        if request.answered_at is None:
            pool.prompt_tokens -= request.arrived.input_tokens - request.warm_tokens
        if endpoint.retired and not endpoint.in_flight:
            self._world.forget_if_over(pool)
        breaker = endpoint.breaker
        if breaker.trial is None or breaker.trial != request.arrived.request:
            return False
        breaker.trial = None
        return True
