"""The JSON document of a drill."""

import msgspec

from spillway.load.drill import DrillReport, PhaseName
from spillway.load.drill_figures import PhaseFigures, phase_figures
from spillway.load.slo import Slo

MEASURED = (PhaseName.BASELINE, PhaseName.DURING, PhaseName.AFTER)


def figures_of(report: DrillReport, slo: Slo) -> dict[PhaseName, PhaseFigures]:
    """Of each phase that ran, in order."""
    baseline = report.phases[0].records if report.phases else []
    return {phase.name: phase_figures(phase.records, baseline, slo, report.duration_s) for phase in report.phases}


def drill_document(report: DrillReport, slo: Slo) -> dict[str, object]:
    """`baseline`, `during`, `after`: `PhaseFigures`, null for a phase that did not run; beside them what was done, and whether it was
    undone."""
    figures = figures_of(report, slo)
    return {
        "fault": report.fault,
        "duration_s": report.duration_s,
        "slo": msgspec.to_builtins(slo),
        "struck": report.struck,
        "restored": report.restored,
        "failure": report.failure,
        "stopped": report.stopped,
        **{name.value: msgspec.to_builtins(figures.get(name)) for name in MEASURED},
    }
