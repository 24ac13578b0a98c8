"""A long trace made shorter in number, not in time: fewer arrivals, at rates of the same shape, that come as unevenly.

Leaving out each arrival with some chance would not do: what is left of any process that is thinned so tends to a Poisson process,
its CV to 1. Taking every k-th arrival would even gaps out, its CV to 0. So whole runs of arrivals are kept, with the gaps between them,
and slowed down:

Each bin of time keeps its share of the arrivals. They are cut, in order, into groups of about `run` / share, and of each group a run of
`run` arrivals is kept: of some that begin at random places, the one whose gaps have the CV that is closest to the group's. Its gaps are
raised to the one power that makes their CV the group's own, and stretched until they fill the group's time. With mean and CV of every
group, the rate of every bin and the CV of the whole are kept. What is lost: a burst that was shorter than a group lasts 1 / share as
long by the clock, and a rare client may lose all its arrivals in one group and keep all in another. A run of n gaps has a CV of at
most √(n − 1): where a group's is larger, the run has as much of it as it can.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import floor

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.planner.arrivals import plain
from spillway.planner.columns import Columns, Floats, Ints
from spillway.wire.traces import TraceRecord

MOST_ARRIVALS = 1_000_000
LEAST_RUN = 25
CANDIDATES = 16
POWERS = (0.125, 16.0)
BISECTIONS = 30
_TINY = 1e-300


def thinned(
    columns: Columns,
    rng: np.random.Generator,
    *,
    most: int = MOST_ARRIVALS,
    bin_s: Seconds = 600.0,
    run: int | None = None,
) -> Columns:
    """At most `most` arrivals; what has no more comes back as it is. Bins of `bin_s` keep their rates; where LEAST_RUN / 2 or fewer would be
    left of a bin, it is taken together with the next. Longer runs keep more of what follows upon what and of very uneven gaps, and less of
    the rate's shape within a bin; without `run` they are as long as the trace's CV asks for. Raises ConfigError where nothing would be left."""
    if most < 1 or not bin_s > 0 or (run is not None and run < 2):
        raise ConfigError("at least one arrival must be left, bins take time, and a run has at least two")
    count = len(columns)
    if count <= most:
        return columns
    mean_s = (columns.at_s[-1] - columns.at_s[0]) / (count - 1)
    gaps_s = np.diff(columns.at_s, append=columns.at_s[-1] + mean_s)  # each goes with the arrival before it
    edges = _edges(columns.at_s, most / count, bin_s)
    ends_s = columns.at_s[0] + np.floor((columns.at_s[edges] - columns.at_s[0]) / bin_s) * bin_s
    gaps_s[edges[1:] - 1] = ends_s[1:] - columns.at_s[edges[1:] - 1]  # what is left of it stays where it was
    begins, kept = _groups(edges, count, most / count, run or _run(gaps_s))

    wanted = _squared_cvs(gaps_s, begins, np.diff(begins, append=count))
    start = _starts(gaps_s, begins, kept, wanted, rng)
    first = np.cumsum(kept) - kept
    group = np.repeat(np.arange(len(kept)), kept)
    rows = start[group] + np.arange(len(group)) - first[group]

    bent = _bent(gaps_s[rows], group, first, kept, wanted)
    group_s = np.add.reduceat(gaps_s, begins)
    sums = np.add.reduceat(bent, first)
    bent *= np.divide(group_s, sums, out=np.zeros(len(kept)), where=sums > _TINY)[group]
    passed_s = np.cumsum(bent) - bent
    at_s = columns.at_s[begins][group] + passed_s - passed_s[first][group]
    return columns.at(rows, np.maximum.accumulate(at_s))


def thinned_records(
    records: Sequence[TraceRecord], rng: np.random.Generator, *, most: int = MOST_ARRIVALS
) -> Sequence[TraceRecord]:
    """The same of the records of a trace."""
    if len(records) <= most:
        return records
    numbers = np.arange(len(records))
    left = thinned(plain(np.array([record.offset_s for record in records]), numbers, numbers, ""), rng, most=most)
    places = zip(left.at_s.tolist(), left.input_tokens.tolist(), strict=True)
    return [msgspec.structs.replace(records[number], offset_s=at_s) for at_s, number in places]


def gap_cv(at_s: Floats) -> float:
    """Coefficient of variation of the gaps between arrivals; NaN for fewer than three or when all come at once."""
    gaps = np.diff(at_s)
    if len(gaps) < 2 or not gaps.any():
        return float("nan")
    return float(gaps.std() / gaps.mean())


def _run(gaps_s: Floats) -> int:
    """4 · CV² arrivals, of the median of many groups: so many have room for its gaps."""
    begins = np.arange(0, len(gaps_s), 20 * LEAST_RUN)
    median = float(np.median(_squared_cvs(gaps_s, begins, np.diff(begins, append=len(gaps_s)))))
    return max(LEAST_RUN, round(4 * median))


def _edges(at_s: Floats, share: float, bin_s: Seconds) -> Ints:
    """Rows of the first arrivals of bins."""
    bins = np.floor((at_s - at_s[0]) / bin_s)
    edges = [0]
    for edge in (np.flatnonzero(np.diff(bins)) + 1).tolist():
        if (edge - edges[-1]) * share > LEAST_RUN / 2:
            edges.append(edge)
    return np.array(edges, np.int64)


def _groups(edges: Ints, count: int, share: float, run: int) -> tuple[Ints, Ints]:
    """Rows at which groups begin, and how many arrivals each keeps (1 or more)."""
    begins: list[Ints] = []
    kept: list[Ints] = []
    for begin, end in pairwise([*edges.tolist(), count]):
        left = floor(end * share + 1e-9) - floor(begin * share + 1e-9)
        if left < 1:
            continue  # the last arrivals: their time is the group's before
        groups = max(1, left // run)
        so_far = np.arange(groups + 1) * left // groups
        begins.append(begin + so_far[:-1] * (end - begin) // left)
        kept.append(np.diff(so_far))
    return np.concatenate(begins), np.concatenate(kept)


def _starts(gaps_s: Floats, begins: Ints, kept: Ints, wanted: Floats, rng: np.random.Generator) -> Ints:
    """Of each group, the row at which its run begins."""
    room = np.diff(begins, append=len(gaps_s)) - kept + 1
    tried = begins[:, None] + np.floor(rng.random((len(kept), CANDIDATES)) * room[:, None]).astype(np.int64)
    have = _squared_cvs(gaps_s, tried, kept[:, None])
    off = np.abs(np.log1p(have) - np.log1p(wanted)[:, None])
    return tried[np.arange(len(kept)), np.argmin(off, axis=1)]


def _squared_cvs(gaps_s: Floats, start: Ints, count: Ints) -> Floats:
    """CV² of the `count` gaps from each `start` on; 0 where all are 0."""
    sums = np.concatenate(([0.0], np.cumsum(gaps_s)))
    squares = np.concatenate(([0.0], np.cumsum(gaps_s * gaps_s)))
    of_sum, of_squares = sums[start + count] - sums[start], squares[start + count] - squares[start]
    ratio = np.divide(count * of_squares, of_sum * of_sum, out=np.ones(of_sum.shape), where=of_sum * of_sum > _TINY)
    return np.maximum(0.0, ratio - 1.0)


def _bent(gaps_s: Floats, group: Ints, first: Ints, kept: Ints, wanted: Floats) -> Floats:
    """Gaps, relative to their group's largest, to the power that gives each group the CV² that is wanted: it grows with the power."""
    largest = np.maximum.reduceat(gaps_s, first)
    relative = gaps_s / np.where(largest > _TINY, largest, 1.0)[group]
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
