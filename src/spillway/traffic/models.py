"""What the brain keeps of a model: the routes that lead to its pools, the room where its requests wait, how fast it drains."""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PolicyName, PoolName
from spillway.core.priority import Priority
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Fleet, ModelSpec
from spillway.traffic.parties import RouteKey
from spillway.traffic.pools import PoolState
from spillway.traffic.rates import DrainRate
from spillway.traffic.requests import RequestState
from spillway.traffic.routes import ANYWHERE, NEVER_ON, RouteState, affordable, allowed, label_of
from spillway.traffic.waiting import Lanes, Room

Tiers = tuple[tuple[PoolState, ...], ...]


class _Way(msgspec.Struct, frozen=True):
    """Where a policy leads: one route, or one for each request's price."""

    tiers: Tiers
    route: RouteState | None
    max_usd: float | None


class ModelState:
    __slots__ = (
        "_fleet",
        "_pools",
        "_spec",
        "_ways",
        "name",
        "pools",
        "rate",
        "room",
        "routes",
        "tier_of",
        "usual",
    )

    def __init__(self, spec: ModelSpec, fleet: Fleet, pools: dict[PoolName, PoolState]) -> None:
        self.name: ModelName = spec.name
        self.room = Room(fleet.waiting_room, fleet.fairness)
        self.rate = DrainRate()
        self.routes: dict[str, RouteState] = {}
        self.configure(spec, fleet, pools)

    def configure(self, spec: ModelSpec, fleet: Fleet, pools: dict[PoolName, PoolState]) -> list[RequestState]:
        """Who waits keeps waiting where its policy leads it now, with the deadline it was given. Returns those whom it leads nowhere."""
        waiting = self.close()
        self._spec, self._fleet, self._pools = spec, fleet, pools
        self.pools = tuple(pools[name] for tier in spec.tiers for name in tier)
        self.tier_of = {name: place for place, tier in enumerate(spec.tiers) for name in tier}
        self.room.configure(fleet.waiting_room, fleet.fairness)
        self.routes = {}
        for counters in self.room.counters:
            counters.lanes = 0  # all routes are made anew
        self._ways: dict[tuple[PolicyName, bool], _Way] = {}
        self.usual: RouteState | None = None
        way = self._way(PolicyName(""), hopped=False)
        self.usual = None if way is None or way.max_usd is not None else way.route
        return [request for request in waiting if not self._rejoin(request)]

    def route_of(self, arrived: Arrived) -> RouteState | None:
        """None: its policy leaves no pool."""
        if not arrived.policy and not arrived.hops and self.usual is not None:
            return self.usual
        way = self._way(arrived.policy, hopped=arrived.hops > 0)
        if way is None or way.max_usd is None:
            return None if way is None else way.route
        return self._route(affordable(way.tiers, arrived, way.max_usd))

    def requests(self) -> list[RequestState]:
        """Everybody who waits."""
        return [request for route in self.routes.values() for request in route.lanes.requests()]

    def close(self) -> list[RequestState]:
        """The model leaves: those who wait, who wait no more."""
        waiting = self.requests()
        for request in waiting:
            assert request.route is not None  # it waits
            self.routes[request.route.label].lanes.leave(request)
        return waiting

    def waiting(self, rank: int) -> int:
        return sum(route.lanes.lanes[rank].waiting for route in self.routes.values())

    def _way(self, policy: PolicyName, *, hopped: bool) -> _Way | None:
        """None: there is no such policy."""
        way = self._ways.get((policy, hopped))
        if way is not None:
            return way
        own = self._fleet.policies.get(policy) if policy else ANYWHERE
        if own is None:
            return None
        policies = (self._spec.policy, own, NEVER_ON if hopped else ANYWHERE)
        tiers = allowed(self._spec, self._pools, *policies)
        ceilings = [one.max_usd for one in policies if one.max_usd is not None]
        max_usd = min(ceilings, default=None)
        way = self._ways[policy, hopped] = _Way(tiers, None if ceilings else self._route(tiers), max_usd)
        return way

    def _route(self, tiers: Tiers) -> RouteState | None:
        if not tiers:
            return None
        label = label_of(tiers)
        route = self.routes.get(label)
        if route is None:
            max_wait_s: tuple[Seconds, ...] = tuple(
                self._fleet.priorities[priority].max_wait_s for priority in Priority
            )
            route = self.routes[label] = RouteState(RouteKey(self.name, label), Lanes(self.room), self.rate, max_wait_s)
            route.leads_to(tiers, self.tier_of)
        return route

    def _rejoin(self, request: RequestState) -> bool:
        route = self.route_of(request.arrived)
        if route is None:
            return False
        request.route = route.key
        (route.lanes.join_front if request.attempt else route.lanes.join)(request)
        return True
