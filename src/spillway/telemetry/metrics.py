"""Counting. Hot path: a series is a slotted object that its user keeps; counting is an addition, without any look-up.

A `Registry` belongs to one process; its `Report` is plain values that travel to the parent, where `Totals` sums them.
"""

from bisect import bisect_left
from collections.abc import Collection

import msgspec

from spillway.telemetry.catalog import CATALOG, Kind, Spec

OTHER = "other"
"""The label values of everything that had no room among the series of its own."""

Labels = tuple[str, ...]


class Counter:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def add(self, amount: float = 1) -> None:
        self.value += amount


class Gauge:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """`counts[i]` are the observations in bucket i alone, not cumulated; the last is beyond every bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    labels: Labels
    value: float


class Spread(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A histogram's counts, each bucket alone."""

    labels: Labels
    counts: tuple[int, ...]
    sum: float


class Report(msgspec.Struct, frozen=True):
    """All series of one process at one moment, by metric name. Counters and histograms are totals since its start."""

    counters: dict[str, tuple[Sample, ...]] = {}
    gauges: dict[str, tuple[Sample, ...]] = {}
    histograms: dict[str, tuple[Spread, ...]] = {}


class Registry:
    """Makes the series of one process, at most `max_series` of a metric; those beyond share one that is labelled `other`."""

    def __init__(self, *, max_series: int = 2000, catalog: dict[str, Spec] = CATALOG) -> None:
        self._catalog = catalog
        self._max_series = max_series
        self._counters: dict[str, dict[Labels, Counter]] = {}
        self._gauges: dict[str, dict[Labels, Gauge]] = {}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}

    def counter(self, name: str, *labels: str) -> Counter:
        self._spec(name, Kind.COUNTER, labels)
        series = self._counters.setdefault(name, {})
        labels = self._room(name, labels, series)
        return series.setdefault(labels, Counter())

    def gauge(self, name: str, *labels: str) -> Gauge:
        self._spec(name, Kind.GAUGE, labels)
        series = self._gauges.setdefault(name, {})
        labels = self._room(name, labels, series)
        return series.setdefault(labels, Gauge())

    def histogram(self, name: str, *labels: str) -> Histogram:
        spec = self._spec(name, Kind.HISTOGRAM, labels)
        series = self._histograms.setdefault(name, {})
        labels = self._room(name, labels, series)
        return series.setdefault(labels, Histogram(spec.buckets))

    def forget_gauge(self, name: str) -> None:
        """Drop all series of a gauge: what they were about may be gone."""
        self._gauges.pop(name, None)

    def report(self) -> Report:
        return Report(
            counters={
                name: tuple(Sample(labels, counter.value) for labels, counter in series.items())
                for name, series in self._counters.items()
            },
            gauges={
                name: tuple(Sample(labels, gauge.value) for labels, gauge in series.items())
                for name, series in self._gauges.items()
            },
            histograms={
                name: tuple(Spread(labels, tuple(one.counts), one.sum) for labels, one in series.items())
                for name, series in self._histograms.items()
            },
        )

    def _spec(self, name: str, kind: Kind, labels: Labels) -> Spec:
        spec = self._catalog[name]
        if spec.kind is not kind or len(spec.labels) != len(labels):
            raise ValueError(
                f"{name} is a {spec.kind} with labels {spec.labels}, not a {kind} with {len(labels)} of them"
            )
        return spec

    def _room(self, name: str, labels: Labels, series: Collection[Labels]) -> Labels:
        if labels in series or len(series) < self._max_series:
            return labels
        overflow = self._counters.setdefault("spillway_metrics_overflow_total", {})
        overflow.setdefault((name,), Counter()).add()
        return (OTHER,) * len(labels)
