"""`spillway simulate`: a trace through the brain in virtual time, or a gateway's journal through it once more."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from spillway import config
from spillway.cli import simulate_arguments
from spillway.cli.simulate_traffic import Traffic, traffic
from spillway.core.errors import SpillwayError, UsageError
from spillway.gateway.replay import replay
from spillway.planner.arrival import Arrival
from spillway.planner.comparison import OURS, Policy, only_first_tier, policies
from spillway.planner.report import SimulationReport
from spillway.planner.results import PolicyResult, result_of
from spillway.planner.scenario import Scenario, of_config
from spillway.planner.series import TimeSeries, series_of
from spillway.planner.simulate import EngineModel, simulate
from spillway.report.page import number, percent

WIDTH_OF_FILES = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    simulate_arguments.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    simulate_arguments.check_paths(arguments)
    if arguments.journal is not None:
        return _replay(arguments.journal, as_json=arguments.json)
    chosen = _policies(arguments.policy)
    fleet = config.load(arguments.config, os.environ).fleet()
    scenario = of_config(
        fleet,
        gateways=arguments.gateways,
        incidents=tuple(arguments.fail),
        gauge_age_s=arguments.gauge_age_s,
        come_back=arguments.come_back,
    )
    if not fleet.models:
        raise UsageError("the configuration has no model")
    made = traffic(arguments, tuple(fleet.models), np.random.default_rng(arguments.seed))
    report = _simulate(arguments, scenario, made, chosen)
    _write(arguments, report)
    return 0


def _policies(names: list[str]) -> dict[str, tuple[Policy, ...]]:
    """Each with the settings to try. Raises UsageError."""
    known = policies()
    if "all" in names:
        return known
    for name in names:
        if name not in known:
            raise UsageError(f"no policy {name!r}: there are {', '.join(known)}, and all")
    return {name: known[name] for name in names or [OURS]}


def _simulate(
    arguments: argparse.Namespace, scenario: Scenario, made: Traffic, chosen: dict[str, tuple[Policy, ...]]
) -> SimulationReport:
    results: dict[str, PolicyResult] = {}
    settings: dict[str, dict[str, float]] = {}
    series: dict[str, TimeSeries] = {}
    began = time.perf_counter()  # for wall_s: the simulation has a time of its own
    for name, tried in chosen.items():
        for place, policy in enumerate(tried, 1):
            books = simulate(
                only_first_tier(scenario) if policy.first_tier_only else scenario,
                _shown(made.arrivals, f"{name} {place}/{len(tried)}", as_json=arguments.json),
                placement=policy.make,
                engine=EngineModel(arguments.engine),
            )
            result = result_of(books)
            if name not in results or result.goodput_rps > results[name].goodput_rps:
                results[name], series[name], settings[name] = result, series_of(books), dict(policy.setting)
    return SimulationReport(
        arrivals=len(made.arrivals),
        wall_s=round(time.perf_counter() - began, 3),
        seed=arguments.seed,
        engine=arguments.engine,
        gateways=arguments.gateways,
        gauge_age_s=arguments.gauge_age_s,
        bad_lines=made.bad_lines,
        policies=results,
        settings=settings,
        series=series,
    )


def _shown(arrivals: list[Arrival], policy: str, *, as_json: bool) -> Iterator[Arrival]:
    """The arrivals, and how far they are where a person looks on."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        return iter(arrivals)
    return iter(track(arrivals, description=policy, console=console, transient=True))


def _write(arguments: argparse.Namespace, report: SimulationReport) -> None:
    if arguments.html is not None:
        from spillway.planner.pages import simulation_page  # matplotlib takes half a second that only this needs

        subtitle = f"{arguments.config} · {arguments.trace} · speed {arguments.speed:g}"
        arguments.html.write_text(simulation_page(report, subtitle), encoding="utf-8")
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(report), indent=2, ensure_ascii=False))
        return
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    table = Table("policy", box=None, header_style="bold")
    for title in ("goodput/s", "spilled", "shed", "hosted $", "reversals/min", "Jain", "TTFT p95 ms", "within the SLO"):
        table.add_column(title, justify="right")
    for name, of in report.policies.items():
        attained = "  ".join(f"{priority} {percent(share)}" for priority, share in of.attainment.items())
        table.add_row(
            _titled(name, report.settings[name]), number(of.goodput_rps, 2), percent(of.spilled_share), percent(of.shed_share), number(of.hosted_usd, 2),
            number(of.reversals_per_min, 2), number(of.jain, 3), number(of.all.ttft_ms.p95, 0), attained,
        )  # fmt: skip
    console.print(f"{report.arrivals:,} arrivals in {report.wall_s:.1f} s, {report.engine} engines, seed {report.seed}")
    console.print(table)


def _titled(name: str, setting: dict[str, float]) -> str:
    """A policy with the best of its settings."""
    words = ", ".join(f"{key} {value:g}" for key, value in setting.items())
    return f"{name} ({words})" if words else name


def _replay(path: Path, *, as_json: bool) -> int:
    """1 where the effects differ."""
    try:
        with path.open("rb") as lines:
            result = replay(lines)
    except OSError as error:
        raise SpillwayError(f"{path}: {error.strerror}") from None
    if as_json:
        print(json.dumps({"events": result.events, "differing": result.differing}, indent=2))
    elif result.differing:
        listed = ", ".join(str(number) for number in result.differing[:20])
        print(f"{result.events:,} events, the effects differ in {len(result.differing):,}, first in lines {listed}")
    else:
        print(f"{result.events:,} events, the same effects")
    return 1 if result.differing else 0
