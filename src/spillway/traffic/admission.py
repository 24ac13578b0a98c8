"""Who waits at the gateway, who is called in when a slot frees up, and who is turned away.

What always holds between two events: nobody waits whom some pool of its route admits. So whoever frees a slot looks only
at those who wait for that pool, and a newcomer that finds somebody waiting need not look at pools at all.
"""

from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.traffic.backfill import MOST_AT_ONCE
from spillway.traffic.choice import back_at, endpoint_again, endpoint_of, is_open_for_any, is_usable, place_again
from spillway.traffic.effects import Effect, Queued, Refuse, Yielded
from spillway.traffic.events import Arrived
from spillway.traffic.parties import BATCH_RANK, RouteKey
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.rates import retry_in
from spillway.traffic.requests import RequestState, request_of
from spillway.traffic.routes import RouteState
from spillway.traffic.slots import Slots
from spillway.traffic.snapshot import Counters
from spillway.traffic.timers import Timers
from spillway.traffic.waiting import cancel, first_lane
from spillway.traffic.world import World

PROMOTED_RANK = Priority.INTERACTIVE.rank


class Admission:
    """`requests`: all that run or wait, shared with the controller."""

    __slots__ = ("_counters", "_requests", "_slots", "_timers", "_world", "displaced")

    def __init__(
        self,
        world: World,
        requests: dict[RequestId, RequestState],
        slots: Slots,
        timers: Timers[RequestState | EndpointState | PoolState],
        counters: Counters,
    ) -> None:
        self._world = world
        self._requests = requests
        self._slots = slots
        self._timers = timers
        self._counters = counters
        self.displaced: dict[RouteKey, None] = {}  # routes of which somebody has just yielded

    def wait_or_turn_away(
        self, event: Arrived, route: RouteState, rank: int, now: Seconds, effects: list[Effect]
    ) -> None:
        panics = rank < BATCH_RANK and self.watch(
            route, now, saturated=True
        )  # batch waits: that is no want of capacity
        if panics:
            self._fill_all(route, now, effects)
        room, rate = self._world.models[event.model].room, route.rate
        wait_s = patience_s(event, route, rank)
        if not is_open_for_any(route):
            back_s = back_at(route, now) - now
            if back_s > wait_s:
                outcome = Outcome.REFUSED if is_usable(route) else Outcome.UNAVAILABLE
                self.turn_away(event, outcome, None if back_s == inf else retry_in(back_s), effects)
                return
        lanes = route.lanes
        if wait_s <= 0 or (
            rate.wait_s(lanes.up_to(rank)) > wait_s and rate.wait_s(lanes.ahead_of(event, rank)) > wait_s
        ):
            self.turn_away(event, Outcome.REFUSED, rate.retry_after_s(room.waiting), effects)
            return
        if not room.has_room_for(event, rank) and not self._make_way(event, rank, effects):
            self.turn_away(event, Outcome.REFUSED, rate.retry_after_s(room.waiting), effects)
            return
        request = self._requests[event.request] = request_of(event, rank, route.rate, self._world.fleet.fairness, now)
        lanes.join(request)
        self.now_waits(request, route, wait_s, now, effects)
        if panics:
            self._fill_all(route, now, effects)

    def _make_way(self, event: Arrived, rank: int, effects: list[Effect]) -> bool:
        """The room is full: the less urgent give their places to who is more urgent (`Room.make_way_for`)."""
        room = self._world.models[event.model].room
        while (last := room.make_way_for(event, rank)) is not None:
            self.evict(last, effects)
            if room.has_room_for(event, rank):
                return True
        return False

    def now_waits(
        self, request: RequestState, route: RouteState, wait_s: Seconds, now: Seconds, effects: list[Effect]
    ) -> None:
        """The request has just joined the room."""
        request.route = route.key
        if route.lanes.lanes[request.rank].waiting == 1:
            route.want(request.rank)
        request.queued_at = now
        request.deadline = now + wait_s
        self._timers.add(request.deadline, request)
        if request.rank > PROMOTED_RANK and request.arrived.deadline_s is not None:
            request.promote_at = request.arrived_at + promotion_s(request.arrived, route)
            self._timers.add(request.promote_at, request)
        self._counters.queued += 1
        effects.append(Queued(request.arrived.request))

    def fell_due(self, request: RequestState, now: Seconds, effects: list[Effect]) -> None:
        """A timer of one that waits: its time is over, or its deadline is near."""
        if request.deadline <= now:
            self.evict(request, effects)
        elif request.promote_at <= now:
            self._promote(request, now, effects)

    def _promote(self, request: RequestState, now: Seconds, effects: list[Effect]) -> None:
        """Charged to its tenant's interactive share from here on, so that it is no other tenant's loss."""
        key = request.route
        self.leave_room(request)
        assert key is not None  # it waits
        route = self._world.models[key.model].routes[key.label]
        request.rank, request.promote_at, request.route = PROMOTED_RANK, inf, key
        (route.lanes.join_front if request.attempt else route.lanes.join)(request)
        if route.lanes.lanes[PROMOTED_RANK].waiting == 1:
            route.want(PROMOTED_RANK)
        self._counters.promoted += 1
        self.fill_tiers(route, PROMOTED_RANK, now, effects)

    def leave_room(self, request: RequestState) -> None:
        key = request.route
        assert key is not None  # it waits
        route = self._world.models[key.model].routes[key.label]
        route.lanes.leave(request)
        request.route = None
        if not route.lanes.lanes[request.rank].waiting:
            route.unwant(request.rank)

    def fill(self, pool: PoolState, now: Seconds, effects: list[Effect]) -> None:
        """Sends those who wait for this pool for as long as it admits them: of the routes whose turn comes first.

        Only this pool may have gained room since the last event: no other admits anybody who waits.
        """
        while pool.wanted:
            rank = pool.next_rank()
            if rank is None:
                return
            route = self._next_route(pool, rank)
            owed = pool.is_owed(rank)
            self._counters.owed += owed
            request = self._call_in(route, rank, now)
            request.owed = owed
            endpoint = (
                endpoint_again(pool, request, now)
                if request.tried
                else endpoint_of(pool, rank, request.arrived, self._counters.dispatched, now)
            )
            self._slots.take(request, endpoint, route, now, effects)

    def make_room(
        self, route: RouteState, rank: int, beyond: float, now: Seconds, effects: list[Effect]
    ) -> PoolState | None:
        """Batch yields to an online request that would wait, or go to the tier `beyond` or a later one: in the first pool where that
        lets it in. None: nowhere."""
        for pool in route.pools:
            if route.tier_of[pool.spec.name] >= beyond:
                return None
            if pool.batch and not pool.admits(rank) and pool.slots[rank] and self._yields(pool, rank, now, effects):
                return pool
        return None

    def _yields(self, pool: PoolState, rank: int, now: Seconds, effects: list[Effect]) -> bool:
        """The latest ones sent make room, as many as it takes; none where that would not be enough."""
        latest: list[tuple[RequestState, RouteState, Seconds]] = []
        in_flight, kv_held = pool.in_flight, pool.kv_held
        for one in reversed(pool.batch.values()):
            if len(latest) == MOST_AT_ONCE or (in_flight < pool.slots[rank] and kv_held < pool.kv_slots[rank]):
                break
            assert isinstance(one, RequestState)
            model = self._world.models.get(one.arrived.model)
            route = None if model is None else model.route_of(one.arrived)
            left_s = 0.0 if route is None else left_of_patience_s(one, route, now)
            if route is not None and left_s > 0 and one.answered_at is None:  # else it could not wait again
                latest.append((one, route, left_s))
                in_flight -= 1
                kv_held -= one.kv_tokens
        if in_flight >= pool.slots[rank] or kv_held >= pool.kv_slots[rank]:
            return False
        for one, route, left_s in latest:
            self._yield(one, route, left_s, now, effects)
        return True

    def _yield(
        self, request: RequestState, route: RouteState, left_s: Seconds, now: Seconds, effects: list[Effect]
    ) -> None:
        """Back into the room, in front of its lane, as if it had not been sent."""
        endpoint = request.endpoint
        assert endpoint is not None  # it runs
        if self._slots.give_back(request, endpoint):
            endpoint.pool.refresh(now)  # its trial ends without a verdict
        request.endpoint = None
        request.attempt -= 1
        self._counters.yielded += 1
        effects.append(Yielded(request.arrived.request))
        route.lanes.join_front(request)
        self.now_waits(request, route, left_s, now, effects)
        self.displaced[route.key] = None

    def place_displaced(self, now: Seconds, effects: list[Effect]) -> None:
        """Those who made room find another place, if there is one: to be called when who they made it for has taken it."""
        routes, self.displaced = self.displaced, {}
        for key in routes:
            self.fill_tiers(self._world.models[key.model].routes[key.label], BATCH_RANK, now, effects)

    def _next_route(self, pool: PoolState, rank: int) -> RouteState:
        """Models take turns; of one model's routes the one whose next request has been served least."""
        keys = pool.wanted_by[rank]
        if len(keys) == 1:
            first = next(iter(keys))
            return self._world.models[first.model].routes[first.label]
        first = next(iter(keys))
        model = self._world.models[first.model]
        routes = [model.routes[key.label] for key in keys if key.model == first.model]
        for one in routes:
            keys.move_to_end(one.key)
        return next_of(routes, rank)

    def fill_tiers(self, route: RouteState, rank: int, now: Seconds, effects: list[Effect]) -> None:
        """The same when any pool may have gained room: in tiers' order."""
        while route.lanes.lanes[rank].waiting and any(
            pool.admits(rank) and not pool.wanted_above(rank) for pool in route.pools_for(rank)
        ):
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

    def watch(self, route: RouteState, now: Seconds, *, saturated: bool) -> bool:
        """True: the route has just begun to panic, and its pools may take more."""
        if not route.panic.update(now, saturated=saturated):
            return False
        self._counters.panics += route.panic.active
        route.panics(now, active=route.panic.active)
        return route.panic.active

    def _fill_all(self, route: RouteState, now: Seconds, effects: list[Effect]) -> None:
        for pool in route.pools:
            self.fill(pool, now, effects)

    def evict(self, request: RequestState, effects: list[Effect]) -> None:
        self.leave_room(request)
        self._counters.evicted += 1
        room = self._world.models[request.arrived.model].room
        self.refuse(request, Outcome.EVICTED, request.rate.retry_after_s(room.waiting), effects)

    def refuse(
        self, request: RequestState, outcome: Outcome, retry_after_s: Seconds | None, effects: list[Effect]
    ) -> None:
        del self._requests[request.arrived.request]
        cancel(request)
        self.turn_away(request.arrived, outcome, retry_after_s, effects)

    def turn_away(
        self, arrived: Arrived, outcome: Outcome, retry_after_s: Seconds | None, effects: list[Effect]
    ) -> None:
        self._counters.refused += 1
        effects.append(Refuse(arrived.request, outcome, retry_after_s))


