"""What `spillway bench` shows: a live line while it runs, a table when it is over."""

import asyncio
import statistics

from rich.console import Console
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from spillway.core.clock import Seconds
from spillway.load.bench import Bench, BenchReport
from spillway.load.stats import BenchResult, Percentiles, run_name
from spillway.report.page import number, percent

REFRESH_S: Seconds = 0.25


async def show_progress(bench: Bench, console: Console, duration_s: Seconds | None) -> None:
    """Until cancelled."""
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            live.update(_line(bench, duration_s))
            await asyncio.sleep(REFRESH_S)


def _line(bench: Bench, duration_s: Seconds | None) -> Text:
    run = bench.current
    if run is None:
        return Text(bench.title)
    view = run.view()
    rate = view.ended / view.elapsed_s if view.elapsed_s > 0 else 0.0
    ttft_ms = statistics.median(view.recent_ttft_s) * 1000 if view.recent_ttft_s else None
    planned = f"/{duration_s:.0f}" if duration_s else ""
    line = Text(f"{bench.title}  {view.elapsed_s:.0f}{planned} s  ")
    line.append(f"{view.ended:,} ended  {rate:,.1f}/s  {view.in_flight:,} in flight  TTFT p50 {number(ttft_ms)} ms")
    line.append(f"  {view.errors:,} errors", style="red" if view.errors else "")
    return line


def print_summary(console: Console, report: BenchReport) -> None:
    best = report.best.result
    if len(report.steps) > 1:
        console.print(_sweep_table([step.result for step in report.steps]))
        console.print(f"the run with the highest goodput: {run_name(best)}")
    console.print(_latency_table(best))
    console.print(
        f"{best.requests:,} requests in {best.duration_s:.1f} s, {best.ok:,} ok, {best.failed:,} failed, "
        f"{best.refused:,} refused ({percent(best.refused_share)}), {best.interrupted:,} interrupted"
    )
    console.print(
        f"goodput {number(best.goodput_rps, 2)}/s ({percent(best.slo_share)} within the SLO), throughput "
        f"{number(best.throughput_rps, 2)}/s, {number(best.output_tokens_per_s, 0)} output tokens/s"
    )
    for title, counts in (("errors", best.errors), ("pools", best.pools)):
        if counts:
            listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
            console.print(Text(f"{title}: {listed}"))
    if best.pools:
        console.print(f"spilled {percent(best.spilled_share)}")
    if best.clipped_share:
        console.print(f"clipped to the context: {percent(best.clipped_share)}")


def _latency_table(result: BenchResult) -> Table:
    table = Table("ms", box=None, header_style="bold")
    for name in ("p50", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    rows: tuple[tuple[str, Percentiles], ...] = (
        ("time to first token", result.ttft_ms),
        ("time per output token", result.tpot_ms),
        ("whole answer", result.e2e_ms),
        ("schedule slip", result.slip_ms),
    )
    for name, of in rows:
        table.add_row(name, *(number(value) for value in (of.p50, of.p95, of.p99, of.max)))
    return table


def _sweep_table(results: list[BenchResult]) -> Table:
    table = Table(Column("run", no_wrap=True), box=None, header_style="bold")
    for name in ("rps", "goodput", "tokens/s", "TTFT p50", "TTFT p99", "TPOT p50", "failed", "refused"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            run_name(result),
            number(result.throughput_rps, 2), number(result.goodput_rps, 2), number(result.output_tokens_per_s, 0),
            number(result.ttft_ms.p50), number(result.ttft_ms.p99), number(result.tpot_ms.p50),
            number(result.failed, 0), percent(result.refused_share),
        )  # fmt: skip
    return table
