"""Makes the snapshot out of what the brain keeps."""

import msgspec

from spillway.core.priority import Priority
from spillway.traffic.models import ModelState
from spillway.traffic.pools import PoolState
from spillway.traffic.snapshot import Counters, EndpointView, PoolView, QueueView, Snapshot
from spillway.traffic.world import World


def snapshot_of(world: World, counters: Counters) -> Snapshot:
    return Snapshot(
        pools=tuple(_pool(pool) for pool in world.pools.values()),
        queues=tuple(queue for model in world.models.values() for queue in _queues(model)),
        counters=msgspec.structs.replace(counters),
    )


def _pool(pool: PoolState) -> PoolView:
    return PoolView(
        name=pool.spec.name,
        cluster=pool.spec.cluster,
        limit=pool.limit,
        in_flight=pool.in_flight,
        load_index=pool.load_index,
        endpoints=tuple(
            EndpointView(endpoint.url, endpoint.breaker.state, endpoint.in_flight, endpoint.draining)
            for endpoint in pool.endpoints.values()
        ),
    )


def _queues(model: ModelState) -> tuple[QueueView, ...]:
    return tuple(QueueView(model.name, priority, model.waiting(priority.rank)) for priority in Priority)
