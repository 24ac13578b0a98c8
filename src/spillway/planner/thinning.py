"""A long trace made shorter in number, not in time: fewer arrivals at rates of the same shape that come as unevenly.

Leaving out each arrival with some chance would not do: what is left of any process that is thinned so tends to a Poisson process,
its CV to 1. Taking every k-th arrival would even gaps out, its CV to 0. So whole runs of arrivals are kept, with the gaps between them,
and slowed down:

The arrivals are cut, in order, into groups of `run` / share; of each group a run of `run` arrivals is kept that begins at a random
place in it, and its gaps are stretched until it fills the group's time. The rate is then that of the trace times the share at every
scale that is longer than a group, and gaps are those of the trace divided by the share. What is lost: a burst that was shorter
than a group lasts 1 / share as long, in the time of the clock, and a rare client may lose all its arrivals in one group and keep all
in another.
"""

import numpy as np

from spillway.core.errors import ConfigError
from spillway.planner.columns import Columns, Floats

MOST_ARRIVALS = 1_000_000
MOST_GROUPS = 2000


def thinned(
    columns: Columns, rng: np.random.Generator, *, most: int = MOST_ARRIVALS, run: int | None = None
) -> Columns:
    """At most `most` arrivals; what has no more comes back as it is. `run`: 50 or more, such that there are at most MOST_GROUPS groups.

    Raises ConfigError where nothing would be left.
    """
    if most < 1:
        raise ConfigError("at least one arrival must be left")
    count = len(columns)
    if count <= most:
        return columns
    groups = max(1, most // (run or max(50, most // MOST_GROUPS)))
    begins = np.linspace(0, count, groups + 1).astype(np.int64)
    kept = np.diff(np.linspace(0, most, groups + 1).astype(np.int64))
    size = np.diff(begins)
    start = begins[:-1] + np.floor(rng.random(groups) * (size - kept + 1)).astype(np.int64)

    until_s = np.append(columns.at_s, columns.at_s[-1] + (columns.at_s[-1] - columns.at_s[0]) / (count - 1))
    lasts_s = until_s[start + kept] - until_s[start]
    group_s = until_s[begins[1:]] - until_s[begins[:-1]]
    stretch = np.divide(group_s, lasts_s, out=np.zeros(groups), where=lasts_s > 0)

    group = np.repeat(np.arange(groups), kept)
    within = np.arange(most) - np.repeat(np.cumsum(kept) - kept, kept)
    rows = start[group] + within
    at_s = until_s[begins[group]] + (until_s[rows] - until_s[start[group]]) * stretch[group]
    return columns.at(rows, np.maximum.accumulate(at_s))


def gap_cv(at_s: Floats) -> float:
    """Coefficient of variation of the gaps between arrivals; NaN for fewer than three or when all come at once."""
    gaps = np.diff(at_s)
    if len(gaps) < 2 or not gaps.any():
        return float("nan")
    return float(gaps.std() / gaps.mean())
