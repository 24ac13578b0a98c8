"""What the brain shows of itself: to the admin API, the metrics and the console. Plain values, made on demand."""

import msgspec

from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName
from spillway.core.priority import Priority
from spillway.traffic.effects import BreakerState


class EndpointView(msgspec.Struct, frozen=True):
    url: EndpointUrl
    breaker: BreakerState
    in_flight: int
    draining: bool


class PoolView(msgspec.Struct, frozen=True):
    name: PoolName
    cluster: ClusterName | None
    limit: int
    in_flight: int
    load_index: float
    endpoints: tuple[EndpointView, ...]


class QueueView(msgspec.Struct, frozen=True):
    model: ModelName
    priority: Priority
    waiting: int


class Snapshot(msgspec.Struct, frozen=True):
    pools: tuple[PoolView, ...]
    queues: tuple[QueueView, ...]
