"""Who goes before whom at a pool, by the audit's own books.

Rules
- Nobody is sent to a pool while somebody more urgent waits for it, or above the ceiling of its priority, but for what it is owed:
  a minimum share of the work that was sent there while its priority waited. Above the ceiling also while a route of the pool panics.
- A newcomer overtakes nobody of its own priority either.
- Batch counts as interactive once half the time to its deadline is over (the brain promotes later than that).
"""

from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PoolName
from spillway.core.priority import Priority
from spillway.traffic.events import Arrived

SHARES = (0.0, 0.10, 0.02)  # by rank
RANKS = range(len(Priority))
Route = tuple[ModelName, tuple[PoolName, ...]]


class _Place:
    """One pool: who waits for it, and what was sent there while they did."""

    __slots__ = ("backlog", "near_work", "owed_work", "sent_work", "waiting")

    def __init__(self) -> None:
        self.waiting = [0 for _ in RANKS]  # by the priority they came with
        self.backlog = [0 for _ in RANKS]  # the same, and batch that may have been promoted
        self.sent_work = [0.0 for _ in RANKS]  # since the rank began to wait
        self.owed_work = [0.0 for _ in RANKS]  # of it: sent for the rank's minimum share
        self.near_work = 0.0  # the same of batch near its deadline, which may have been sent for either share

    def is_owed(self, rank: int, *, near: bool) -> bool:
        """Whether something of its minimum share is left. What it takes may overshoot by one request."""
        if not near:
            return rank > 0 and self.owed_work[rank] <= 1e-6 + SHARES[rank] * self.sent_work[rank]
        taken = self.near_work + self.owed_work[1] + self.owed_work[2]
        return taken <= 1e-6 + SHARES[1] * self.sent_work[1] + SHARES[2] * self.sent_work[2]


class Precedence:
    def __init__(self) -> None:
        self.places: dict[PoolName, _Place] = {}
        self.demand: dict[Route, _Demand] = {}
        self.owed = 0  # sent before somebody more urgent, or above the ceiling
        self.promoted = 0  # batch near its deadline that went before somebody interactive

    def reset(self) -> None:
        """A new configuration: the brain forgets what was owed and who panicked. Those who wait must be told again."""
        self.places.clear()
        self.demand.clear()

    def waits(self, arrived: Arrived, pools: tuple[PoolName, ...]) -> None:
        for name in pools:
            place = self.places.get(name)
            if place is None:
                place = self.places[name] = _Place()
            place.waiting[arrived.priority.rank] += 1
            for rank in _ranks(arrived):
                if not place.backlog[rank]:
                    place.sent_work[rank] = place.owed_work[rank] = place.near_work = 0.0
                place.backlog[rank] += 1

    def waits_no_more(self, arrived: Arrived, pools: tuple[PoolName, ...]) -> None:
        for name in pools:
            place = self.places[name]
            place.waiting[arrived.priority.rank] -= 1
            for rank in _ranks(arrived):
                place.backlog[rank] -= 1

    def sent(
        self, arrived: Arrived, age_s: Seconds, pool: PoolName, *, work: float, newcomer: bool, free: bool
    ) -> None:
        """Before it stops waiting. `free`: the pool was below the ceiling of its priority, or a route that leads there panics."""
        place = self.places.get(pool)
        if place is None:
            assert free, "sent above its ceiling"
            return
        rank = arrived.priority.rank
        near = arrived.deadline_s is not None and rank == 2 and age_s >= arrived.deadline_s / 2 - 1e-9
        effective = 1 if near else rank
        assert not (newcomer and any(place.waiting[: rank + 1])), "a newcomer overtook who waited"
        if any(place.waiting[:effective]) or not free:
            assert place.is_owed(rank, near=near), (
                "sent before somebody more urgent, or above its ceiling, and not owed it"
            )
            if near:
                place.near_work += work
            else:
                place.owed_work[rank] += work
            self.owed += 1
        elif near and place.waiting[1]:
            self.promoted += 1
        for one in RANKS:
            if place.backlog[one]:
                place.sent_work[one] += work

    def found(self, route: Route, now: Seconds, *, room: bool) -> None:
        """An arrival found room at once, or none."""
        demand = self.demand.get(route)
        if demand is None:
            demand = self.demand[route] = _Demand()
        demand.found(now, room=room)

    def panics(self, pool: PoolName) -> bool:
        """Whether some route that leads there does."""
        return any(demand.panics and pool in pools for (_, pools), demand in self.demand.items())


class _Demand:
    """A route panics when no arrival has found room for a second, until all have for five."""

    __slots__ = ("calm_since", "full_since", "panics")

    def __init__(self) -> None:
        self.full_since: Seconds = inf
        self.calm_since: Seconds = inf
        self.panics = False

    def found(self, now: Seconds, *, room: bool) -> None:
        if not room:
            self.calm_since = inf
            self.full_since = min(self.full_since, now)
            self.panics |= now - self.full_since >= 1.0
            return
        self.full_since = inf
        self.calm_since = min(self.calm_since, now) if self.panics else inf
        if self.panics and now - self.calm_since >= 5.0:
            self.panics, self.calm_since = False, inf


def _ranks(arrived: Arrived) -> tuple[int, ...]:
    rank = arrived.priority.rank
    return (1, 2) if rank == 2 and arrived.deadline_s is not None else (rank,)
