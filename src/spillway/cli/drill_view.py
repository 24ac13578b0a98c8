"""What `spillway drill` shows: a line now and then while it runs, a table of its phases when it is over."""

import asyncio
import sys

from rich.console import Console
from rich.table import Column, Table

from spillway.core.clock import Seconds
from spillway.load.drill import Drill, DrillReport
from spillway.load.drill_document import figures_of
from spillway.load.drill_figures import PhaseFigures
from spillway.load.slo import Slo
from spillway.report.page import number, percent

REFRESH_S: Seconds = 5.0
WIDTH_OF_FILES = 120


async def show_progress(drill: Drill, duration_s: Seconds) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(REFRESH_S)
        if (seen := drill.view()) is not None:
            name, view = seen
            print(
                f"drill: {name} {min(view.elapsed_s, duration_s):.0f}/{duration_s:.0f} s, {view.ended:,} ended, "
                f"{view.in_flight:,} in flight, {view.errors:,} errors",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def print_report(report: DrillReport, slo: Slo) -> None:
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    figures = figures_of(report, slo)
    table = Table(Column(report.fault, no_wrap=True), box=None, header_style="bold")
    for name in figures:
        table.add_column(name.value, justify="right")
    for title, cells in rows([*figures.values()]):
        table.add_row(title, *cells)
    console.print(table)
    for line in outcome_lines(report):
        console.print(line, markup=False)


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
    lines: list[str] = []
    if report.restored is not None:
        lines.append(f"restored: {report.restored}")
    if report.failure is not None:
        lines.append(report.failure)
    if report.stopped:
        lines.append("stopped before the planned end: these are the results so far")
    return lines
