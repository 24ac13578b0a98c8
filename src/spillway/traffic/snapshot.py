"""What the brain shows of itself: to the admin API, the metrics and the console. Plain values, made on demand."""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName
from spillway.core.priority import Priority
from spillway.traffic.effects import BreakerState


class EndpointView(msgspec.Struct, frozen=True):
    url: EndpointUrl
    breaker: BreakerState
    in_flight: int
    draining: bool
    foreign: float = 0.0  # requests of others there, by its own gauges


class PoolView(msgspec.Struct, frozen=True):
    """`limit` is the one in force: an operator's override, and never more than the engine's sequences. `configured_limit`: that
    of the configuration, where an adaptive one begins. `x_s`, `y_s`: T(b) as corrected by what completions took; 0: not known.

    A pool that has left the configuration is shown with limit 0 until what runs there has ended.
    """

    name: PoolName
    cluster: ClusterName | None
    limit: int
    in_flight: int
    load_index: float
    endpoints: tuple[EndpointView, ...]
    configured_limit: int = 0
    spill_share: float = 0.0  # 0–1, of an ESTIMATED pool
    foreign: float = 0.0  # requests of others, beyond their share
    x_s: Seconds = 0.0
    y_s: Seconds = 0.0


class ModelView(msgspec.Struct, frozen=True):
    """`panic`: on some route of the model all tiers together can't carry what is asked of them."""

    name: ModelName
    panic: bool


class QueueView(msgspec.Struct, frozen=True):
    model: ModelName
    priority: Priority
    waiting: int


class Counters(msgspec.Struct):
    """Since the start. `arrived` = `ended` + `refused` + running + waiting."""

    arrived: int = 0
    ended: int = 0  # by the driver's word
    refused: int = 0  # by ours, whatever the outcome
    evicted: int = 0  # of the refused: waited as long as they may
    queued: int = 0
    dispatched: int = 0  # attempts
    retried: int = 0  # of the attempts: those after the first
    spilled: int = 0  # of the attempts: those in a tier after the first
    owed: int = (
        0  # of the attempts: those sent before others, or above their ceiling, to give a priority its minimum share
    )
    yielded: int = 0  # batch attempts given up for somebody more urgent
    promoted: int = 0  # batch requests that went on as interactive ones because their deadline came near
    panics: int = 0  # times that a route's tiers together could not carry its demand
    anomalies: int = 0  # events that made no sense: unknown or repeated ids, unknown pools and endpoints


class Snapshot(msgspec.Struct, frozen=True):
    pools: tuple[PoolView, ...]
    queues: tuple[QueueView, ...]
    models: tuple[ModelView, ...] = ()
    counters: Counters = msgspec.field(default_factory=Counters)
