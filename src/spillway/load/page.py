"""A bench as an HTML page."""

from collections.abc import Callable, Sequence

from spillway.load.bench import BenchReport, Step
from spillway.load.record import Measure, RequestRecord
from spillway.load.requirement import Verdict
from spillway.load.series import distribution, in_flight, quantile_over_time, rates_by, time_edges
from spillway.load.stats import BenchResult, Percentiles, run_name
from spillway.report.figures import Series, line_plot, stacked_plot
from spillway.report.page import Mood, Plot, Section, Table, Tile, number, percent, render_page


def bench_page(report: BenchReport, verdicts: Sequence[Verdict], subtitle: str, notes: Sequence[str]) -> str:
    """A self-contained document. Of a sweep, the figures are those of its best run, and one section compares the runs."""
    best = report.best
    sections = [
        Section(tiles=_tiles(best.result), notes=notes),
        Section("Latency", tables=[_latencies(best.result)], plots=_latency_plots(best)),
        Section("Over time", plots=_time_plots(best)),
        Section("Where and how requests ended", tables=_counts(best.result)),
    ]
    if len(report.steps) > 1:
        sections.insert(1, _sweep([step.result for step in report.steps]))
    if verdicts:
        rows = [(v.require, number(v.measured, 3), "met" if v.met else "missed") for v in verdicts]
        sections.insert(1, Section("Requirements", tables=[Table(("requirement", "measured", ""), rows)]))
    run = run_name(best.result)
    return render_page(
        f"Bench: sweep, best run {run}" if len(report.steps) > 1 else f"Bench: {run}", subtitle, sections
    )


def _tiles(result: BenchResult) -> list[Tile]:
    return [
        Tile("goodput, requests/s", number(result.goodput_rps, 2)),
        Tile("throughput, requests/s", number(result.throughput_rps, 2)),
        Tile("output tokens/s", number(result.output_tokens_per_s, 0)),
        Tile("requests", number(result.requests, 0)),
        Tile("failed", number(result.failed, 0), Mood.BAD if result.failed else Mood.GOOD),
        Tile("refused (429)", percent(result.refused_share), Mood.BAD if result.refused else Mood.PLAIN),
        Tile("within the SLO", percent(result.slo_share)),
        Tile("TTFT p50 / p99, ms", f"{_ms(result.ttft_ms.p50)} / {_ms(result.ttft_ms.p99)}"),
        Tile("TPOT p50 / p99, ms", f"{_ms(result.tpot_ms.p50)} / {_ms(result.tpot_ms.p99)}"),
        Tile("spilled", percent(result.spilled_share)),
        Tile("clipped", percent(result.clipped_share)),
        Tile("seconds", number(result.duration_s)),
    ]


def _ms(value: float | None) -> str:
    return number(value, 0 if value is not None and value >= 100 else 1)


def _latencies(result: BenchResult) -> Table:
    def row(name: str, of: Percentiles) -> list[str]:
        return [name, *(number(value) for value in (of.p50, of.p95, of.p99, of.mean, of.max))]

    return Table(
        ("ms, from the intended send time", "p50", "p95", "p99", "mean", "max"),
        [
            row("time to first token", result.ttft_ms),
            row("time per output token", result.tpot_ms),
            row("whole answer", result.e2e_ms),
            row("schedule slip", result.slip_ms),
        ],
    )


def _latency_plots(step: Step) -> list[Plot]:
    slo = step.result.slo
    measures: tuple[tuple[str, Measure, float | None], ...] = (
        ("Time to first token", lambda record: record.ttft_s, slo.ttft_ms),
        ("Time per output token", lambda record: record.tpot_s, slo.tpot_ms),
        ("Whole answer", lambda record: record.e2e_s, slo.e2e_ms),
    )
    plots: list[Plot] = []
    records = _measured(step)
    for title, measure, bound_ms in measures:
        x, y = distribution(records, measure)
        if not x:
            continue
        bound = [Series("SLO", [bound_ms, bound_ms], [0.0, 1.0], dashed=True)] if bound_ms else []
        svg = line_plot([Series("share of requests", x, y), *bound], "ms", "share", log_x=x[0] > 0)
        plots.append(Plot(title, svg, "share of the requests that took at most so long"))
    return plots


def _time_plots(step: Step) -> list[Plot]:
    records = step.records
    edges = time_edges(records)
    ttft = [
        Series(name, *quantile_over_time(records, edges, share, lambda record: record.ttft_s))
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    plots = [
        Plot("By pool", stacked_plot(edges, rates_by(records, edges, _pool), "s", "requests/s"), "ended requests"),
        Plot(
            "By outcome", stacked_plot(edges, rates_by(records, edges, _outcome), "s", "requests/s"), "ended requests"
        ),
        Plot("In flight", line_plot([Series("in flight", *in_flight(records, edges))], "s", "requests")),
    ]
    if ttft[0].x:
        plots.insert(2, Plot("Time to first token", line_plot(ttft, "s", "ms"), "by intended send time"))
    return plots


def _counts(result: BenchResult) -> list[Table]:
    named = (("pool", result.pools), ("error", result.errors), ("status", result.statuses), ("client", result.clients))
    return [
        Table((name, "requests"), [(key, number(count, 0)) for key, count in counts.items()])
        for name, counts in named
        if counts
    ]


def _sweep(results: Sequence[BenchResult]) -> Section:
    head = (
        "run",
        "throughput/s",
        "goodput/s",
        "output tokens/s",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "TPOT p99",
        "failed",
        "refused",
    )
    rows = [
        (
            run_name(result),
            number(result.throughput_rps, 2), number(result.goodput_rps, 2), number(result.output_tokens_per_s, 0),
            number(result.ttft_ms.p50), number(result.ttft_ms.p99), number(result.tpot_ms.p50),
            number(result.tpot_ms.p99), number(result.failed, 0), percent(result.refused_share),
        )
        for result in results
    ]  # fmt: skip
    ordered = sorted(results, key=lambda result: result.throughput_rps)
    rps = [result.throughput_rps for result in ordered]
    goodput = Series("goodput", rps, [result.goodput_rps for result in ordered], dots=True)
    line = Series("throughput", rps, rps, dashed=True)
    plots = [Plot("Goodput", line_plot([goodput, line], "throughput, requests/s", "requests/s"))]
    ttft = _percentile_lines(ordered, lambda result: result.ttft_ms)
    tpot = _percentile_lines(ordered, lambda result: result.tpot_ms)
    plots.append(Plot("Time to first token", line_plot(ttft, "throughput, requests/s", "ms")))
    plots.append(Plot("Time per output token", line_plot(tpot, "throughput, requests/s", "ms")))
    return Section("Runs of the sweep", tables=[Table(head, rows)], plots=plots)


def _percentile_lines(results: Sequence[BenchResult], of: Callable[[BenchResult], Percentiles]) -> list[Series]:
    lines: list[Series] = []
    for name in ("p50", "p99"):
        points = [(result.throughput_rps, getattr(of(result), name)) for result in results]
        known = [(x, y) for x, y in points if y is not None]
        lines.append(Series(name, [x for x, _ in known], [y for _, y in known], dots=True))
    return lines


def _measured(step: Step) -> list[RequestRecord]:
    return [record for record in step.records if not record.warmup]


def _pool(record: RequestRecord) -> str:
    return record.pool or "no pool named"


def _outcome(record: RequestRecord) -> str:
    return record.error or "ok"
