"""Watches a brain from outside: keeps its own books from events and effects alone, and raises at the first broken promise.

Checked with every event: each arrival has exactly one ending; nothing is sent to a full pool, to a drained, removed or
OPEN endpoint, or past the one trial of a HALF_OPEN one; attempts count up and stay within the rules; the waiting room
holds no more than its bounds. `check` adds: nobody waits longer than a priority may, or while a pool could take them.
"""

from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.traffic.effects import BreakerChanged, BreakerState, Dispatch, Effect, Queued, Refuse, WakeAt
from spillway.traffic.events import (
    Arrived,
    AttemptFailed,
    Configured,
    DrainSet,
    Ended,
    Event,
    FirstToken,
    LimitSet,
    Woke,
)
from spillway.traffic.fleet import Fleet, PoolSpec
from spillway.traffic.snapshot import Snapshot

LONGEST_PENALTY_S = 30.0
LONGEST_RAMP_S = 30.0
Place = tuple[PoolName, EndpointUrl]
REFUSALS = frozenset(
    (Outcome.REFUSED, Outcome.EVICTED, Outcome.UNAVAILABLE, Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_TIMEOUT)
)


class Followed:
    """One request that has not ended."""

    __slots__ = ("arrived", "attempts", "place", "waited_s", "waits_since")

    def __init__(self, arrived: Arrived) -> None:
        self.arrived = arrived
        self.attempts = 0
        self.place: Place | None = None
        self.waits_since: Seconds | None = None
        self.waited_s: Seconds = 0.0


