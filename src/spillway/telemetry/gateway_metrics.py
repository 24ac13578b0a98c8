"""What a worker counts about requests: an observer of the gateway. Hot path: `ended` runs once a request.

All series of one (model, pool, priority, outcome) are found with one dict get. Measured by benchmarks/accounting.py: 0.85 µs.
"""

from collections.abc import Iterable, Mapping

import msgspec

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.telemetry.metrics import OTHER, Counter, Histogram, Registry, Report

NONE = "none"
"""The label value where there is no pool, no model, no priority."""


class PoolGauges(msgspec.Struct, frozen=True):
    name: PoolName
    in_flight: int
    limit: int
    load_index: float
    endpoints_open: int
    spill_share: float = 0.0
    foreign: float = 0.0


class QueueGauge(msgspec.Struct, frozen=True):
    model: ModelName
    priority: Priority
    waiting: int


class _Ending:
    """The series that requests which ended alike count in."""

    __slots__ = ("cached", "completion", "cost", "duration", "prompt", "requests", "tpot", "ttft")

    def __init__(self, registry: Registry, model: str, pool: str, priority: str, outcome: str) -> None:
        self.requests: Counter = registry.counter("spillway_requests_total", model, pool, priority, outcome)
        self.prompt: Counter = registry.counter("spillway_tokens_total", model, pool, "prompt")
        self.completion: Counter = registry.counter("spillway_tokens_total", model, pool, "completion")
        self.cached: Counter = registry.counter("spillway_tokens_total", model, pool, "cached")
        self.cost: Counter = registry.counter("spillway_cost_usd_total", model, pool)
        self.ttft: Histogram = registry.histogram("spillway_ttft_seconds", model, pool)
        self.tpot: Histogram = registry.histogram("spillway_tpot_seconds", model, pool)
        self.duration: Histogram = registry.histogram("spillway_duration_seconds", model, pool)


_Key = tuple[ModelName, PoolName | None, Priority, Outcome]


class GatewayMetrics:
    """Model names that are not in `models` are counted as `other`: clients cannot make labels."""

    def __init__(self, registry: Registry, models: Iterable[ModelName]) -> None:
        self._registry = registry
        self._models = frozenset(models)
        self._endings: dict[_Key, _Ending] = {}
        self._overhead = registry.histogram("spillway_overhead_seconds")

    def configured(self, models: Iterable[ModelName]) -> None:
        """There are other models now. What was counted stays."""
        self._models = frozenset(models)
        self._endings.clear()

    def ended(self, record: UsageRecord, overhead_s: float) -> None:
        ending = self._endings.get((record.model, record.pool, record.priority, record.outcome))
        if ending is None:
            ending = self._first_of_its_kind(record)
        ending.requests.value += 1
        ending.duration.observe(record.duration_s)
        self._overhead.observe(overhead_s)
        if record.prompt_tokens or record.completion_tokens:
            ending.prompt.value += record.prompt_tokens
            ending.completion.value += record.completion_tokens
            ending.cost.value += record.cost_usd
            if record.cached_tokens:
                ending.cached.value += record.cached_tokens
        if record.ttft_s is not None:
            ending.ttft.observe(record.ttft_s)
            if record.tpot_s is not None:
                ending.tpot.observe(record.tpot_s)

    def refused(self, outcome: Outcome) -> None:
        self._registry.counter("spillway_requests_total", NONE, NONE, NONE, outcome.value).add()

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None:
        self._registry.counter("spillway_spilled_total", self._shown(model), origin, target, str(reason)).add()

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: str, detail: str
    ) -> None:
        del request, endpoint, detail  # logs tell them; as labels they would have no bound
        self._registry.counter("spillway_attempt_failures_total", pool, str(fault)).add()

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None:
        del endpoint
        self._registry.counter("spillway_breaker_changes_total", pool, str(state)).add()

    def checked(self, model: ModelName, stage: str, verdict: str, took_s: float) -> None:
        """A safety check of a request of this model."""
        self._registry.counter("spillway_safety_checks_total", self._shown(model), stage, verdict).add()
        self._registry.histogram("spillway_safety_seconds", self._shown(model)).observe(took_s)

    def spool(self, *, unsettled: int, lost: int, full: bool) -> None:
        self._registry.gauge("spillway_usage_unsettled").value = unsettled
        self._registry.gauge("spillway_spool_full").value = int(full)
        self._registry.counter("spillway_usage_lost_total").value = lost

    def keys(self, known: int) -> None:
        self._registry.gauge("spillway_keys").value = known

    def quotas(
        self,
        refusals: Mapping[tuple[str, str, str], int],
        *,
        meters: int,
        waiting: int,
        members: int,
        cut_off: bool,
        learning: bool,
    ) -> None:
        """`refusals`: totals since the start, by unit, span and why."""
        for labels, count in refusals.items():
            self._registry.counter("spillway_quota_refusals_total", *labels).value = count
        self._registry.gauge("spillway_quota_meters").value = meters
        self._registry.gauge("spillway_quota_waiting").value = waiting
        self._registry.gauge("spillway_ledger_members").value = members
        self._registry.gauge("spillway_ledger_cut_off").value = int(cut_off)
        self._registry.gauge("spillway_ledger_learning").value = int(learning)

    def state(
        self, pools: Iterable[PoolGauges], queues: Iterable[QueueGauge], panics: Mapping[ModelName, bool]
    ) -> None:
        """The brain as it is now; what is not named any more is gone."""
        registry = self._registry
        for name in (
            "inflight",
            "limit",
            "load_index",
            "endpoints_open",
            "spill_share",
            "foreign",
            "panic",
            "queue_depth",
        ):
            registry.forget_gauge(f"spillway_{name}")
        for pool in pools:
            registry.gauge("spillway_inflight", pool.name).value = pool.in_flight
            registry.gauge("spillway_limit", pool.name).value = pool.limit
            registry.gauge("spillway_load_index", pool.name).value = pool.load_index
            registry.gauge("spillway_endpoints_open", pool.name).value = pool.endpoints_open
            registry.gauge("spillway_spill_share", pool.name).value = pool.spill_share
            registry.gauge("spillway_foreign", pool.name).value = pool.foreign
        for queue in queues:
            registry.gauge("spillway_queue_depth", queue.model, queue.priority.value).value = queue.waiting
        for model, panic in panics.items():
            registry.gauge("spillway_panic", model).value = int(panic)

    def decisions(self, counts: Mapping[str, int]) -> None:
        """Totals since the start, by kind."""
        for kind, count in counts.items():
            self._registry.counter("spillway_decisions_total", kind).value = count

    def report(self) -> Report:
        return self._registry.report()

    def _first_of_its_kind(self, record: UsageRecord) -> _Ending:
        model = self._shown(record.model)
        ending = _Ending(self._registry, model, record.pool or NONE, record.priority.value, record.outcome.value)
        if model == record.model:  # an unknown name is not remembered: there is no end to them
            self._endings[record.model, record.pool, record.priority, record.outcome] = ending
        return ending

    def _shown(self, model: ModelName) -> str:
        return model if model in self._models else OTHER
