"""From the records of a run to its figures. Pure numpy.

Formulas
- TTFT: first content − intended send time. e2e: last byte − intended send time.
- TPOT: (e2e − TTFT) / (n_out − 1), for streams of at least two output tokens.
- Percentiles: linear interpolation between order statistics (numpy's default, Hyndman and Fan's type 7), over the requests
  that ended well.
- Goodput: requests that ended well and met all SLOs, per second of the window.
- Window: from the end of the warm-up to the last byte of the last request, and at least to the end of the planned time.
- Spilled share: of the requests that a pool answered, how many carried `x-spillway-spill`.
- Schedule slip: sent − intended, of the requests that were sent. More than a few milliseconds means that the cap or the
  generator held requests back; the latencies contain it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.load.record import INTERRUPTED, Measure, RequestRecord
from spillway.load.slo import Slo

REFUSED_STATUS = 429
MAX_NAMES = 64
OTHER = "other"


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None
    mean: float | None
    max: float | None


class BenchResult(msgspec.Struct, frozen=True):
    """`requests` = `ok` + the sum of `errors`. `refused` are those errors that were a 429, `failed` all the others.
    `interrupted` requests were cancelled by Ctrl-C and belong to none of these."""

    profile: str
    rate: float | None
    requests: int
    ok: int
    errors: dict[str, int]
    refused: int
    refused_share: float
    failed: int
    interrupted: int
    duration_s: Seconds
    throughput_rps: float
    output_tokens_per_s: float
    input_tokens_per_s: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    slip_ms: Percentiles
    goodput_rps: float
    slo: Slo
    slo_share: float
    pools: dict[str, int]
    spilled_share: float
    clipped_share: float
    counted_share: float
    statuses: dict[str, int]
    clients: dict[str, int]
    attempts_mean: float | None


def summarize(
    records: Iterable[RequestRecord],
    slo: Slo,
    *,
    profile: str,
    rate: float | None = None,
    warmup_s: Seconds = 0.0,
    planned_s: Seconds | None = None,
) -> BenchResult:
    """`planned_s`: the planned time of the run from its start, None where it was bounded otherwise or was interrupted.
    Requests of the warm-up are left out."""
    measured = [record for record in records if not record.warmup]
    counting = [record for record in measured if record.error != INTERRUPTED]
    ended_well = [record for record in counting if record.error is None]
    good = sum(slo.met_by(record) for record in ended_well)
    refused = sum(record.status == REFUSED_STATUS for record in counting)
    pooled = [record for record in counting if record.pool]
    attempts = [record.attempts for record in counting if record.attempts is not None]
    window_s = _window_s(counting, warmup_s, planned_s)
    return BenchResult(
        profile=profile,
        rate=rate,
        requests=len(counting),
        ok=len(ended_well),
        errors=_counts(record.error for record in counting if record.error),
        refused=refused,
        refused_share=_share(refused, len(counting)),
        failed=len(counting) - len(ended_well) - refused,
        interrupted=len(measured) - len(counting),
        duration_s=round(window_s, 3),
        throughput_rps=_per_second(len(ended_well), window_s),
        output_tokens_per_s=_per_second(sum(record.output_tokens for record in counting), window_s),
        input_tokens_per_s=_per_second(sum(record.prompt_tokens or 0 for record in counting), window_s),
        ttft_ms=percentiles_ms(ended_well, lambda record: record.ttft_s),
        tpot_ms=percentiles_ms(ended_well, lambda record: record.tpot_s),
        e2e_ms=percentiles_ms(ended_well, lambda record: record.e2e_s),
        slip_ms=percentiles_ms(counting, slip_s),
        goodput_rps=_per_second(good, window_s),
        slo=slo,
        slo_share=_share(good, len(counting)),
        pools=_counts(record.pool for record in pooled if record.pool),
        spilled_share=_share(sum(record.spill is not None for record in pooled), len(pooled)),
        clipped_share=_share(sum(record.clipped for record in counting), len(counting)),
        counted_share=_share(sum(record.counted for record in ended_well), len(ended_well)),
        statuses=_counts(str(record.status) for record in counting),
        clients=_counts(record.client for record in counting),
        attempts_mean=round(float(np.mean(attempts)), 3) if attempts else None,
    )


def run_name(result: BenchResult) -> str:
    """For people: the profile and its rate."""
    return result.profile if result.rate is None else f"{result.profile} {result.rate:g}"


def slip_s(record: RequestRecord) -> Seconds | None:
    """How much later than intended it was sent; None where it never was."""
    return None if record.sent_s is None else record.sent_s - record.intended_s


def percentiles_ms(records: Iterable[RequestRecord], measure: Measure) -> Percentiles:
    """Of what `measure` gives in seconds; records where it gives None are left out."""
    measured = [seconds for record in records if (seconds := measure(record)) is not None]
    if not measured:
        return Percentiles(None, None, None, None, None)
    p50, p95, p99 = quantiles_ms(measured, (0.5, 0.95, 0.99))
    return Percentiles(p50, p95, p99, round(float(np.mean(measured)) * 1000, 3), round(max(measured) * 1000, 3))


def quantiles_ms(seconds: Sequence[Seconds], shares: Sequence[float]) -> list[float]:
    """Milliseconds, rounded to a microsecond. `seconds` may not be empty; shares in [0, 1]."""
    return [round(float(at) * 1000, 3) for at in np.quantile(np.asarray(seconds, dtype=float), shares)]


def _window_s(records: Sequence[RequestRecord], warmup_s: Seconds, planned_s: Seconds | None) -> Seconds:
    ends = [record.last_s for record in records if record.last_s is not None]
    end_s = max([*ends, planned_s or 0.0])
    return max(end_s - warmup_s, 0.0)


def _per_second(count: int, window_s: Seconds) -> float:
    return round(count / window_s, 3) if window_s > 0 else 0.0


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _counts(names: Iterable[str]) -> dict[str, int]:
    """Most frequent first; from the 65th name on, all are counted as `other`."""
    ranked = Counter(names).most_common()
    rest = sum(count for _, count in ranked[MAX_NAMES:])
    return dict(ranked[:MAX_NAMES]) | ({OTHER: rest} if rest else {})
