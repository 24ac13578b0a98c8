"""Simulations as an HTML page, policies side by side."""

from spillway.planner.report import SimulationReport
from spillway.planner.results import PolicyResult
from spillway.planner.series import TimeSeries
from spillway.report.figures import Series, line_plot
from spillway.report.page import Plot, Section, Table, Tile, number, percent, render_page


def simulation_page(report: SimulationReport, subtitle: str) -> str:
    """A self-contained document."""
    sections = [
        Section(tiles=_tiles(report), notes=_notes(report)),
        Section("Policies on the same arrivals", tables=[_policies(report), _attainment(report)]),
    ]
    for name, result in report.policies.items():
        plots = _plots(report.series[name])
        sections.append(Section(f"Policy {name}", tables=[_latencies(result), _pools(result)], plots=plots))
    return render_page("Simulation", subtitle, sections)


def _tiles(report: SimulationReport) -> list[Tile]:
    best = max(report.policies, key=lambda name: report.policies[name].goodput_rps)
    tiles = [Tile("arrivals", number(report.arrivals, 0)), Tile("wall seconds", number(report.wall_s))]
    if len(report.policies) > 1:
        tiles.append(Tile("highest goodput", best))
    return [*tiles, Tile("goodput, requests/s", number(report.policies[best].goodput_rps, 2))]


def _notes(report: SimulationReport) -> list[str]:
    notes = [
        f"{report.engine} engines, {report.gateways} gateways, gauges {report.gauge_age_s:g} s old, seed {report.seed}."
    ]
    if report.bad_lines:
        notes.append(f"{report.bad_lines:,} lines of the trace could not be read and were left out.")
    return notes


def _policies(report: SimulationReport) -> Table:
    head = ("policy", "goodput/s", "throughput/s", "spilled", "shed", "hosted $", "reversals/min", "Jain of tenants")
    return Table(
        head,
        [
            (
                name, number(of.goodput_rps, 2), number(of.throughput_rps, 2), percent(of.spilled_share), percent(of.shed_share),
                number(of.hosted_usd, 2), number(of.reversals_per_min, 2), number(of.jain, 3),
            )
            for name, of in report.policies.items()
        ],
    )  # fmt: skip


def _attainment(report: SimulationReport) -> Table:
    priorities = list(dict.fromkeys(name for of in report.policies.values() for name in of.attainment))
    rows = [
        (name, *(percent(of.attainment.get(priority), 2) for priority in priorities))
        for name, of in report.policies.items()
    ]
    return Table(("within the SLO", *priorities), rows)


def _latencies(result: PolicyResult) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, of in result.priorities.items():
        for title, measured in (("TTFT", of.ttft_ms), ("TPOT", of.tpot_ms), ("whole answer", of.e2e_ms)):
            rows.append((f"{name}, {title}", number(measured.p50), number(measured.p95), number(measured.p99)))
    return Table(("ms", "p50", "p95", "p99"), rows)


def _pools(result: PolicyResult) -> Table:
    rows = [
        (name, number(of.mean_load, 3), number(of.sd_load, 3), number(of.max_load, 3))
        for name, of in result.pools.items()
    ]
    return Table(("pool, in flight over its limit", "mean", "sd", "max"), rows)


def _plots(of: TimeSeries) -> list[Plot]:
    load = [Series(name, of.at_s, values) for name, values in of.load.items()]
    served = [Series(name, of.at_s, values) for name, values in of.served_rps.items()]
    spilled = [Series(name or "all regions", of.at_s, values) for name, values in of.spilled_share.items()]
    waiting = [Series(name or "all regions", of.at_s, values) for name, values in of.waiting.items()]
    return [
        Plot("Load", line_plot(load, "s", "in flight over the limit"), "by pool"),
        Plot("Where requests were served", line_plot(served, "s", "requests/s"), "by pool and time of arrival"),
        Plot("Spilled", line_plot(spilled, "s", "share of dispatches"), "by the gateways' region"),
        Plot("Within the SLO", line_plot(_attained(of), "s", "share"), "by priority and time of arrival"),
        Plot("Shed", line_plot([Series("shed", of.at_s, of.shed_share)], "s", "share of arrivals")),
        Plot("Waiting at gateways", line_plot(waiting, "s", "requests"), "by region"),
    ]


def _attained(of: TimeSeries) -> list[Series]:
    lines: list[Series] = []
    for name, values in of.attainment.items():
        known = [(at_s, value) for at_s, value in zip(of.at_s, values, strict=True) if value is not None]
        lines.append(Series(name, [at_s for at_s, _ in known], [value for _, value in known]))
    return lines
