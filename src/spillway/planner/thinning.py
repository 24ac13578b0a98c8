"""A long trace made shorter in number, not in time: fewer arrivals, at rates of the same shape, that come as unevenly.

Leaving out each arrival with some chance would not do: what is left of any process that is thinned so tends to a Poisson process,
its CV to 1. Taking every k-th arrival would even gaps out, its CV to 0. So whole runs of arrivals are kept, with the gaps between them,
and slowed down:

The arrivals are cut, in order, into groups of `run` / share. Of each group a run of `run` arrivals is kept: of some that begin at
random places, the one whose gaps have the CV that is closest to the group's. Its gaps are raised to the one power that makes their CV the
group's own, and stretched until they fill the group's time. With mean and CV of every group, rate and CV of the whole are kept,
at every scale that is longer than a group. What is lost: a burst that was shorter than a group lasts 1 / share as long by the
clock, and a rare client may lose all its arrivals in one group and keep all in another. A run of n gaps has a CV of at most √(n − 1): where a
group's is larger, the run has as much of it as it can. Rate and CV can't both be kept where silences are as long as the bins in which the
rate is looked at: the silence lasts as long as before, and the mean gap is longer.
"""

import numpy as np

from spillway.core.errors import ConfigError
from spillway.planner.columns import Columns, Floats, Ints

MOST_ARRIVALS = 1_000_000
LEAST_RUN = 50
LEAST_GROUPS = 400
CANDIDATES = 16
POWERS = (0.125, 16.0)
BISECTIONS = 30


def thinned(
    columns: Columns, rng: np.random.Generator, *, most: int = MOST_ARRIVALS, run: int | None = None
) -> Columns:
    """At most `most` arrivals; what has no more comes back as it is. Longer runs keep more of what follows upon what and of very uneven
    gaps, and less of the rate's shape; without `run` they are as long as the trace's CV asks for. Raises ConfigError where nothing would
    be left."""
    if most < 1 or (run is not None and run < 2):
        raise ConfigError("at least one arrival must be left, and a run has at least two")
    count = len(columns)
    if count <= most:
        return columns
    groups = max(1, most // (run or _run(columns.at_s, most)))
    begins = np.linspace(0, count, groups + 1).astype(np.int64)
    kept = np.diff(np.linspace(0, most, groups + 1).astype(np.int64))
    mean_s = (columns.at_s[-1] - columns.at_s[0]) / (count - 1)
    gaps_s = np.diff(columns.at_s, append=columns.at_s[-1] + mean_s)  # each goes with the arrival before it

    wanted = _squared_cvs(gaps_s, begins[:-1], np.diff(begins))
    start = _starts(gaps_s, begins, kept, wanted, rng)
    first = np.cumsum(kept) - kept
    group = np.repeat(np.arange(groups), kept)
    rows = start[group] + np.arange(most) - first[group]

    bent = _bent(gaps_s[rows], group, first, kept, wanted)
    group_s = np.add.reduceat(gaps_s, begins[:-1])
    sums = np.add.reduceat(bent, first)
    bent *= np.divide(group_s, sums, out=np.zeros(groups), where=sums > 0)[group]
    begun_s = columns.at_s[begins[:-1]]
    passed_s = np.cumsum(bent) - bent
    at_s = begun_s[group] + passed_s - passed_s[first][group]
    return columns.at(rows, np.maximum.accumulate(at_s))


def gap_cv(at_s: Floats) -> float:
    """Coefficient of variation of the gaps between arrivals; NaN for fewer than three or when all come at once."""
    gaps = np.diff(at_s)
    if len(gaps) < 2 or not gaps.any():
        return float("nan")
    return float(gaps.std() / gaps.mean())


def _run(at_s: Floats, most: int) -> int:
    """2 · CV² arrivals, of the median group: so many have room for its gaps."""
    groups = max(1, most // LEAST_RUN)
    begins = np.linspace(0, len(at_s) - 1, groups + 1).astype(np.int64)
    median = float(np.median(_squared_cvs(np.diff(at_s), begins[:-1], np.diff(begins))))
    return max(LEAST_RUN, min(round(2 * median), most // LEAST_GROUPS))


def _starts(gaps_s: Floats, begins: Ints, kept: Ints, wanted: Floats, rng: np.random.Generator) -> Ints:
    """Of each group, the row at which its run begins."""
    room = np.diff(begins) - kept + 1
    tried = begins[:-1, None] + np.floor(rng.random((len(kept), CANDIDATES)) * room[:, None]).astype(np.int64)
    have = _squared_cvs(gaps_s, tried, kept[:, None])
    off = np.abs(np.log1p(have) - np.log1p(wanted)[:, None])
    return tried[np.arange(len(kept)), np.argmin(off, axis=1)]


def _squared_cvs(gaps_s: Floats, start: Ints, count: Ints) -> Floats:
    """CV² of the `count` gaps from each `start` on; 0 where all are 0."""
    sums = np.concatenate(([0.0], np.cumsum(gaps_s)))
    squares = np.concatenate(([0.0], np.cumsum(gaps_s * gaps_s)))
    of_sum, of_squares = sums[start + count] - sums[start], squares[start + count] - squares[start]
    ratio = np.divide(count * of_squares, of_sum * of_sum, out=np.ones(of_sum.shape), where=of_sum > 0)
    return np.maximum(0.0, ratio - 1.0)


def _bent(gaps_s: Floats, group: Ints, first: Ints, kept: Ints, wanted: Floats) -> Floats:
    """Gaps, relative to their group's largest, to the power that gives each group the CV² that is wanted: it grows with the power."""
    largest = np.maximum.reduceat(gaps_s, first)
    relative = gaps_s / np.where(largest > 0, largest, 1.0)[group]
    logs = np.log(np.where(relative > 0, relative, 1.0))
    low, high = np.full(len(first), POWERS[0]), np.full(len(first), POWERS[1])
    bent = relative
    for _ in range(BISECTIONS):
        power = np.sqrt(low * high)
        bent = np.where(relative > 0, np.exp(power[group] * logs), 0.0)
        sums, squares = np.add.reduceat(bent, first), np.add.reduceat(bent * bent, first)
        have = kept * squares / np.where(sums > 0, sums * sums, 1.0) - 1.0
        low, high = np.where(have < wanted, power, low), np.where(have < wanted, high, power)
    return bent
