"""A drill as an HTML page."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.load.drill import DrillReport, Phase
from spillway.load.drill_document import figures_of, outcome_lines, rows
from spillway.load.drill_figures import PhaseFigures, good_s
from spillway.load.record import RequestRecord
from spillway.load.requirement import Verdict
from spillway.load.series import quantile_over_time, rates_by, time_edges
from spillway.load.slo import Slo
from spillway.report.figures import Series, line_plot, stacked_plot
from spillway.report.page import Mood, Plot, Section, Table, Tile, number, percent, render_page

MOST_BINS = 40
REQUESTS_IN_BIN = 20


def drill_page(report: DrillReport, slo: Slo, verdicts: Sequence[Verdict], subtitle: str) -> str:
    """A self-contained document. The first plots lay the phases over each other, the others are one line of time."""
    figures = figures_of(report, slo)
    names = tuple(name.value for name in figures)
    table = Table(("", *names), [(title, *cells) for title, cells in rows(list(figures.values()))])
    sections = [
        Section(tiles=_tiles(report, list(figures.values())), notes=outcome_lines(report)),
        Section("Before, during, after", tables=[table]),
    ]
    if any(phase.records for phase in report.phases):
        sections.append(Section("Over time", plots=[*_compared(report, slo), *_in_a_row(report)]))
    if verdicts:
        met = [(v.require, number(v.measured, 3), "met" if v.met else "missed") for v in verdicts]
        sections.insert(1, Section("Requirements", tables=[Table(("requirement", "measured", ""), met)]))
    return render_page(f"Drill: {report.fault}", subtitle, sections)


def _tiles(report: DrillReport, figures: Sequence[PhaseFigures]) -> list[Tile]:
    mood = Mood.GOOD if report.restored is not None else Mood.BAD if report.failure is not None else Mood.PLAIN
    tiles = [Tile("restored", "–" if mood is Mood.PLAIN else "no" if mood is Mood.BAD else "yes", mood)]
    for title, phase in zip(("during", "after"), figures[1:], strict=False):
        errors = sum(phase.errors.values())
        tiles += [
            Tile(f"goodput {title}, of the baseline's", percent(phase.goodput_of_baseline)),
            Tile(f"errors {title}", number(errors, 0), Mood.BAD if errors else Mood.GOOD),
            Tile(f"spilled {title}", percent(phase.spilled_share)),
            Tile(f"goodput back after, s, {title}", number(phase.back_s)),
        ]
    return tiles


def _compared(report: DrillReport, slo: Slo) -> list[Plot]:
    bins = max(1, min(MOST_BINS, len(report.phases[0].records) // REQUESTS_IN_BIN))
    edges = np.linspace(0.0, report.duration_s, bins + 1).tolist()
    middles = [(before + after) / 2 for before, after in pairwise(edges)]
    width_s = report.duration_s / bins
    goodput = [
        Series(phase.name.value, middles, (np.histogram(good_s(phase.records, slo), edges)[0] / width_s).tolist())
        for phase in report.phases
    ]
    ttft = [
        Series(phase.name.value, *quantile_over_time(phase.records, edges, 0.95, lambda record: record.ttft_s))
        for phase in report.phases
    ]
    plots = [
        Plot("Goodput", line_plot(goodput, "s", "requests/s"), "by when requests were due, from the phase's beginning")
    ]
    if any(len(series.x) for series in ttft):
        plots.append(Plot("Time to first token, p95", line_plot(ttft, "s", "ms"), "by when requests were due"))
    return plots


def _in_a_row(report: DrillReport) -> list[Plot]:
    records = [later for at, phase in enumerate(report.phases) for later in _shifted(phase, at * report.duration_s)]
    edges = time_edges(records)
    pools = rates_by(records, edges, lambda record: record.pool or "no pool named")
    outcomes = rates_by(records, edges, lambda record: record.error or "ok")
    struck = f"baseline until {report.duration_s:g} s, the fault until {2 * report.duration_s:g} s; ended requests"
    return [
        Plot("By pool", stacked_plot(edges, pools, "s", "requests/s"), struck),
        Plot("By outcome", stacked_plot(edges, outcomes, "s", "requests/s"), struck),
    ]


def _shifted(phase: Phase, by_s: Seconds) -> list[RequestRecord]:
    return [
        msgspec.structs.replace(
            record, intended_s=record.intended_s + by_s, last_s=None if record.last_s is None else record.last_s + by_s
        )
        for record in phase.records
    ]
