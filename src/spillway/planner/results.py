"""What came of a simulation, in figures. The names are those of `spillway bench` where both have them.

Formulas
- A request is *good* when it was answered and met all objectives of its model. `goodput_rps`: good requests per second of the span from the
  first arrival to the last. `attainment[priority]`: good requests over all that arrived, shed ones included.
- TTFT: from the arrival at the gateway to the first token there, waiting and round trip included. TPOT: (e2e − TTFT) / (n_out − 1).
- `spilled_share`: of the answered, those served by a tier after their first. `shed_share`: of all, those refused or evicted.
- `jain` over tenants: (Σ s)² / (k · Σ s²) with s = work served (input + 4 · output tokens) over the tenant's max-min fair part of all that
  was served. 1: everybody got what is fair; 1/k: one had everything.
- `reversals_per_min`: how often the spilled share of a region's dispatches, in means of SWING_S seconds, turned round after having moved by
  more than SWING; the mean over the regions.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from spillway.core.clock import Seconds
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.planner.books import OUTCOMES, UNFINISHED, Books

SWING_S = 5.0
SWING = 0.05
SHED = tuple(OUTCOMES.index(outcome) for outcome in (Outcome.REFUSED, Outcome.EVICTED))
Floats = NDArray[np.float64]


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds, linear between order statistics; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class PoolLoad(msgspec.Struct, frozen=True):
    """Of the samples: requests in the pool's engines over its limit."""

    mean_load: float
    sd_load: float
    max_load: float


class Served(msgspec.Struct, frozen=True):
    """One priority's requests, or all."""

    requests: int
    answered: int
    attainment: float
    ttft_ms: Percentiles
    tpot_ms: Percentiles
    e2e_ms: Percentiles


class PolicyResult(msgspec.Struct, frozen=True):
    goodput_rps: float
    throughput_rps: float
    attainment: dict[str, float]
    spilled_share: float
    shed_share: float
    hosted_share: float
    hosted_usd: float
    reversals_per_min: float
    jain: float
    warm_share: float  # of the answered input tokens: found in a prefix cache
    outcomes: dict[str, int]
    priorities: dict[str, Served]
    all: Served
    pools: dict[str, PoolLoad]


class Columns:
    """The books as arrays, with what is derived from them for each request."""

    def __init__(self, books: Books, from_s: Seconds = 0.0) -> None:
        """Only requests that arrived at `from_s` or later."""
        at_s = np.array(books.at_s)
        kept = at_s >= from_s
        self.at_s = at_s[kept]
        self.rank = np.array(books.rank)[kept]
        self.outcome = np.array(books.outcome)[kept]
        self.answered = self.outcome == OUTCOMES.index(Outcome.OK)
        self.spilled = np.array(books.spilled)[kept] > 0
        self.pool = np.array(books.pool)[kept]
        self.region = np.array(books.region)[kept]
        self.tenant = np.array(books.tenant)[kept]
        self.usd = np.array(books.usd)[kept]
        self.warm_tokens = np.array(books.warm_tokens)[kept]
        self.input_tokens = np.array(books.input_tokens)[kept]
        output_tokens = np.array(books.output_tokens)[kept]
        self.work = self.input_tokens + 4.0 * output_tokens
        self.ttft_s: Floats = np.array(books.ttft_s)[kept]
        self.e2e_s: Floats = np.array(books.e2e_s)[kept]
        gaps = np.where(output_tokens > 1, output_tokens - 1, np.nan)
        self.tpot_s: Floats = (self.e2e_s - self.ttft_s) / gaps
        self.good = self.answered & self._meets(books, np.array(books.model)[kept])

    def _meets(self, books: Books, model: NDArray[np.int32]) -> NDArray[np.bool_]:
        slos = [books.models[name].slo for name in books.model_names]
        ttft_s = np.array([np.inf if slo.ttft_ms is None else slo.ttft_ms / 1000 for slo in slos] + [np.inf])
        tpot_s = np.array([np.inf if slo.tpot_ms is None else slo.tpot_ms / 1000 for slo in slos] + [np.inf])
        return ~(self.ttft_s > ttft_s[model]) & ~(self.tpot_s > tpot_s[model])


