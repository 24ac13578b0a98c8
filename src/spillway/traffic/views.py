"""Makes the snapshot out of what the brain keeps."""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.priority import Priority
from spillway.traffic.models import ModelState
from spillway.traffic.pools import PoolState
from spillway.traffic.snapshot import Counters, EndpointView, ModelView, PoolView, QueueView, Snapshot
from spillway.traffic.world import World


def snapshot_of(world: World, counters: Counters, now: Seconds) -> Snapshot:
    return Snapshot(
        pools=tuple(_pool(pool, now) for pool in world.pools.values()),
        queues=tuple(queue for model in world.models.values() for queue in _queues(model)),
        models=tuple(
            ModelView(model.name, any(route.panic.active for route in model.routes.values()))
            for model in world.models.values()
        ),
        counters=msgspec.structs.replace(counters),
    )


def _pool(pool: PoolState, now: Seconds) -> PoolView:
    x_s, y_s = pool.line.corrected()
    return PoolView(
        name=pool.spec.name,
        cluster=pool.spec.cluster,
        limit=pool.limit,
        in_flight=pool.in_flight,
        load_index=pool.load_index,
        endpoints=tuple(
            EndpointView(
                endpoint.url, endpoint.breaker.state, endpoint.in_flight, endpoint.draining, endpoint.foreign.held(now)
            )
            for endpoint in pool.endpoints.values()
        ),
        configured_limit=0 if pool.retired else pool.spec.limit,
        spill_share=0.0 if pool.share is None else pool.share.share,
        foreign=pool.foreign,
        x_s=x_s,
        y_s=y_s,
    )


def _queues(model: ModelState) -> tuple[QueueView, ...]:
    return tuple(QueueView(model.name, priority, model.waiting(priority.rank)) for priority in Priority)
