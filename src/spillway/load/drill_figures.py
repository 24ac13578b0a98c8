"""What users felt in each phase of a drill, and when it was over. Pure numpy.

Formulas
- A phase has the requests that were due in it, however late they ended: the arrivals of all phases are the same, so their
  figures may be compared.
- Goodput: requests of the phase that ended well and met all SLOs, over its planned seconds.
- Back: windows slide over the phase, wide enough that 5 % are two requests of the baseline. Goodput is back at the beginning of the
  first window from which on every window has at least 95 % of what the same window of the baseline has. The resolution is an
  eighth of a window.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.load.record import RequestRecord
from spillway.load.slo import Slo
from spillway.load.stats import Percentiles, summarize

BACK = 0.95
REQUESTS_IN_WINDOW = 40  # 5 % of them are two
LEAST_WINDOW_S: Seconds = 1.0
STEPS_IN_WINDOW = 8


class PhaseFigures(msgspec.Struct, frozen=True):
    """`requests` = `ok` + the sum of `errors`; `refused` are those errors that were a 429. `spilled_share`: of the requests that a
    pool answered, 0–1. `back_s`: from the strike, or in other phases from their beginning, until goodput was within 5 % of the
    baseline's for good; None: not within the phase, or too few requests to say."""

    requests: int
    ok: int
    errors: dict[str, int]
    refused: int
    goodput_rps: float
    goodput_of_baseline: float | None
    slo_share: float
    spilled_share: float
    pools: dict[str, int]
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles
    back_s: Seconds | None


def phase_figures(
    records: Sequence[RequestRecord],
    baseline: Sequence[RequestRecord],
    slo: Slo,
    duration_s: Seconds,
    *,
    since_s: Seconds = 0.0,
) -> PhaseFigures:
    """`records` of the phase; of the baseline itself: both the same. `duration_s`: the planned seconds of a phase. `since_s`: when in
    it there was what goodput is to be back from."""
    result = summarize(records, slo, profile="")
    now, before = good_s(records, slo), good_s(baseline, slo)
    back = back_s(now, before, duration_s)
    return PhaseFigures(
        requests=result.requests,
        ok=result.ok,
        errors=result.errors,
        refused=result.refused,
        goodput_rps=round(len(now) / duration_s, 3),
        goodput_of_baseline=round(len(now) / len(before), 4) if before else None,
        slo_share=result.slo_share,
        spilled_share=result.spilled_share,
        pools=result.pools,
        ttft_ms=result.ttft_ms,
        tpot_ms=result.tpot_ms,
        e2e_ms=result.e2e_ms,
        back_s=None if back is None else round(max(0.0, back - since_s), 3),
    )


def good_s(records: Sequence[RequestRecord], slo: Slo) -> list[Seconds]:
    """When those were due that ended well and met all SLOs."""
    return [record.intended_s for record in records if not record.warmup and slo.met_by(record)]


def window_s(baseline: Sequence[Seconds], duration_s: Seconds) -> Seconds | None:
    """How wide a window must be; None where not even half of the phase is enough."""
    if not baseline:
        return None
    width_s = max(LEAST_WINDOW_S, duration_s * REQUESTS_IN_WINDOW / len(baseline))
    return width_s if width_s <= duration_s / 2 else None


def back_s(good: Sequence[Seconds], baseline: Sequence[Seconds], duration_s: Seconds) -> Seconds | None:
    """Both: when good requests were due, in seconds from the beginning of their phase."""
    width_s = window_s(baseline, duration_s)
    if width_s is None:
        return None
    step_s = width_s / STEPS_IN_WINDOW
    begins = np.arange(0.0, duration_s - width_s + step_s / 2, step_s)
    wanted = BACK * _inside(baseline, begins, width_s)
    short = np.flatnonzero(_inside(good, begins, width_s) < wanted)
    if not len(short):
        return 0.0
    return None if short[-1] == len(begins) - 1 else round(float(begins[short[-1] + 1]), 3)


def _inside(times: Sequence[Seconds], begins: np.ndarray, width_s: Seconds) -> np.ndarray:
    ordered = np.sort(np.asarray(times, dtype=float))
    return np.searchsorted(ordered, begins + width_s) - np.searchsorted(ordered, begins)
