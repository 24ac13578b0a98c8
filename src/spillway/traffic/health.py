"""Moves breakers and penalties by what was seen of endpoints, and keeps their pools' summaries and timers up to date."""

import enum
from math import inf

from spillway.core.clock import Seconds
from spillway.core.outcome import Outcome
from spillway.traffic.effects import BreakerChanged, BreakerState, Effect
from spillway.traffic.pools import RAMP_STEPS, EndpointState, PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.timers import Timers
from spillway.traffic.world import World

USUAL_PENALTY_S = 1.0
SHORTEST_PENALTY_S = 0.1
LONGEST_PENALTY_S = 30.0


class Evidence(enum.Enum):
    WELL = enum.auto()
    SICK = enum.auto()
    NONE = enum.auto()


EVIDENCE: dict[Outcome, Evidence] = {
    Outcome.OK: Evidence.WELL,
    Outcome.CONTEXT_LENGTH_EXCEEDED: Evidence.WELL,
    Outcome.CONTENT_FILTERED: Evidence.WELL,
    Outcome.UPSTREAM_REJECTED: Evidence.WELL,
    Outcome.CUT: Evidence.SICK,
    Outcome.UPSTREAM_ERROR: Evidence.SICK,
    Outcome.UPSTREAM_TIMEOUT: Evidence.SICK,
}
"""What an ending says of the endpoint. Outcomes that are not named say nothing: the client left, or we were at fault."""


class Health:
    """After any of its methods the pool of the endpoint may admit more (or less) than before."""

    __slots__ = ("_timers", "_world")

    def __init__(self, world: World, timers: Timers[RequestState | EndpointState | PoolState]) -> None:
        self._world = world
        self._timers = timers

    def judge(
        self, endpoint: EndpointState, evidence: Evidence, now: Seconds, effects: list[Effect], *, is_trial: bool
    ) -> None:
        """What an attempt, or a probe, showed. In HALF_OPEN only the trial and probes count, in OPEN nothing does; of an
        endpoint that left the configuration nothing is learned."""
        if endpoint.retired:
            return
        breaker = endpoint.breaker
        if breaker.state is BreakerState.CLOSED:
            if evidence is Evidence.WELL:
                breaker.passed()
            elif evidence is Evidence.SICK and breaker.trips_on_fault(now):
                last = self._world.is_last_usable(endpoint)
                breaker.trip(now, last=last)
                endpoint.was_open = not last
                self._changed(endpoint, effects)
                self.update(endpoint, now, effects)
        elif breaker.state is BreakerState.HALF_OPEN and is_trial:
            if evidence is Evidence.WELL:
                breaker.close()
                self._begin_slowly(endpoint, now)
                self._changed(endpoint, effects)
            elif evidence is Evidence.SICK:
                last = self._world.is_last_usable(endpoint)
                breaker.trial_failed(now, last=last)
                endpoint.was_open |= not last
                if not last:
                    self._changed(endpoint, effects)
            self.update(endpoint, now, effects)

    def probed(self, endpoint: EndpointState, now: Seconds, effects: list[Effect], *, healthy: bool) -> None:
        """A healthy probe closes HALF_OPEN; in CLOSED it proves nothing, for a sick engine may have a well health page."""
        if endpoint.breaker.state is BreakerState.CLOSED and healthy:
            return
        self.judge(endpoint, Evidence.WELL if healthy else Evidence.SICK, now, effects, is_trial=True)

    def penalize(
        self, endpoint: EndpointState, retry_after_s: Seconds | None, now: Seconds, effects: list[Effect]
    ) -> None:
        """The endpoint said it is full: nothing is sent there for as long as it asked."""
        asked_s = USUAL_PENALTY_S if retry_after_s is None else retry_after_s
        penalty_s = min(max(asked_s, SHORTEST_PENALTY_S), LONGEST_PENALTY_S)
        endpoint.penalty_until = max(endpoint.penalty_until, now + penalty_s)
        self.update(endpoint, now, effects)

    def drain(self, endpoint: EndpointState, now: Seconds, effects: list[Effect], *, draining: bool) -> None:
        endpoint.draining = draining
        self.update(endpoint, now, effects)

    def fell_due(self, endpoint: EndpointState, now: Seconds, effects: list[Effect]) -> None:
        endpoint.timer = inf
        self.update(endpoint, now, effects)

    def update(self, endpoint: EndpointState, now: Seconds, effects: list[Effect]) -> None:
        """Opens the way for a trial when its time has come, refreshes the pool, sets the next timer. May be called at any time."""
        if endpoint.retired:
            return
        breaker = endpoint.breaker
        if breaker.state is BreakerState.OPEN and now >= breaker.until:
            breaker.time_over()
            self._changed(endpoint, effects)
        endpoint.pool.refresh(now)
        due = endpoint.back_at(now)
        if now < endpoint.ramp_until:  # under a penalty too: its pool's limit grows with it
            step = min(endpoint.ramp_until, now + (endpoint.ramp_until - endpoint.ramp_from) / RAMP_STEPS)
            due = step if due <= now else min(due, step)
        if now < due < endpoint.timer and due < inf:
            endpoint.timer = due
            self._timers.add(due, endpoint)

    def _begin_slowly(self, endpoint: EndpointState, now: Seconds) -> None:
        """Back from the dead: its share of the limit grows over max(ramp_s, 5·x). The last of a model, which never was OPEN, carries
        all of it at once: there is nobody else to carry it meanwhile."""
        if not endpoint.was_open:
            return
        endpoint.was_open = False
        capacity = endpoint.pool.spec.capacity
        endpoint.ramp_from = now
        endpoint.ramp_until = now + max(self._world.fleet.spill.ramp_s, 0.0 if capacity is None else 5.0 * capacity.x_s)

    def _changed(self, endpoint: EndpointState, effects: list[Effect]) -> None:
        effects.append(BreakerChanged(endpoint.url, endpoint.pool.spec.name, endpoint.breaker.state))