def next_of(routes: list[RouteState], rank: int) -> RouteState:
    """Of one model's routes with somebody of this rank waiting: whose attempt failed first, then who was served less."""
    lanes = [route.lanes.lanes[rank] for route in routes]
    return routes[lanes.index(first_lane(lanes))]


def patience_s(arrived: Arrived, route: RouteState, rank: int) -> Seconds:
    """How long a request may wait from its arrival: as its priority says, and not so long that its answer would come after its
    deadline. Batch with a deadline waits until that."""
    wait_s = route.max_wait_s[rank]
    if arrived.deadline_s is None:
        return wait_s
    by_deadline_s = arrived.deadline_s - route.rate.residence_s
    return by_deadline_s if arrived.priority is Priority.BATCH else min(wait_s, by_deadline_s)


def left_of_patience_s(request: RequestState, route: RouteState, now: Seconds) -> Seconds:
    """The same for one that has waited and run before: running counts towards its deadline only."""
    arrived = request.arrived
    left_s = route.max_wait_s[request.rank] - request.waited_s
    if arrived.deadline_s is None:
        return left_s
    by_deadline_s = request.arrived_at + arrived.deadline_s - route.rate.residence_s - now
    return by_deadline_s if arrived.priority is Priority.BATCH else min(left_s, by_deadline_s)


def promotion_s(arrived: Arrived, route: RouteState) -> Seconds:
    """When batch with a deadline waits on as interactive, from its arrival: as long before its last chance as interactive requests
    wait, yet not in the first half of its time, so that nobody gains by naming a short one."""
    if arrived.deadline_s is None:
        return inf
    last_s = arrived.deadline_s - route.rate.residence_s
    return max(arrived.deadline_s / 2, last_s - route.max_wait_s[PROMOTED_RANK])
