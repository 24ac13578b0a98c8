"""What the brain says of itself, as gauges."""

from spillway.telemetry.gateway_metrics import GatewayMetrics, PoolGauges, QueueGauge
from spillway.traffic.effects import BreakerState
from spillway.traffic.snapshot import Snapshot

DECISIONS = ("queued", "evicted", "retried", "owed", "yielded", "promoted", "panics", "anomalies")


def tell_state(metrics: GatewayMetrics, snapshot: Snapshot) -> None:
    pools = [
        PoolGauges(
            pool.name,
            pool.in_flight,
            pool.limit,
            pool.load_index,
            sum(endpoint.breaker is BreakerState.OPEN for endpoint in pool.endpoints),
            pool.spill_share,
            pool.foreign,
        )
        for pool in snapshot.pools
    ]
    metrics.state(
        pools,
        [QueueGauge(q.model, q.priority, q.waiting) for q in snapshot.queues],
        {model.name: model.panic for model in snapshot.models},
    )
    metrics.decisions({kind: getattr(snapshot.counters, kind) for kind in DECISIONS})
