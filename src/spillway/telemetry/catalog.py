"""Every metric there is: its name, kind, labels and what it says. The parent renders by this table, workers count by it."""

import enum

import msgspec


class Kind(enum.StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(enum.Enum):
    """How the gauges of several live workers become one."""

    SUM = "sum"
    MEAN = "mean"
    MAX = "max"


class Spec(msgspec.Struct, frozen=True):
    """`buckets` are upper bounds in ascending order, without the last one, which is infinite."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Across = Across.SUM


TTFT_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0)
TPOT_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
OVERHEAD_S = (0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0)
DURATION_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)

_COUNTERS = (
    Spec(
        "spillway_requests_total",
        Kind.COUNTER,
        "Requests that ended, by how they ended.",
        ("model", "pool", "priority", "outcome"),
    ),
    Spec(
        "spillway_spilled_total",
        Kind.COUNTER,
        "Requests that went on to a later tier, by why.",
        ("model", "from", "to", "reason"),
    ),
    Spec(
        "spillway_tokens_total",
        Kind.COUNTER,
        "Tokens used. kind: prompt, completion, or cached (a part of prompt).",
        ("model", "pool", "kind"),
    ),
    Spec("spillway_cost_usd_total", Kind.COUNTER, "What the tokens cost by the pool's price.", ("model", "pool")),
    Spec(
        "spillway_attempt_failures_total",
        Kind.COUNTER,
        "Attempts that failed before the answer began.",
        ("pool", "fault"),
    ),
    Spec(
        "spillway_breaker_changes_total",
        Kind.COUNTER,
        "Changes of endpoints' breakers, by the new state.",
        ("pool", "state"),
    ),
    Spec(
        "spillway_usage_lost_total", Kind.COUNTER, "Usage records that could be neither written nor kept. Must stay 0."
    ),
    Spec(
        "spillway_decisions_total",
        Kind.COUNTER,
        "What the brain did beside sending: queued, evicted, retried, owed (sent for a minimum share), promoted, panics, anomalies.",
        ("kind",),
    ),
    Spec(
        "spillway_quota_refusals_total",
        Kind.COUNTER,
        "Requests refused by a limit of their organization, tenant or end user. why: used, or cut_off (the ledger did not answer).",
        ("unit", "span", "why"),
    ),
    Spec(
        "spillway_safety_checks_total",
        Kind.COUNTER,
        "Safety checks of what was asked (input) and answered (output). verdict: passed, flagged, or failed (no answer in time).",
        ("model", "stage", "verdict"),
    ),
    Spec("spillway_ledger_failures_total", Kind.COUNTER, "Reports that the ledger of limits did not answer."),
    Spec("spillway_usage_ingested_total", Kind.COUNTER, "Usage records that the store took."),
    Spec(
        "spillway_usage_known_total",
        Kind.COUNTER,
        "Usage records that the store had already: replayed, not counted again.",
    ),
    Spec("spillway_usage_corrupt_segments_total", Kind.COUNTER, "Damaged spool segments that were set aside."),
    Spec("spillway_worker_deaths_total", Kind.COUNTER, "Workers that ended without being told to."),
    Spec(
        "spillway_metrics_overflow_total",
        Kind.COUNTER,
        "Counts that went to label `other`, for want of room.",
        ("metric",),
    ),
)
_GAUGES = (
    Spec("spillway_inflight", Kind.GAUGE, "Requests in flight.", ("pool",)),
    Spec("spillway_limit", Kind.GAUGE, "Most requests in flight.", ("pool",)),
    Spec(
        "spillway_load_index",
        Kind.GAUGE,
        "Load over what the pool can hold; mean of the workers.",
        ("pool",),
        across=Across.MEAN,
    ),
    Spec(
        "spillway_endpoints_open",
        Kind.GAUGE,
        "Endpoints that some worker's breaker keeps out of use.",
        ("pool",),
        across=Across.MAX,
    ),
    Spec(
        "spillway_spill_share",
        Kind.GAUGE,
        "Part of a pool's load that goes elsewhere, 0 to 1; mean of the workers.",
        ("pool",),
        across=Across.MEAN,
    ),
    Spec("spillway_foreign", Kind.GAUGE, "Requests of others in a pool, by its engines' word.", ("pool",)),
    Spec(
        "spillway_panic",
        Kind.GAUGE,
        "1 while all tiers of a model together can't carry what is asked, else 0.",
        ("model",),
        across=Across.MAX,
    ),
    Spec("spillway_queue_depth", Kind.GAUGE, "Requests that wait at the gateway.", ("model", "priority")),
    Spec("spillway_usage_unsettled", Kind.GAUGE, "Usage records on their way to the store."),
    Spec("spillway_spool_bytes", Kind.GAUGE, "Bytes of usage that wait for the store."),
    Spec("spillway_spool_full", Kind.GAUGE, "Workers that admit nothing because usage has nowhere to go."),
    Spec("spillway_store_up", Kind.GAUGE, "1 while the store takes usage, else 0."),
    Spec(
        "spillway_keys",
        Kind.GAUGE,
        "Keys that a worker knows: those used lately and those of the configuration; the most of the workers.",
        across=Across.MAX,
    ),
    Spec("spillway_quota_meters", Kind.GAUGE, "Limits that workers hold leases of, or have asked for lately."),
    Spec("spillway_quota_waiting", Kind.GAUGE, "Requests that wait for the ledger's answer."),
    Spec(
        "spillway_ledger_members",
        Kind.GAUGE,
        "Workers of all hosts that share the limits, as last told.",
        across=Across.MAX,
    ),
    Spec("spillway_ledger_cut_off", Kind.GAUGE, "Workers that the ledger did not answer lately: floors hold for them."),
    Spec("spillway_ledger_learning", Kind.GAUGE, "Workers whose ledger has lost its memory and gives out floors only."),
    Spec("spillway_ledger_up", Kind.GAUGE, "1 while the ledger of limits answers, else 0."),
    Spec("spillway_workers", Kind.GAUGE, "Workers that serve."),
)
_HISTOGRAMS = (
    Spec(
        "spillway_ttft_seconds", Kind.HISTOGRAM, "Time to first token of streamed requests.", ("model", "pool"), TTFT_S
    ),
    Spec("spillway_tpot_seconds", Kind.HISTOGRAM, "Time per output token after the first.", ("model", "pool"), TPOT_S),
    Spec(
        "spillway_duration_seconds",
        Kind.HISTOGRAM,
        "From the complete request to the end of the answer.",
        ("model", "pool"),
        DURATION_S,
    ),
    Spec("spillway_safety_seconds", Kind.HISTOGRAM, "Time of a safety check.", ("model",), OVERHEAD_S),
    Spec(
        "spillway_overhead_seconds",
        Kind.HISTOGRAM,
        "Time to the first content that was the gateway's own, waiting included.",
        (),
        OVERHEAD_S,
    ),
)

CATALOG: dict[str, Spec] = {spec.name: spec for spec in (*_COUNTERS, *_GAUGES, *_HISTOGRAMS)}
