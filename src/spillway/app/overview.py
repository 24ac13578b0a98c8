"""What the workers told, put together: the fleet as operators see it."""

from collections.abc import Iterable

from spillway.app.messages import Told
from spillway.core.ids import EndpointUrl, ModelName
from spillway.telemetry.totals import Totals
from spillway.traffic.effects import BreakerState
from spillway.traffic.snapshot import EndpointView, ModelView, PoolView, QueueView, Snapshot

BREAKER_SEVERITY = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class Overview:
    """Latest words of each live worker; the counters of those that are gone are kept in `totals`."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._snapshots: dict[str, Snapshot] = {}

    def told(self, worker: str, told: Told) -> None:
        self.totals.add(worker, told.report)
        self._snapshots[worker] = told.snapshot

    def retire(self, worker: str) -> None:
        self.totals.retire(worker)
        self._snapshots.pop(worker, None)

    @property
    def workers(self) -> int:
        return len(self._snapshots)

    def in_flight(self, url: EndpointUrl) -> int:
        """What all workers have at an endpoint, in whatever pool."""
        return sum(
            endpoint.in_flight
            for snapshot in self._snapshots.values()
            for pool in snapshot.pools
            for endpoint in pool.endpoints
            if endpoint.url == url
        )

    def snapshot(self) -> Snapshot:
        return merged(self._snapshots.values())


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Limits and counts add up over workers; an endpoint shows its worst breaker. T(b) is the mean of
    the workers', each of which counts what it sent itself as b."""
    pools: dict[str, list[PoolView]] = {}
    waiting: dict[tuple[str, str], list[QueueView]] = {}
    panics: dict[ModelName, bool] = {}
    for snapshot in snapshots:
        for pool in snapshot.pools:
            pools.setdefault(pool.name, []).append(pool)
        for model in snapshot.models:
            panics[model.name] = panics.get(model.name, False) or model.panic
        for queue in snapshot.queues:
            waiting.setdefault((queue.model, queue.priority), []).append(queue)
    return Snapshot(
        pools=tuple(_pool(views) for views in pools.values()),
        models=tuple(ModelView(name, panic) for name, panic in panics.items()),
        queues=tuple(QueueView(v[0].model, v[0].priority, sum(q.waiting for q in v)) for v in waiting.values()),
    )


def _pool(views: list[PoolView]) -> PoolView:
    first = views[0]
    limit, in_flight = sum(view.limit for view in views), sum(view.in_flight for view in views)
    endpoints: dict[str, list[EndpointView]] = {}
    for view in views:
        for endpoint in view.endpoints:
            endpoints.setdefault(endpoint.url, []).append(endpoint)
    return PoolView(
        name=first.name,
        cluster=first.cluster,
        limit=limit,
        in_flight=in_flight,
        load_index=_mean_load(views),
        endpoints=tuple(_endpoint(same) for same in endpoints.values()),
        configured_limit=sum(view.configured_limit for view in views),
        spill_share=_mean([view.spill_share for view in views]),
        foreign=sum(view.foreign for view in views),
        x_s=_mean([view.x_s for view in views]),
        y_s=_mean([view.y_s for view in views]) / len(views),  # a worker's line is as much steeper (`Fleet.sliced`)
    )


def _mean_load(views: list[PoolView]) -> float:
    """Weighted by each worker's share of the limit."""
    limit = sum(view.limit for view in views)
    return sum(view.load_index * view.limit for view in views) / limit if limit else 1.0


def _endpoint(views: list[EndpointView]) -> EndpointView:
    return EndpointView(
        url=views[0].url,
        breaker=max((view.breaker for view in views), key=BREAKER_SEVERITY.__getitem__),
        in_flight=sum(view.in_flight for view in views),
        foreign=sum(view.foreign for view in views),
        draining=all(view.draining for view in views),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
