"""The brain. `Controller.handle(event, now) -> effects`: every decision about a request, in synchronous, pure code.

Reads top to bottom: what an event does, how a request waits, how its attempt fails (`slots`: how it is sent). It is as
deterministic as its events: the same events give the same effects (chance is a checksum of request ids, see `choice`).

What always holds between two events: nobody waits whom some pool of its model admits. So whoever frees a slot looks only
at those who wait for that pool, and a newcomer that finds somebody waiting need not look at pools at all.

Measured by `benchmarks/decision.py`; the paths of an ordinary arrival and ending are written for cost.
"""

from collections.abc import Sequence
from math import inf
from typing import assert_never

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.traffic.choice import (
    BY_TIERS,
    Placement,
    back_at,
    endpoint_again,
    endpoint_of,
    is_open_for_any,
    is_usable,
    place_again,
)
from spillway.traffic.effects import BreakerState, Effect, Queued, Refuse, WakeAt
from spillway.traffic.events import (
    Arrived,
    AttemptFailed,
    Configured,
    DrainSet,
    Ended,
    Event,
    Fault,
    FirstToken,
    LimitSet,
    Probed,
    QuotaSeen,
    Scraped,
    Woke,
)
from spillway.traffic.health import EVIDENCE, Evidence, Health
from spillway.traffic.lessons import Lessons
from spillway.traffic.pools import RANKS, EndpointState, PoolState
from spillway.traffic.pulse import Pulse
from spillway.traffic.rates import retry_in
from spillway.traffic.requests import RANK_OF, RequestState, kv_tokens_of, work_of
from spillway.traffic.retries import is_free, outcome_of
from spillway.traffic.routes import RouteState
from spillway.traffic.slots import Slots
from spillway.traffic.snapshot import Counters, Snapshot
from spillway.traffic.timers import Timers
from spillway.traffic.views import snapshot_of
from spillway.traffic.waiting import cancel, first_lane
from spillway.traffic.world import World