def result_of(books: Books, from_s: Seconds = 0.0) -> PolicyResult:
    """Of the requests that arrived at `from_s` or later (before it the world warms up). Raises ValueError where there are none."""
    of = Columns(books, from_s)
    if not len(of.at_s):
        raise ValueError("no request arrived")
    span_s = max(float(of.at_s.max() - of.at_s.min()), books.sample_s)
    hosted = np.array([*books.hosted, False])[of.pool] & of.answered
    answered = int(of.answered.sum())
    return PolicyResult(
        goodput_rps=float(of.good.sum()) / span_s,
        throughput_rps=answered / span_s,
        attainment={p.value: _share(of.good[of.rank == p.rank]) for p in Priority if (of.rank == p.rank).any()},
        spilled_share=_share(of.spilled[of.answered]),
        shed_share=_share(np.isin(of.outcome, SHED)),
        hosted_share=_share(hosted[of.answered]),
        hosted_usd=float(of.usd[hosted].sum()),
        reversals_per_min=reversals_per_min(books, from_s),
        jain=jain(of),
        warm_share=float(of.warm_tokens[of.answered].sum()) / max(1.0, float(of.input_tokens[of.answered].sum())),
        outcomes=_outcomes(of.outcome),
        priorities={p.value: served(of, of.rank == p.rank) for p in Priority if (of.rank == p.rank).any()},
        all=served(of, np.ones(len(of.at_s), dtype=bool)),
        pools=_pools(books, from_s),
    )


def served(of: Columns, which: NDArray[np.bool_]) -> Served:
    answered = which & of.answered
    return Served(
        requests=int(which.sum()),
        answered=int(answered.sum()),
        attainment=_share(of.good[which]),
        ttft_ms=percentiles(of.ttft_s[answered]),
        tpot_ms=percentiles(of.tpot_s[answered & (of.tpot_s == of.tpot_s)]),
        e2e_ms=percentiles(of.e2e_s[answered]),
    )


def percentiles(seconds: Floats) -> Percentiles:
    if not len(seconds):
        return Percentiles(None, None, None)
    p50, p95, p99 = (1000.0 * float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return Percentiles(p50, p95, p99)


def jain(of: Columns) -> float:
    """See the formulas above; 1 where nobody was served."""
    count = int(of.tenant.max()) + 1
    asked: Floats = np.bincount(of.tenant, weights=of.work, minlength=count).astype(np.float64)
    got: Floats = np.bincount(of.tenant, weights=of.work * of.answered, minlength=count).astype(np.float64)
    asked, got = asked[asked > 0], got[asked > 0]
    if not got.sum():
        return 1.0
    satisfied = got / max_min(asked, float(got.sum()))
    return float(satisfied.sum() ** 2 / (len(satisfied) * (satisfied**2).sum()))


def max_min(asked: Floats, total: float) -> Floats:
    """The max-min fair division of `total` ≤ Σ asked: nobody gets more than asked, and nobody could have more but at the cost of
    somebody who has no more. Water filling in O(k log k)."""
    order = np.argsort(asked)
    sorted_asked = asked[order]
    count = len(asked)
    before = np.concatenate(([0.0], np.cumsum(sorted_asked)[:-1]))
    level = (total - before) / (count - np.arange(count))  # if everybody from here on were cut to the same
    cut = np.nonzero(sorted_asked >= level)[0]
    height = float(level[cut[0]]) if len(cut) else float(sorted_asked[-1])
    return np.minimum(asked, max(height, 1e-12))


def reversals_per_min(books: Books, from_s: Seconds = 0.0) -> float:
    first = int(np.searchsorted(books.sampled_at, from_s))
    minutes = (len(books.sampled_at) - first) * books.sample_s / 60.0
    if minutes <= 0:
        return 0.0
    width = max(1, round(SWING_S / books.sample_s))
    turns = [
        swings(_means(books.moved[number][first:], books.dispatched[number][first:], width))
        for number in range(len(books.regions))
    ]
    return sum(turns) / len(turns) / minutes


def swings(values: Sequence[float]) -> int:
    """How often a series turns round after having moved by more than SWING."""
    turns, direction = 0, 0
    low = high = values[0] if len(values) else 0.0
    for value in values:
        low, high = min(low, value), max(high, value)
        if direction <= 0 and value > low + SWING:
            turns += direction < 0
            direction, high = 1, value
            low = value
        elif direction >= 0 and value < high - SWING:
            turns += direction > 0
            direction, low = -1, value
            high = value
    return turns


def _means(parts: Sequence[int], wholes: Sequence[int], width: int) -> list[float]:
    """Shares over windows of so many samples; a window without anything is left out."""
    windows = [(sum(parts[at : at + width]), sum(wholes[at : at + width])) for at in range(0, len(wholes), width)]
    return [part / whole for part, whole in windows if whole]


def _pools(books: Books, from_s: Seconds) -> dict[str, PoolLoad]:
    first = int(np.searchsorted(books.sampled_at, from_s))
    series = {name: np.array(loads[first:] or [0.0]) for name, loads in zip(books.pools, books.loads, strict=True)}
    return {name: PoolLoad(float(x.mean()), float(x.std()), float(x.max())) for name, x in series.items()}


def _outcomes(numbers: NDArray[np.int8]) -> dict[str, int]:
    names = [*(outcome.value for outcome in OUTCOMES), "unfinished"]
    assert len(names) == UNFINISHED + 1
    counts = np.bincount(numbers, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def _share(which: NDArray[np.bool_]) -> float:
    return float(which.mean()) if len(which) else 0.0
