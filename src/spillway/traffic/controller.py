"""The brain. `Controller.handle(event, now) -> effects`: every decision about a request, in synchronous, pure code.

What an event does, in order: `admission` says who waits and who is called in, `slots` how a request is sent. It is as
deterministic as its events: the same events give the same effects (chance is a checksum of request ids, see `choice`).

Measured by `benchmarks/decision.py`; the paths of an ordinary arrival and ending are written for cost.
"""

from collections.abc import Sequence
from math import inf
from typing import assert_never

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.traffic.admission import Admission, left_of_patience_s
from spillway.traffic.choice import BY_TIERS, Placement, back_at, endpoint_of, is_open_for_any, place_again
from spillway.traffic.effects import BreakerState, Effect, WakeAt
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
    Sliced,
    Woke,
)
from spillway.traffic.health import EVIDENCE, Evidence, Health
from spillway.traffic.lessons import Lessons
from spillway.traffic.parties import BATCH_RANK, RANKS
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.pulse import Pulse
from spillway.traffic.rates import retry_in
from spillway.traffic.requests import RANK_OF, RequestState, request_of
from spillway.traffic.retries import is_free, outcome_of
from spillway.traffic.routes import RouteState
from spillway.traffic.slots import Slots
from spillway.traffic.snapshot import Counters, Snapshot
from spillway.traffic.timers import Timers
from spillway.traffic.views import snapshot_of
from spillway.traffic.waiting import cancel
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
        self._admission = Admission(self._world, self._requests, self._slots, self._timers, self._counters)
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
            case Sliced():
                self._sliced(event, now, effects)
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
        return snapshot_of(self._world, self._counters, self._now)

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
            self._admission.turn_away(event, Outcome.UNAVAILABLE, None, effects)
            return
        route = model.route_of(event)
        if route is None:
            self._admission.turn_away(event, Outcome.NO_POOL_ALLOWED, None, effects)
            return
        rank = RANK_OF[event.priority]
        endpoint = None
        if not model.room.waiting or not route.lanes.waits_before(rank):
            endpoint = self._place(route, rank, event, now)
        if rank < BATCH_RANK and (endpoint is None or endpoint.pool is not route.pools[0]):
            endpoint = self._instead(route, rank, event, endpoint, now, effects)
        if endpoint is None:
            self._admission.wait_or_turn_away(event, route, rank, now, effects)
            return
        request = self._requests[event.request] = request_of(event, rank, route.rate, self._world.fleet.fairness, now)
        self._slots.take(request, endpoint, route, now, effects)
        if self._admission.displaced:
            self._admission.place_displaced(now, effects)
        pool = endpoint.pool
        if pool.moves and pool.tick_at == inf:
            self._pulse.start(pool, now)
        if route.panic.watches:
            self._admission.watch(route, now, saturated=False)

    def _instead(
        self,
        route: RouteState,
        rank: int,
        event: Arrived,
        found: EndpointState | None,
        now: Seconds,
        effects: list[Effect],
    ) -> EndpointState | None:
        """A place that batch gives up for an online request which found none, or only one in a later tier. Those who wait go first."""
        tier = inf if found is None else route.tier_of[found.pool.spec.name]
        pool = self._admission.make_room(route, rank, tier, now, effects)
        if pool is None:
            return found
        if pool.wanted_above(rank + 1):
            self._admission.fill(pool, now, effects)
            self._admission.place_displaced(now, effects)
            return found
        return endpoint_of(pool, rank, event, self._counters.dispatched, now)

    def _ended(self, event: Ended, now: Seconds, effects: list[Effect]) -> None:
        request = self._requests.pop(event.request, None)
        if request is None:
            self._counters.anomalies += 1
            return
        self._counters.ended += 1
        endpoint = request.endpoint
        if endpoint is None:
            self._admission.leave_room(request)
            cancel(request)  # an earlier attempt may have been charged
            return
        is_trial = self._slots.give_back(request, endpoint)
        request.rate.completed(now - request.sent_at)
        self._lessons.ended(request, endpoint.pool, event, now)
        endpoint.pool.look_at_backfill(now)
        if event.outcome is Outcome.OK and endpoint.breaker.state is BreakerState.CLOSED:
            endpoint.breaker.passed()
        else:
            evidence = EVIDENCE.get(event.outcome, Evidence.NONE)
            self._health.judge(endpoint, evidence, now, effects, is_trial=is_trial)
        if endpoint.pool.wanted:
            self._admission.fill(endpoint.pool, now, effects)

    def _first_token(self, event: FirstToken, now: Seconds, effects: list[Effect]) -> None:
        request = self._requests.get(event.request)
        if request is None or request.endpoint is None:
            self._counters.anomalies += 1
            return
        endpoint = request.endpoint
        if request.answered_at is None:
            endpoint.pool.prompt_tokens -= request.arrived.input_tokens - request.warm_tokens
        request.answered_at = now
        self._lessons.answered(request, endpoint.pool, now)
        if endpoint.breaker.trial == event.request:
            self._health.judge(endpoint, Evidence.WELL, now, effects, is_trial=True)
            self._admission.fill(endpoint.pool, now, effects)

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
        self._admission.fill(endpoint.pool, now, effects)

    def _probed(self, event: Probed, now: Seconds, effects: list[Effect]) -> None:
        for endpoint in self._endpoints_at(event.endpoint):
            self._health.probed(endpoint, now, effects, healthy=event.healthy)
            self._admission.fill(endpoint.pool, now, effects)

    def _drain_set(self, event: DrainSet, now: Seconds, effects: list[Effect]) -> None:
        for endpoint in self._endpoints_at(event.endpoint):
            self._health.drain(endpoint, now, effects, draining=event.draining)
            self._admission.fill(endpoint.pool, now, effects)

    def _scraped(self, event: Scraped, now: Seconds, effects: list[Effect]) -> None:
        for endpoint in self._endpoints_at(event.endpoint):
            endpoint.foreign.scraped(event, now, self._world.fleet.spill.stale_s)
            self._pulse.beat(endpoint.pool, now)
            self._admission.fill(endpoint.pool, now, effects)

    def _quota_seen(self, event: QuotaSeen, now: Seconds, effects: list[Effect]) -> None:
        pool = self._known(event.pool)
        if pool is not None:
            self._pulse.quota_seen(pool, event, now)
            self._admission.fill(pool, now, effects)

    def _limit_set(self, event: LimitSet, now: Seconds, effects: list[Effect]) -> None:
        pool = self._known(event.pool)
        if pool is not None:
            pool.override = event.limit
            pool.refresh(now)
            self._admission.fill(pool, now, effects)

    def _sliced(self, event: Sliced, now: Seconds, effects: list[Effect]) -> None:
        pool = self._known(event.pool)
        if pool is not None:
            pool.slice = event.slots
            pool.refresh(now)
            self._admission.fill(pool, now, effects)

    def _configured(self, event: Configured, now: Seconds, effects: list[Effect]) -> None:
        gone, astray = self._world.configure(event.fleet, now)
        for request in gone:
            self._admission.refuse(request, Outcome.UNAVAILABLE, None, effects)
        for request in astray:
            self._admission.refuse(request, Outcome.NO_POOL_ALLOWED, None, effects)
        for states in self._world.endpoints.values():
            for endpoint in states:
                self._health.update(endpoint, now, effects)
        for rank in RANKS:
            for model in self._models.values():
                for route in list(model.routes.values()):
                    self._admission.fill_tiers(route, rank, now, effects)

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

    def _fire(self, now: Seconds, effects: list[Effect]) -> None:
        while self._timers.next_due <= now:
            subject = self._timers.pop()
            if isinstance(subject, EndpointState):
                self._health.fell_due(subject, now, effects)
                self._admission.fill(subject.pool, now, effects)
            elif isinstance(subject, PoolState):
                self._pulse.fell_due(subject, now)
                self._admission.fill(subject, now, effects)
            elif self._matters(subject):
                self._admission.fell_due(subject, now, effects)

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
        left_s = left_of_patience_s(request, route, now)
        back_s = 0.0 if is_open_for_any(route) else back_at(route, now) - now
        if left_s <= 0 or back_s > left_s:
            self._give_up(request, failed, fault, now, effects)
            return
        route.lanes.join_front(request)
        self._admission.now_waits(request, route, left_s, now, effects)

    def _give_up(
        self, request: RequestState, failed: EndpointState, fault: Fault, now: Seconds, effects: list[Effect]
    ) -> None:
        retry_after_s = retry_in(failed.penalty_until - now) if fault.is_load else None
        self._admission.refuse(request, outcome_of(fault), retry_after_s, effects)
