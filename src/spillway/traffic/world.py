"""Everything that stands: pools, endpoints, models. Made and remade from the configuration; what runs is never forgotten.

A pool or endpoint that leaves the configuration is retired: it takes nothing, and stays until what runs there has ended,
so its requests are accounted for, and if it comes back meanwhile it comes back with them.
"""

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.core.ids import EndpointUrl, ModelName, PoolName
from spillway.traffic.choice import is_last_usable
from spillway.traffic.fleet import Fleet, PoolSpec
from spillway.traffic.models import ModelState
from spillway.traffic.parties import RANKS
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.validation import problems


class World:
    def __init__(self) -> None:
        self.fleet = Fleet(pools={}, models={})
        self.pools: dict[PoolName, PoolState] = {}
        self.models: dict[ModelName, ModelState] = {}
        self.endpoints: dict[EndpointUrl, tuple[EndpointState, ...]] = {}  # the configured ones

    def configure(self, fleet: Fleet, now: Seconds) -> tuple[list[RequestState], list[RequestState]]:
        """Returns who waits for models that are gone, and whose policy leaves no pool any more: they are to be refused.

        A fleet with problems raises and changes nothing.
        """
        if wrong := problems(fleet):
            raise ConfigError("; ".join(wrong))
        self.fleet = fleet
        for name, spec in fleet.pools.items():
            self._configure_pool(name, spec)
        for name in self.pools.keys() - fleet.pools.keys():
            self.pools[name].retire()
        gone = [self.models.pop(name).close() for name in list(self.models) if name not in fleet.models]
        astray: list[RequestState] = []
        for name, spec in fleet.models.items():
            model = self.models.get(name)
            if model is None:
                self.models[name] = ModelState(spec, fleet, self.pools)
            else:
                astray += model.configure(spec, fleet, self.pools)
        self._connect()
        for pool in list(self.pools.values()):
            pool.refresh(now)
            self.forget_if_over(pool)
        return [request for requests in gone for request in requests], astray

    def forget_if_over(self, pool: PoolState) -> None:
        """Drops what is retired and has nothing in flight any more."""
        over = [url for url, endpoint in pool.endpoints.items() if endpoint.retired and not endpoint.in_flight]
        for url in over:
            del pool.endpoints[url]
        if pool.retired and not pool.in_flight:
            self.pools.pop(pool.spec.name, None)

    def is_last_usable(self, endpoint: EndpointState) -> bool:
        """Whether some model would be left without an endpoint if this one opened. Looked at when a breaker trips only."""
        models = (self.models[name] for name in endpoint.pool.models)
        return endpoint.usable and any(is_last_usable(model, endpoint) for model in models)

    def _configure_pool(self, name: PoolName, spec: PoolSpec) -> None:
        pool = self.pools.get(name)
        if pool is None:
            pool = self.pools[name] = PoolState(spec, self.fleet)
        else:
            if pool.retired:
                pool.retired, pool.override, pool.slice = False, None, None
            pool.configure(spec, self.fleet)
        kept = pool.endpoints
        pool.endpoints = {
            url: kept.pop(url, None) or EndpointState(url, pool, self.fleet.breaker) for url in spec.endpoints
        }  # in the order of the configuration
        for url, endpoint in pool.endpoints.items():
            endpoint.retired = False
            endpoint.breaker.rules = self.fleet.breaker
            # an operator's drain holds wherever the endpoint moves, and is forgotten with it
            endpoint.draining = any(known.draining for known in self.endpoints.get(url, ()))
        for url, endpoint in kept.items():
            endpoint.retired = True
            pool.endpoints[url] = endpoint

    def _connect(self) -> None:
        """The cross references: which models a pool serves and who waits for it, which endpoints an address means."""
        serves: dict[PoolName, list[ModelName]] = {name: [] for name in self.pools}
        endpoints: dict[EndpointUrl, list[EndpointState]] = {}
        for name, model in self.models.items():
            for pool in model.pools:
                serves[pool.spec.name].append(name)
        for name, pool in self.pools.items():
            pool.models = tuple(serves[name])
            pool.rooms = tuple(self.models[model].room for model in pool.models)
            pool.nobody_waits()
            for url, endpoint in pool.endpoints.items():
                if not endpoint.retired:
                    endpoints.setdefault(url, []).append(endpoint)
        for model in self.models.values():
            for route in model.routes.values():
                for rank in RANKS:
                    if route.lanes.lanes[rank].waiting:
                        route.want(rank)
        self.endpoints = {url: tuple(states) for url, states in endpoints.items()}