class Controller:
    """All mutable state of the brain. Memory: what is configured, what runs, and what may wait."""

    def __init__(self, placement: Placement = BY_TIERS) -> None:
        self._place = placement.place
        self._world = World()
        self._models = self._world.models
        self._requests: dict[RequestId, RequestState] = {}
        self._timers: Timers[RequestState | EndpointState | PoolState] = Timers(self._matters)
        self._health = Health(self._world, self._timers)
        self._counters = Counters()
        self._now: Seconds = -inf
        self._slots = Slots(self._world, self._counters)
        self._pulse = Pulse(self._world, self._timers)
        self._lessons = Lessons(self._world)
        self._asked: Seconds = inf  # the earliest WakeAt that Woke has not answered yet

    def handle(self, event: Event, now: Seconds) -> Sequence[Effect]:
        """`now`: monotonic seconds; an earlier one than before counts as the same. Whatever fell due is done first.

        Raises ConfigError for a Configured whose fleet has `validation.problems`, and changes nothing then.
        """
        effects: list[Effect] = []
        if now < self._now:
            now = self._now
        self._now = now
        if self._timers.next_due <= now:
            self._fire(now, effects)
        match event:
            case Arrived():
                self._arrived(event, now, effects)
            case Ended():
                self._ended(event, now, effects)
            case FirstToken():
                self._first_token(event, now, effects)
            case AttemptFailed():
                self._attempt_failed(event, now, effects)
            case Woke():
                self._asked = inf
            case Probed():
                self._probed(event, now, effects)
            case Scraped():
                self._scraped(event, now, effects)
            case QuotaSeen():
                self._quota_seen(event, now, effects)
            case LimitSet():
                self._limit_set(event, now, effects)
            case DrainSet():
                self._drain_set(event, now, effects)
            case Configured():
                self._configured(event, now, effects)
            case _:
                assert_never(event)
        if self._timers.next_due < self._asked:
            self._asked = self._timers.next_due
            effects.append(WakeAt(self._asked))
        return effects

    def snapshot(self) -> Snapshot:
        """O(pools + endpoints + models); for people and gauges, not for each request."""
        return snapshot_of(self._world, self._counters)

    @property
    def counters(self) -> Counters:
        """Live: to be read, not kept."""
        return self._counters

    # Events

    def _arrived(self, event: Arrived, now: Seconds, effects: list[Effect]) -> None:
        if event.request in self._requests:
            self._counters.anomalies += 1
            return
        self._counters.arrived += 1
        model = self._models.get(event.model)
        if model is None:
            self._turn_away(event, Outcome.UNAVAILABLE, None, effects)
            return
        route = model.route_of(event)
        if route is None:
            self._turn_away(event, Outcome.NO_POOL_ALLOWED, None, effects)
            return
        rank = RANK_OF[event.priority]
        endpoint = None
        if not model.room.waiting or not route.lanes.waits_before(rank):
            endpoint = self._place(route, rank, event, now)
        if endpoint is None:
            self._wait_or_turn_away(event, route, rank, now, effects)
            return
        request = self._request(event, rank, route)
        self._slots.take(request, endpoint, route, now, effects)
        if endpoint.pool.tick_at == inf:
            self._pulse.start(endpoint.pool, now)
        if route.panic.watches:
            self._watch(route, now, saturated=False)

    def _request(self, event: Arrived, rank: int, route: RouteState) -> RequestState:
        request = self._requests[event.request] = RequestState(
            event, rank, route.rate, kv_tokens_of(event), work_of(event, self._world.fleet.fairness)
        )
        return request

    def _ended(self, event: Ended, now: Seconds, effects: list[Effect]) -> None:
        request = self._requests.pop(event.request, None)
        if request is None:
            self._counters.anomalies += 1
            return
        self._counters.ended += 1
        endpoint = request.endpoint
        if endpoint is None:
            self._leave_room(request)
            return
        is_trial = self._slots.give_back(request, endpoint)
        request.rate.completed(now - request.sent_at)
        self._lessons.ended(request, endpoint.pool, event, now)
        if event.outcome is Outcome.OK and endpoint.breaker.state is BreakerState.CLOSED:
            endpoint.breaker.passed()
        else:
            evidence = EVIDENCE.get(event.outcome, Evidence.NONE)
            self._health.judge(endpoint, evidence, now, effects, is_trial=is_trial)
        if endpoint.pool.wanted:
            self._fill(endpoint.pool, now, effects)

    def _first_token(self, event: FirstToken, now: Seconds, effects: list[Effect]) -> None:
        request = self._requests.get(event.request)
        if request is None or request.endpoint is None:
            self._counters.anomalies += 1
            return
        request.answered_at = now
        endpoint = request.endpoint
        self._lessons.answered(request, endpoint.pool, now)
        if endpoint.breaker.trial == event.request:
            self._health.judge(endpoint, Evidence.WELL, now, effects, is_trial=True)
            self._fill(endpoint.pool, now, effects)

    def _attempt_failed(self, event: AttemptFailed, now: Seconds, effects: list[Effect]) -> None:
        request = self._requests.get(event.request)
        if request is None or request.endpoint is None:
            self._counters.anomalies += 1
            return
        endpoint = request.endpoint
        is_trial = self._slots.give_back(request, endpoint)
        request.endpoint = None
        request.tried += (endpoint,)
        evidence = Evidence.NONE if event.fault.is_load else Evidence.SICK
        self._health.judge(endpoint, evidence, now, effects, is_trial=is_trial)
        self._lessons.failed(endpoint.pool, event.fault, now)
        if event.fault.is_load:
            self._health.penalize(endpoint, event.retry_after_s, now, effects)
        self._try_again(request, endpoint, event.fault, now, effects)
        self._fill(endpoint.pool, now, effects)

    def _probed(self, event: Probed, now: Seconds, effects: list[Effect]) -> None:
        for endpoint in self._endpoints_at(event.endpoint):
            self._health.probed(endpoint, now, effects, healthy=event.healthy)
            self._fill(endpoint.pool, now, effects)

    def _drain_set(self, event: DrainSet, now: Seconds, effects: list[Effect]) -> None:
        for endpoint in self._endpoints_at(event.endpoint):
            self._health.drain(endpoint, now, effects, draining=event.draining)
            self._fill(endpoint.pool, now, effects)

    def _scraped(self, event: Scraped, now: Seconds, effects: list[Effect]) -> None:
        for endpoint in self._endpoints_at(event.endpoint):
            endpoint.foreign.scraped(event, now, self._world.fleet.spill.stale_s)
            self._pulse.beat(endpoint.pool, now)
            self._fill(endpoint.pool, now, effects)

    def _quota_seen(self, event: QuotaSeen, now: Seconds, effects: list[Effect]) -> None:
        pool = self._known(event.pool)
        if pool is not None:
            self._pulse.quota_seen(pool, event, now)
            self._fill(pool, now, effects)

    def _limit_set(self, event: LimitSet, now: Seconds, effects: list[Effect]) -> None:
        pool = self._known(event.pool)
        if pool is not None:
            pool.override = event.limit
            pool.refresh(now)
            self._fill(pool, now, effects)

    def _configured(self, event: Configured, now: Seconds, effects: list[Effect]) -> None:
        gone, astray = self._world.configure(event.fleet, now)
        for request in gone:
            self._refuse(request, Outcome.UNAVAILABLE, None, effects)
        for request in astray:
            self._refuse(request, Outcome.NO_POOL_ALLOWED, None, effects)
        for states in self._world.endpoints.values():
            for endpoint in states:
                self._health.update(endpoint, now, effects)
        for rank in RANKS:
            for model in self._models.values():
                for route in list(model.routes.values()):
                    self._fill_tiers(route, rank, now, effects)

    def _known(self, name: PoolName) -> PoolState | None:
        pool = self._world.pools.get(name)
        if pool is None or pool.retired:
            self._counters.anomalies += 1
            return None
        return pool

    def _endpoints_at(self, url: EndpointUrl) -> tuple[EndpointState, ...]:
        states = self._world.endpoints.get(url, ())
        if not states:
            self._counters.anomalies += 1
        return states

    # Waiting

    def _wait_or_turn_away(
        self, event: Arrived, route: RouteState, rank: int, now: Seconds, effects: list[Effect]
    ) -> None:
        self._watch(route, now, saturated=True)
        room, rate = self._models[event.model].room, route.rate
        wait_s = patience_s(event, route, rank)
        if not is_open_for_any(route):
            back_s = back_at(route, now) - now
            if back_s > wait_s:
                outcome = Outcome.REFUSED if is_usable(route) else Outcome.UNAVAILABLE
                self._turn_away(event, outcome, None if back_s == inf else retry_in(back_s), effects)
                return
        if wait_s <= 0 or rate.wait_s(route.lanes.ahead_of(event, rank)) > wait_s:
            self._turn_away(event, Outcome.REFUSED, rate.retry_after_s(room.waiting), effects)
            return
        if not room.has_room_for(event, rank) and not self._make_way(event, rank, effects):
            self._turn_away(event, Outcome.REFUSED, rate.retry_after_s(room.waiting), effects)
            return
        request = self._request(event, rank, route)
        route.lanes.join(request)
        self._now_waits(request, route, wait_s, now, effects)

    def _make_way(self, event: Arrived, rank: int, effects: list[Effect]) -> bool:
        """The room is full: the less urgent give their places to who is more urgent (`Room.make_way_for`)."""
        room = self._models[event.model].room
        while (last := room.make_way_for(event, rank)) is not None:
            self._evict(last, effects)
            if room.has_room_for(event, rank):
                return True
        return False

    def _now_waits(
        self, request: RequestState, route: RouteState, wait_s: Seconds, now: Seconds, effects: list[Effect]
    ) -> None:
        """The request has just joined the room."""
        request.route = route.key
        if route.lanes.lanes[request.rank].waiting == 1:
            route.want(request.rank)
        request.queued_at = now
        request.deadline = now + wait_s
        self._timers.add(request.deadline, request)
        self._counters.queued += 1
        effects.append(Queued(request.arrived.request))

    def _leave_room(self, request: RequestState) -> None:
        key = request.route
        assert key is not None  # it waits
        route = self._models[key.model].routes[key.label]
        route.lanes.leave(request)
        request.route = None
        if not route.lanes.lanes[request.rank].waiting:
            route.unwant(request.rank)

    def _fill(self, pool: PoolState, now: Seconds, effects: list[Effect]) -> None:
        """Sends those who wait for this pool for as long as it admits them: of the routes whose turn comes first.

        Only this pool may have gained room since the last event: no other admits anybody who waits.
        """
        while pool.wanted:
            rank = pool.next_rank()
            if rank is None:
                return
            route = self._next_route(pool, rank)
            if not pool.admits(rank):
                self._counters.owed += 1
            request = self._call_in(route, rank, now)
            endpoint = (
                endpoint_again(pool, request, now)
                if request.tried
                else endpoint_of(pool, rank, request.arrived, self._counters.dispatched, now)
            )
            self._slots.take(request, endpoint, route, now, effects)

    def _next_route(self, pool: PoolState, rank: int) -> RouteState:
        """Models take turns; of one model's routes the one whose next request has been served least."""
        keys = pool.wanted_by[rank]
        first = next(iter(keys))
        model = self._models[first.model]
        if len(keys) == 1:
            return model.routes[first.label]
        routes = [model.routes[key.label] for key in keys if key.model == first.model]
        for one in routes:
            keys.move_to_end(one.key)
        return next_of(routes, rank)

    def _fill_tiers(self, route: RouteState, rank: int, now: Seconds, effects: list[Effect]) -> None:
        """The same when any pool may have gained room: in tiers' order."""
        while route.lanes.lanes[rank].waiting and any(pool.admits(rank) for pool in route.pools):
            request = self._call_in(route, rank, now)
            endpoint = place_again(route, request, now)
            assert endpoint is not None  # some pool admits
            self._slots.take(request, endpoint, route, now, effects)

    def _call_in(self, route: RouteState, rank: int, now: Seconds) -> RequestState:
        """The next of this rank out of the room."""
        request = route.lanes.pop(rank)
        request.route = None
        if not route.lanes.lanes[rank].waiting:
            route.unwant(rank)
        request.waited_s += now - request.queued_at
        return request

    def _watch(self, route: RouteState, now: Seconds, *, saturated: bool) -> None:
        if route.panic.update(now, saturated=saturated):
            self._counters.panics += route.panic.active
            route.panics(active=route.panic.active)

    def _fire(self, now: Seconds, effects: list[Effect]) -> None:
        while self._timers.next_due <= now:
            subject = self._timers.pop()
            if isinstance(subject, EndpointState):
                self._health.fell_due(subject, now, effects)
                self._fill(subject.pool, now, effects)
            elif isinstance(subject, PoolState):
                self._pulse.fell_due(subject, now)
                self._fill(subject, now, effects)
            elif self._matters(subject) and subject.deadline <= now:
                self._evict(subject, effects)

    def _matters(self, subject: RequestState | EndpointState | PoolState) -> bool:
        """Whether a timer still means anything: for a request, while it waits."""
        if not isinstance(subject, RequestState):
            return True
        return subject.endpoint is None and self._requests.get(subject.arrived.request) is subject

    # Failing

    def _try_again(
        self, request: RequestState, failed: EndpointState, fault: Fault, now: Seconds, effects: list[Effect]
    ) -> None:
        """Another attempt now, or a place in front of its lane for what is left of its time to wait, or the end."""
        model = self._models.get(request.arrived.model)
        route = None if model is None else model.route_of(request.arrived)
        may_retry = request.answered_at is None and request.attempt < self._world.fleet.retries.attempts
        if route is None or not may_retry or not (is_free(fault, failed.breaker.state) or failed.pool.budget.take(now)):
            self._give_up(request, failed, fault, now, effects)
            return
        if not route.lanes.waits_before_retry(request.rank):
            endpoint = place_again(route, request, now)
            if endpoint is not None:
                self._slots.take(request, endpoint, route, now, effects)
                return
        left_s = patience_s(request.arrived, route, request.rank) - request.waited_s
        back_s = 0.0 if is_open_for_any(route) else back_at(route, now) - now
        if left_s <= 0 or back_s > left_s:
            self._give_up(request, failed, fault, now, effects)
            return
        route.lanes.join_front(request)
        self._now_waits(request, route, left_s, now, effects)

    def _give_up(
        self, request: RequestState, failed: EndpointState, fault: Fault, now: Seconds, effects: list[Effect]
    ) -> None:
        retry_after_s = retry_in(failed.penalty_until - now) if fault.is_load else None
        self._refuse(request, outcome_of(fault), retry_after_s, effects)

    def _evict(self, request: RequestState, effects: list[Effect]) -> None:
        self._leave_room(request)
        self._counters.evicted += 1
        room = self._models[request.arrived.model].room
        self._refuse(request, Outcome.EVICTED, request.rate.retry_after_s(room.waiting), effects)

    def _refuse(
        self, request: RequestState, outcome: Outcome, retry_after_s: Seconds | None, effects: list[Effect]
    ) -> None:
        del self._requests[request.arrived.request]
        cancel(request)
        self._turn_away(request.arrived, outcome, retry_after_s, effects)

    def _turn_away(
        self, arrived: Arrived, outcome: Outcome, retry_after_s: Seconds | None, effects: list[Effect]
    ) -> None:
        self._counters.refused += 1
        effects.append(Refuse(arrived.request, outcome, retry_after_s))


def next_of(routes: list[RouteState], rank: int) -> RouteState:
    """Of one model's routes with somebody of this rank waiting: whose attempt failed first, then who was served less."""
    lanes = [route.lanes.lanes[rank] for route in routes]
    return routes[lanes.index(first_lane(lanes))]


def patience_s(arrived: Arrived, route: RouteState, rank: int) -> Seconds:
    """How long a request may wait: as its priority says, and not so long that its answer would come after its deadline."""
    wait_s = route.max_wait_s[rank]
    return wait_s if arrived.deadline_s is None else min(wait_s, arrived.deadline_s - route.rate.residence_s)
