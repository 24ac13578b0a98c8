"""A simulation over time: what the books sampled, in at most so many bins that a page or a file can hold them."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from spillway.core.clock import Seconds
from spillway.core.priority import Priority
from spillway.planner.books import Books
from spillway.planner.results import SHED, Columns

MAX_BINS = 600


class TimeSeries(msgspec.Struct, frozen=True):
    """One value for each bin of `bin_s`. `load`: requests in the pool's engines over its limit, mean. `spilled_share`: of the
    region's dispatches. `waiting`: requests of the region that wait at gateways, mean. By time of arrival: `attainment` by priority, None
    where nobody arrived; `shed_share`; `served_rps` by pool: answered requests per second. A bin's time `at_s` is its beginning."""

    bin_s: Seconds
    at_s: list[Seconds]
    load: dict[str, list[float]]
    spilled_share: dict[str, list[float]]
    waiting: dict[str, list[float]]
    served_rps: dict[str, list[float]]
    attainment: dict[str, list[float | None]]
    shed_share: list[float]


def series_of(books: Books, max_bins: int = MAX_BINS) -> TimeSeries:
    samples = len(books.sampled_at)
    width = max(1, -(-samples // max_bins))
    bins = -(-samples // width)
    bin_s = width * books.sample_s
    of = Columns(books)
    bin_of = np.minimum((of.at_s / bin_s).astype(np.int64), max(0, bins - 1))
    arrived = _count(bin_of, bins)
    shed = _count(bin_of[np.isin(of.outcome, SHED)], bins)
    moved = [_sums(parts, width) for parts in books.moved]
    sent = [_sums(wholes, width) for wholes in books.dispatched]
    return TimeSeries(
        bin_s=bin_s,
        at_s=[number * bin_s for number in range(bins)],
        load={name: _means(loads, width) for name, loads in zip(books.pools, books.loads, strict=True)},
        spilled_share={
            name: [part / whole if whole else 0.0 for part, whole in zip(moved[number], sent[number], strict=True)]
            for number, name in enumerate(books.regions)
        },
        waiting={name: _means(books.waiting[number], width) for number, name in enumerate(books.regions)},
        served_rps={
            name: (_count(bin_of[of.answered & (of.pool == number)], bins) / bin_s).tolist()
            for number, name in enumerate(books.pools)
        },
        attainment={
            p.value: _shares(
                _count(bin_of[of.good & (of.rank == p.rank)], bins), _count(bin_of[of.rank == p.rank], bins)
            )
            for p in Priority
            if (of.rank == p.rank).any()
        },
        shed_share=[share or 0.0 for share in _shares(shed, arrived)],
    )


def _count(bin_of: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    return np.bincount(bin_of, minlength=bins)[:bins].astype(np.float64)


def _shares(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> list[float | None]:
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]


def _sums(values: Sequence[float], width: int) -> list[float]:
    return [float(sum(values[at : at + width])) for at in range(0, len(values), width)]


def _means(values: Sequence[float], width: int) -> list[float]:
    groups = [values[at : at + width] for at in range(0, len(values), width)]
    return [sum(group) / len(group) for group in groups]
