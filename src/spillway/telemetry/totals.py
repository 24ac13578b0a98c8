"""The sum of many processes' reports. Pure.

What a worker counted stays counted when it is gone; its gauges go with it.
"""

from collections import deque
from collections.abc import Iterable

from spillway.telemetry.catalog import CATALOG, Across, Spec
from spillway.telemetry.metrics import Labels, Report, Sample, Spread


class Totals:
    """Keeps the latest report of each live worker, and one sum for all that ended."""

    def __init__(self) -> None:
        self._live: dict[str, Report] = {}
        self._ended = Report()
        self._ended_names: deque[str] = deque(maxlen=256)  # a report that was on its way must not bring one back

    def add(self, worker: str, report: Report) -> None:
        if worker not in self._ended_names:
            self._live[worker] = report

    def retire(self, worker: str) -> None:
        report = self._live.pop(worker, None)
        self._ended_names.append(worker)
        if report is not None:
            self._ended = merge([self._ended, Report(report.counters, {}, report.histograms)])

    def total(self, own: Report | None = None) -> Report:
        """`own`: what the parent itself reports."""
        return merge([self._ended, *self._live.values(), *([] if own is None else [own])])


def merge(reports: Iterable[Report], catalog: dict[str, Spec] = CATALOG) -> Report:
    """Counters and histograms are summed, gauges as the catalogue says."""
    counters: dict[str, dict[Labels, list[float]]] = {}
    gauges: dict[str, dict[Labels, list[float]]] = {}
    histograms: dict[str, dict[Labels, list[Spread]]] = {}
    for report in reports:
        for name, samples in report.counters.items():
            for sample in samples:
                counters.setdefault(name, {}).setdefault(sample.labels, []).append(sample.value)
        for name, samples in report.gauges.items():
            for sample in samples:
                gauges.setdefault(name, {}).setdefault(sample.labels, []).append(sample.value)
        for name, spreads in report.histograms.items():
            for spread in spreads:
                histograms.setdefault(name, {}).setdefault(spread.labels, []).append(spread)
    return Report(
        counters={name: _joined(series, Across.SUM) for name, series in counters.items()},
        gauges={name: _joined(series, _across(name, catalog)) for name, series in gauges.items()},
        histograms={
            name: tuple(_summed(labels, spreads) for labels, spreads in series.items())
            for name, series in histograms.items()
        },
    )


def _across(name: str, catalog: dict[str, Spec]) -> Across:
    spec = catalog.get(name)  # None: a worker of another version
    return Across.SUM if spec is None else spec.across


def _joined(series: dict[Labels, list[float]], across: Across) -> tuple[Sample, ...]:
    match across:
        case Across.SUM:
            return tuple(Sample(labels, sum(values)) for labels, values in series.items())
        case Across.MEAN:
            return tuple(Sample(labels, sum(values) / len(values)) for labels, values in series.items())
        case Across.MAX:
            return tuple(Sample(labels, max(values)) for labels, values in series.items())


def _summed(labels: Labels, spreads: list[Spread]) -> Spread:
    counts = tuple(map(sum, zip(*(spread.counts for spread in spreads), strict=True)))
    return Spread(labels, counts, sum(spread.sum for spread in spreads))
