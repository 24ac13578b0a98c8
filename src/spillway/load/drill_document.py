"""The JSON document of a drill, and the rows of its table."""

import msgspec

from spillway.load.drill import DrillReport, PhaseName
from spillway.load.drill_figures import PhaseFigures, phase_figures
from spillway.load.slo import Slo
from spillway.report.page import number, percent

MEASURED = (PhaseName.BASELINE, PhaseName.DURING, PhaseName.AFTER)


def figures_of(report: DrillReport, slo: Slo) -> dict[PhaseName, PhaseFigures]:
    """Of each phase that ran, in order."""
    baseline = report.phases[0].records if report.phases else []
    began_s = {PhaseName.DURING: report.struck_s or 0.0}
    return {
        phase.name: phase_figures(phase.records, baseline, slo, report.duration_s, since_s=began_s.get(phase.name, 0.0))
        for phase in report.phases
    }


def drill_document(report: DrillReport, slo: Slo) -> dict[str, object]:
    """`baseline`, `during`, `after`: `PhaseFigures`, null for a phase that did not run; beside them what was done, and whether it was
    undone."""
    figures = figures_of(report, slo)
    return {
        "fault": report.fault,
        "duration_s": report.duration_s,
        "slo": msgspec.to_builtins(slo),
        "struck_s": report.struck_s,
        "restored": report.restored,
        "failure": report.failure,
        "stopped": report.stopped,
        **{name.value: msgspec.to_builtins(figures.get(name)) for name in MEASURED},
    }


def rows(figures: list[PhaseFigures]) -> list[tuple[str, list[str]]]:
    """A row for each figure, a cell for each phase."""
    return [
        ("requests", [number(each.requests, 0) for each in figures]),
        ("goodput, requests/s", [number(each.goodput_rps, 2) for each in figures]),
        ("goodput, of the baseline's", [percent(each.goodput_of_baseline) for each in figures]),
        ("errors", [number(sum(each.errors.values()), 0) for each in figures]),
        ("of them refused (429)", [number(each.refused, 0) for each in figures]),
        ("spilled", [percent(each.spilled_share) for each in figures]),
        ("TTFT p50, ms", [number(each.ttft_ms.p50) for each in figures]),
        ("TTFT p95, ms", [number(each.ttft_ms.p95) for each in figures]),
        ("TTFT p99, ms", [number(each.ttft_ms.p99) for each in figures]),
        ("TPOT p95, ms", [number(each.tpot_ms.p95) for each in figures]),
        ("goodput back after, s", [number(each.back_s) for each in figures]),
    ]


def outcome_lines(report: DrillReport) -> list[str]:
    """Whether it was restored, what failed, whether it was stopped."""
    lines: list[str] = []
    if report.restored is not None:
        lines.append(f"restored: {report.restored}")
    if report.failure is not None:
        lines.append(report.failure)
    if report.stopped:
        lines.append("stopped before the planned end: these are the results so far")
    return lines
