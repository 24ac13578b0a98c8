"""What the parent counts beside its workers: the workers themselves, and the way of usage into the store."""

from spillway.telemetry.metrics import Registry, Report


class ParentMetrics:
    def __init__(self) -> None:
        self._registry = Registry()
        self._deaths = self._registry.counter("spillway_worker_deaths_total")

    def worker_died(self) -> None:
        """A worker ended without being told to."""
        self._deaths.add()

    def report(
        self,
        *,
        workers: int,
        ingested: int,
        known: int,
        corrupt: int,
        spool_bytes: int,
        store_up: bool,
        ledger_up: bool,
        ledger_failures: int,
    ) -> Report:
        """The totals and the state as they are now: for `Totals.total(own)`."""
        registry = self._registry
        registry.gauge("spillway_workers").value = workers
        registry.gauge("spillway_spool_bytes").value = spool_bytes
        registry.gauge("spillway_store_up").value = int(store_up)
        registry.gauge("spillway_ledger_up").value = int(ledger_up)
        registry.counter("spillway_ledger_failures_total").value = ledger_failures
        registry.counter("spillway_usage_ingested_total").value = ingested
        registry.counter("spillway_usage_known_total").value = known
        registry.counter("spillway_usage_corrupt_segments_total").value = corrupt
        return registry.report()