class Audit:
    def __init__(self) -> None:
        self.fleet = Fleet(pools={}, models={})
        self.alive: dict[RequestId, Followed] = {}
        self.waiting: dict[ModelName, int] = {}
        self.waiting_bytes: dict[ModelName, int] = {}
        self.in_flight: dict[PoolName, int] = {}
        self.at: dict[Place, int] = {}
        self.limits: dict[PoolName, int | None] = {}
        self.drained: set[EndpointUrl] = set()
        self.breakers: dict[Place, BreakerState] = {}
        self.changed_at: dict[Place, Seconds] = {}
        self.trials: dict[Place, RequestId] = {}
        self.overloaded_at: dict[Place, Seconds] = {}
        self.wake_at: Seconds = inf
        self.longest_wait_s: Seconds = 0.0
        self.sent = self.refused = self.ended = self.arrived = 0

    def observe(self, event: Event, now: Seconds, effects: list[Effect]) -> None:
        """`now` must be the one given to the brain."""
        kind = type(event)
        if kind is Arrived:
            self._arrived(event)  # pyright: ignore[reportArgumentType]
        elif kind is Ended:
            self._ended(event)  # pyright: ignore[reportArgumentType]
        elif kind is FirstToken:
            self._first_token(event)  # pyright: ignore[reportArgumentType]
        elif kind is AttemptFailed:
            self._attempt_failed(event, now)  # pyright: ignore[reportArgumentType]
        elif kind is Woke:
            self.wake_at = inf
        else:
            self._operated(event)
        for effect in effects:
            self._acted(effect, now)
        if kind is Arrived:
            followed = self.alive.get(event.request)  # pyright: ignore[reportAttributeAccessIssue]
            assert followed is None or followed.place is not None or followed.waits_since is not None, "unanswered"

    def check(self, snapshot: Snapshot, now: Seconds) -> None:
        """The slow checks: the brain's books against these, and who waits too long. For every so many events."""
        shown = {pool.name: pool.in_flight for pool in snapshot.pools if pool.in_flight}
        assert shown == {pool: count for pool, count in self.in_flight.items() if count}
        for pool in snapshot.pools:
            for endpoint in pool.endpoints:
                assert endpoint.in_flight == self.at.get((pool.name, endpoint.url), 0)
        waiting = dict.fromkeys(self.fleet.models, 0)
        for queue in snapshot.queues:
            waiting[queue.model] += queue.waiting
        assert waiting == {model: self.waiting.get(model, 0) for model in self.fleet.models}
        for followed in self.alive.values():
            if followed.waits_since is not None:
                assert not self._could_run(followed, now), "waits beside a free slot"
                assert now - followed.waits_since <= 1e-6 + self._max_wait_s(followed) or self.wake_at <= now
        counters = snapshot.counters
        assert counters.arrived == counters.ended + counters.refused + len(self.alive)
        assert (counters.arrived, counters.ended, counters.refused) == (self.arrived, self.ended, self.refused)

    # Events

    def _arrived(self, event: Arrived) -> None:
        if event.request not in self.alive:
            self.arrived += 1
            self.alive[event.request] = Followed(event)

    def _ended(self, event: Ended) -> None:
        followed = self.alive.pop(event.request, None)
        if followed is None:
            return
        self.ended += 1
        self._stop_waiting(followed, None)
        self._leave(followed)

    def _first_token(self, event: FirstToken) -> None:
        followed = self.alive.get(event.request)
        if followed is not None and followed.place is not None and self.trials.get(followed.place) == event.request:
            del self.trials[followed.place]

    def _attempt_failed(self, event: AttemptFailed, now: Seconds) -> None:
        followed = self.alive.get(event.request)
        if followed is not None:
            if followed.place is not None and event.fault.is_load:
                self.overloaded_at[followed.place] = now
            self._leave(followed)

    def _operated(self, event: Event) -> None:
        match event:
            case Configured():
                self._configured(event.fleet)
            case LimitSet() if event.pool in self.fleet.pools:
                self.limits[event.pool] = event.limit
            case DrainSet() if any(event.endpoint in pool.endpoints for pool in self.fleet.pools.values()):
                (self.drained.add if event.draining else self.drained.discard)(event.endpoint)
            case _:
                pass

    def _configured(self, fleet: Fleet) -> None:
        self.fleet = fleet
        places = {(name, url) for name, pool in fleet.pools.items() for url in pool.endpoints}
        self.limits = {name: limit for name, limit in self.limits.items() if name in fleet.pools}
        self.drained &= {url for _, url in places}
        # an endpoint that left and has nothing running is forgotten, breaker and all
        kept = {place: state for place, state in self.breakers.items() if place in places or self.at.get(place)}
        self.breakers = kept
        self.trials = {place: trial for place, trial in self.trials.items() if place in kept}

    # Effects

    def _acted(self, effect: Effect, now: Seconds) -> None:
        kind = type(effect)
        if kind is Dispatch:
            self._dispatched(effect, now)  # pyright: ignore[reportArgumentType]
        elif kind is Queued:
            self._queued(effect, now)  # pyright: ignore[reportArgumentType]
        elif kind is Refuse:
            self._refused(effect, now)  # pyright: ignore[reportArgumentType]
        elif kind is WakeAt:
            self.wake_at = min(self.wake_at, effect.at)  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(effect, BreakerChanged):
            place = (effect.pool, effect.endpoint)
            assert self.breakers.get(place, BreakerState.CLOSED) is not effect.state
            self.breakers[place] = effect.state
            self.changed_at[place] = now
            self.trials.pop(place, None)

    def _dispatched(self, effect: Dispatch, now: Seconds) -> None:
        followed = self.alive[effect.request]
        pool, place = effect.pool, (effect.pool, effect.endpoint)
        assert followed.place is None, "sent while it runs"
        spec = self.fleet.pools[pool]
        assert any(pool in tier for tier in self.fleet.models[followed.arrived.model].tiers)
        assert effect.endpoint in spec.endpoints
        assert effect.endpoint not in self.drained
        override = self.limits.get(pool)
        held = self.in_flight.get(pool, 0)
        assert held < (spec.limit if override is None else override), "sent to a full pool"
        state = self.breakers.get(place, BreakerState.CLOSED)
        assert state is not BreakerState.OPEN
        if state is BreakerState.HALF_OPEN:
            assert place not in self.trials, "a second trial"
            self.trials[place] = effect.request
        followed.attempts += 1
        assert effect.attempt == followed.attempts <= self.fleet.retries.attempts
        assert (effect.spill is None) == (effect.spilled_from is None) == (pool in self._first_tier(followed))
        self._stop_waiting(followed, now)
        followed.place = place
        self.in_flight[pool] = held + 1
        self.at[place] = self.at.get(place, 0) + 1
        self.sent += 1

    def _queued(self, effect: Queued, now: Seconds) -> None:
        followed = self.alive[effect.request]
        assert followed.place is None, "queued while it runs"
        assert followed.waits_since is None, "queued twice"
        followed.waits_since = now
        model, room = followed.arrived.model, self.fleet.waiting_room
        self.waiting[model] = self.waiting.get(model, 0) + 1
        self.waiting_bytes[model] = self.waiting_bytes.get(model, 0) + followed.arrived.body_bytes
        if not followed.attempts:
            assert self.waiting[model] <= room.max_requests
            assert self.waiting_bytes[model] <= room.max_bytes

    def _refused(self, effect: Refuse, now: Seconds) -> None:
        followed = self.alive.pop(effect.request)
        assert followed.place is None, "refused while it runs"
        assert effect.outcome in REFUSALS
        assert effect.retry_after_s is None or 1.0 <= effect.retry_after_s <= 60.0
        self.refused += 1
        self._stop_waiting(followed, now)

    # Books

    def _leave(self, followed: Followed) -> None:
        place = followed.place
        if place is None:
            return
        followed.place = None
        self.in_flight[place[0]] -= 1
        self.at[place] -= 1
        if self.trials.get(place) == followed.arrived.request:
            del self.trials[place]
        if not self.at[place]:
            del self.at[place]
            spec = self.fleet.pools.get(place[0])
            if spec is None or place[1] not in spec.endpoints:
                self.breakers.pop(place, None)

    def _stop_waiting(self, followed: Followed, now: Seconds | None) -> None:
        if followed.waits_since is None:
            return
        model = followed.arrived.model
        self.waiting[model] -= 1
        self.waiting_bytes[model] -= followed.arrived.body_bytes
        if now is not None:
            followed.waited_s += now - followed.waits_since
            self.longest_wait_s = max(self.longest_wait_s, followed.waited_s)
        followed.waits_since = None

    def _could_run(self, followed: Followed, now: Seconds) -> bool:
        """Whether some pool surely has room: below its ceiling by count, with an endpoint that is well, and no KV bound."""
        ceiling = self.fleet.priorities[followed.arrived.priority].ceiling
        for name in (name for tier in self.fleet.models[followed.arrived.model].tiers for name in tier):
            spec, override = self.fleet.pools[name], self.limits.get(name)
            limit = spec.limit if override is None else override
            slots = max(1, int(ceiling * max(1, int(limit * self._carried(spec, now) + 1e-9)) + 1e-9))
            if spec.capacity is not None or not limit or self.in_flight.get(name, 0) >= slots:
                continue
            for url in spec.endpoints:
                closed = self.breakers.get((name, url), BreakerState.CLOSED) is BreakerState.CLOSED
                calm = now > self.overloaded_at.get((name, url), -inf) + LONGEST_PENALTY_S
                if closed and calm and url not in self.drained:
                    return True
        return False

    def _carried(self, spec: PoolSpec, now: Seconds) -> float:
        """At least this part of the limit is open: a tenth for an endpoint that was sick of late, all of it for the others."""
        parts = 0.0
        for url in spec.endpoints:
            place = (spec.name, url)
            if url in self.drained or self.breakers.get(place, BreakerState.CLOSED) is not BreakerState.CLOSED:
                continue
            parts += 1.0 if now > self.changed_at.get(place, -inf) + LONGEST_RAMP_S else 0.1
        return parts / len(spec.endpoints)

    def _max_wait_s(self, followed: Followed) -> Seconds:
        return self.fleet.priorities[followed.arrived.priority].max_wait_s

    def _first_tier(self, followed: Followed) -> tuple[PoolName, ...]:
        return self.fleet.models[followed.arrived.model].tiers[0]
