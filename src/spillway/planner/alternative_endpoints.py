"""Inside a pool: choices of an endpoint that know nothing of prefixes and sessions, to compare affinity with."""

from zlib import crc32

from spillway.core.clock import Seconds
from spillway.traffic.events import Arrived
from spillway.traffic.pools import EndpointState
from spillway.traffic.routes import RouteState


class AnyEndpoint:
    """One of those that are ready in the first pool that has room, by a checksum of the request."""

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        ready = ready_where_room(route, rank)
        return ready[crc32(arrived.request.encode()) % len(ready)] if ready else None


class LeastLoaded:
    """The one with the least work in flight."""

    def place(self, route: RouteState, rank: int, arrived: Arrived, now: Seconds) -> EndpointState | None:
        return min(ready_where_room(route, rank), key=lambda endpoint: endpoint.work, default=None)


def ready_where_room(route: RouteState, rank: int) -> tuple[EndpointState, ...]:
    return next((pool.ready for pool in route.pools if pool.ready and pool.admits(rank)), ())
