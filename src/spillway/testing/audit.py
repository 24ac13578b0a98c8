"""Watches a brain from outside: keeps its own books from events and effects alone, and raises at the first broken promise.

Checked with every event
- Each arrival has exactly one ending; attempts count up and stay within the rules.
- Nothing is sent to a full pool (slots, KV tokens, a provider's quota), to a drained, removed or OPEN endpoint, to one that asked to
  be left alone, past the one trial of a HALF_OPEN one, or where the request's policy does not lead (`permits`).
- Nobody goes before who is more urgent, or above its ceiling, without being owed it (`precedence`).
- The waiting room holds no more than its bounds, in requests and in bytes.
- Of the models in `even`, siblings that wait are served evenly (`evenness`).
`check` adds: the brain's books are these; nobody waits longer than they may, or while a pool could take them; what was owed
and what was promoted was counted.
"""

from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.evenness import Books
from spillway.testing.permits import permitted
from spillway.testing.places import Place, Places
from spillway.testing.precedence import Precedence
from spillway.traffic.effects import BreakerChanged, Dispatch, Effect, Queued, Refuse, WakeAt, Yielded
from spillway.traffic.events import (
    Arrived,
    AttemptFailed,
    Configured,
    Ended,
    Event,
    FirstToken,
    Woke,
)
from spillway.traffic.fleet import Fleet
from spillway.traffic.snapshot import Snapshot

REFUSALS = frozenset(
    (
        Outcome.REFUSED,
        Outcome.EVICTED,
        Outcome.UNAVAILABLE,
        Outcome.NO_POOL_ALLOWED,
        Outcome.UPSTREAM_ERROR,
        Outcome.UPSTREAM_TIMEOUT,
    )
)


class Followed:
    """One request that has not ended."""

    __slots__ = (
        "answered",
        "arrived",
        "arrived_at",
        "attempts",
        "came_back",
        "place",
        "pools",
        "waited_s",
        "waits_since",
    )

    def __init__(self, arrived: Arrived, now: Seconds, pools: tuple[PoolName, ...]) -> None:
        self.arrived = arrived
        self.arrived_at = now
        self.pools = pools  # that its policy permits
        self.answered = False
        self.came_back = False  # it yielded
        self.attempts = 0
        self.place: Place | None = None
        self.waits_since: Seconds | None = None
        self.waited_s: Seconds = 0.0


