"""What `spillway drill` shows: a line now and then while it runs, a table of its phases when it is over."""

import asyncio
import sys

from rich.console import Console
from rich.table import Column, Table

from spillway.core.clock import Seconds
from spillway.load.drill import Drill, DrillReport
from spillway.load.drill_document import figures_of, outcome_lines, rows
from spillway.load.slo import Slo

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