class Audit:
    """`even`: models whose turns are watched. They must have one route: no policies, no hops."""

    def __init__(self, even: frozenset[ModelName] = frozenset()) -> None:
        self.even = even
        self.books: dict[tuple[ModelName, Priority], Books] = {}
        self.precedence = Precedence()
        self.places = Places()
        self.fleet = Fleet(pools={}, models={})
        self.alive: dict[RequestId, Followed] = {}
        self.waiting: dict[ModelName, int] = {}
        self.waiting_bytes: dict[ModelName, int] = {}
        self.newcomer: RequestId | None = None  # has just arrived
        self.direct: tuple[ModelName, tuple[PoolName, ...]] | None = None  # the route where it found room at once
        self.wake_at: Seconds = inf
        self.longest_wait_s: Seconds = 0.0
        self.sent = self.refused = self.ended = self.arrived = self.yielded = 0

    def observe(self, event: Event, now: Seconds, effects: list[Effect]) -> None:
        """`now` must be the one given to the brain."""
        kind = type(event)
        if kind is Arrived:
            self._arrived(event, now, effects)  # pyright: ignore[reportArgumentType]
        elif kind is Ended:
            self._ended(event)  # pyright: ignore[reportArgumentType]
        elif kind is FirstToken:
            self._first_token(event)  # pyright: ignore[reportArgumentType]
        elif kind is AttemptFailed:
            self._attempt_failed(event, now)  # pyright: ignore[reportArgumentType]
        elif kind is Woke:
            self.wake_at = inf
        elif isinstance(event, Configured):
            self._configured(event.fleet)
        else:
            self.places.operated(event, now)
        for effect in effects:
            self._acted(effect, now)
        if kind is Arrived:
            followed = self.alive.get(event.request)  # pyright: ignore[reportAttributeAccessIssue]
            assert followed is None or followed.place is not None or followed.waits_since is not None, "unanswered"
            if self.direct is not None:
                self.precedence.found(self.direct, now, room=True)
        self.newcomer = self.direct = None

    def check(self, snapshot: Snapshot, now: Seconds) -> None:
        """The slow checks: the brain's books against these, and who waits too long. For every so many events."""
        shown = {pool.name: pool.in_flight for pool in snapshot.pools if pool.in_flight}
        assert shown == {pool: count for pool, count in self.places.in_flight.items() if count}
        for pool in snapshot.pools:
            for endpoint in pool.endpoints:
                assert endpoint.in_flight == self.places.at.get((pool.name, endpoint.url), 0)
        waiting = dict.fromkeys(self.fleet.models, 0)
        for queue in snapshot.queues:
            waiting[queue.model] += queue.waiting
        assert waiting == {model: self.waiting.get(model, 0) for model in self.fleet.models}
        for followed in self.alive.values():
            if (
                followed.waits_since is not None and followed.arrived.priority is not Priority.BATCH
            ):  # it may have to leave room
                ceiling = self.fleet.priorities[followed.arrived.priority].ceiling
                room = any(self.places.has_room(name, ceiling, now) for name in followed.pools)
                assert not room, "waits beside a free slot"
                waits_s = now - followed.waits_since
                assert waits_s <= 1e-6 + self._max_wait_s(followed) or self.wake_at <= now, "waits too long"
        counters = snapshot.counters
        assert counters.arrived == counters.ended + counters.refused + len(self.alive)
        assert (counters.arrived, counters.ended, counters.refused) == (self.arrived, self.ended, self.refused)
        assert self.precedence.owed <= counters.owed, "sent before somebody more urgent, and not counted"
        assert self.precedence.promoted <= counters.promoted + counters.owed

    @property
    def pairs(self) -> int:
        """Of siblings that waited together under the present configuration."""
        return sum(group.pairs for books in self.books.values() for group in books.groups.values())

    # Events

    def _arrived(self, event: Arrived, now: Seconds, effects: list[Effect]) -> None:
        if event.request in self.alive:
            return
        self.arrived += 1
        pools = permitted(self.fleet, event)
        self.alive[event.request] = Followed(event, now, pools)
        self.newcomer = event.request
        if not pools:
            return
        route = event.model, pools
        said = next(
            (e for e in effects if isinstance(e, Dispatch | Queued | Refuse) and e.request == event.request), None
        )
        assert said is not None, "unanswered"
        if isinstance(said, Dispatch):
            self.direct = route
        else:
            self.precedence.found(route, now, room=False)

    def _ended(self, event: Ended) -> None:
        followed = self.alive.pop(event.request, None)
        if followed is None:
            return
        self.ended += 1
        if books := self._books(followed.arrived):
            books.ended(event.request, (event.input_tokens, event.output_tokens) if followed.place else None)
        self._stop_waiting(followed, None)
        self._leave(followed)

    def _first_token(self, event: FirstToken) -> None:
        followed = self.alive.get(event.request)
        if followed is not None and followed.place is not None:
            followed.answered = True
            self.places.answered(followed.place, event.request)

    def _attempt_failed(self, event: AttemptFailed, now: Seconds) -> None:
        followed = self.alive.get(event.request)
        if followed is not None:
            if followed.place is not None:
                self.places.failed(followed.place, event, now)
            self._leave(followed)

    def _configured(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.places.configured(fleet)
        for books in self.books.values():
            books.interrupt()
        self.precedence.reset()
        for followed in self.alive.values():
            followed.pools = permitted(fleet, followed.arrived)
            if followed.waits_since is not None:
                self.precedence.waits(followed.arrived, followed.pools)
                if books := self._books(followed.arrived):
                    books.waits(followed.arrived)

    # Effects

    def _acted(self, effect: Effect, now: Seconds) -> None:
        kind = type(effect)
        if kind is Dispatch:
            self._dispatched(effect, now)  # pyright: ignore[reportArgumentType]
        elif kind is Queued:
            self._queued(effect, now)  # pyright: ignore[reportArgumentType]
        elif kind is Refuse:
            self._refused(effect, now)  # pyright: ignore[reportArgumentType]
        elif kind is Yielded:
            self._yielded(effect)  # pyright: ignore[reportArgumentType]
        elif kind is WakeAt:
            self.wake_at = min(self.wake_at, effect.at)  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(effect, BreakerChanged):
            self.places.changed(effect, now)

    def _dispatched(self, effect: Dispatch, now: Seconds) -> None:
        followed = self.alive.get(effect.request)
        assert followed is not None, "sent though it has ended"
        pool, place = effect.pool, (effect.pool, effect.endpoint)
        assert followed.place is None, "sent while it runs"
        assert pool in followed.pools, "sent where its policy does not lead"
        below = self.places.is_below(pool, self._ceiling(followed, now))
        self.places.take(followed.arrived, place, now)
        followed.attempts += 1
        assert effect.attempt == followed.attempts, "attempts do not count up"
        assert effect.attempt <= self.fleet.retries.attempts, "more attempts than the rules allow"
        assert (effect.spill is None) == (effect.spilled_from is None) == (pool in self._first_tier(followed))
        self._goes_first(followed, pool, now, below=below)
        if followed.waits_since is not None and (books := self._books(followed.arrived)):
            books.sent(followed.arrived, in_turn=followed.attempts == 1)
        self._stop_waiting(followed, now)
        followed.place = place
        self.sent += 1

    def _ceiling(self, followed: Followed, now: Seconds) -> float:
        """Of its priority; batch may have that of interactive once half of its time is over."""
        arrived = followed.arrived
        near = arrived.deadline_s is not None and now - followed.arrived_at >= arrived.deadline_s / 2 - 1e-9
        is_interactive = near and arrived.priority is Priority.BATCH
        return self.fleet.priorities[Priority.INTERACTIVE if is_interactive else arrived.priority].ceiling

    def _goes_first(self, followed: Followed, pool: PoolName, now: Seconds, *, below: bool) -> None:
        arrived, age_s = followed.arrived, now - followed.arrived_at
        rules = self.fleet.fairness
        self.precedence.sent(
            arrived,
            age_s,
            pool,
            work=max(1.0, rules.input_weight * arrived.input_tokens + rules.output_weight * arrived.output_tokens),
            newcomer=arrived.request == self.newcomer and followed.waits_since is None,
            free=below or self.precedence.panics(pool),
        )

    def _yielded(self, effect: Yielded) -> None:
        followed = self.alive[effect.request]
        assert followed.arrived.priority is Priority.BATCH, "only batch yields"
        assert followed.place is not None, "yields though it does not run"
        assert not followed.answered, "yields though its client has a part of its answer"
        assert self.newcomer is not None, "yields to nobody"
        assert self.alive[self.newcomer].arrived.priority is not Priority.BATCH, "yields to batch"
        self._leave(followed)
        followed.attempts -= 1
        followed.came_back = True
        self.yielded += 1

    def _queued(self, effect: Queued, now: Seconds) -> None:
        followed = self.alive[effect.request]
        assert followed.place is None, "queued while it runs"
        assert followed.waits_since is None, "queued twice"
        followed.waits_since = now
        self.precedence.waits(followed.arrived, followed.pools)
        if books := self._books(followed.arrived):
            books.waits(followed.arrived)
        model, room = followed.arrived.model, self.fleet.waiting_room
        self.waiting[model] = self.waiting.get(model, 0) + 1
        self.waiting_bytes[model] = self.waiting_bytes.get(model, 0) + followed.arrived.body_bytes
        if not (followed.attempts or followed.came_back):
            assert self.waiting[model] <= room.max_requests, "more wait than the room holds"
            assert self.waiting_bytes[model] <= room.max_bytes, "more bytes wait than the room holds"

    def _refused(self, effect: Refuse, now: Seconds) -> None:
        followed = self.alive.pop(effect.request)
        assert followed.place is None, "refused while it runs"
        assert effect.outcome in REFUSALS
        assert (effect.outcome is Outcome.NO_POOL_ALLOWED) == (
            not followed.pools and followed.arrived.model in self.fleet.models
        ), "refused by a policy that leaves a pool, or waited without one"
        assert effect.retry_after_s is None or 1.0 <= effect.retry_after_s <= 60.0
        self.refused += 1
        if books := self._books(followed.arrived):
            books.ended(effect.request, None)
        self._stop_waiting(followed, now)

    # Books

    def _leave(self, followed: Followed) -> None:
        place = followed.place
        if place is None:
            return
        followed.place = None
        self.places.leave(followed.arrived, place)

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
        self.precedence.waits_no_more(followed.arrived, followed.pools)
        if books := self._books(followed.arrived):
            books.waits_no_more(followed.arrived)

    def _books(self, arrived: Arrived) -> Books | None:
        if arrived.model not in self.even:
            return None
        key = arrived.model, arrived.priority
        if key not in self.books:
            self.books[key] = Books(self.fleet.fairness)
        return self.books[key]

    def _max_wait_s(self, followed: Followed) -> Seconds:
        arrived = followed.arrived
        if arrived.priority is Priority.BATCH and arrived.deadline_s is not None:
            return arrived.deadline_s
        return self.fleet.priorities[arrived.priority].max_wait_s

    def _first_tier(self, followed: Followed) -> tuple[PoolName, ...]:
        return self.fleet.models[followed.arrived.model].tiers[0]
