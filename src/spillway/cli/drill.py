"""`spillway drill FAULT`: a fault on a running system under load, what users felt of it, and the fault taken back."""

import argparse
import asyncio
import contextlib
import json
import signal
import ssl
import sys
from collections.abc import AsyncGenerator, Callable

import msgspec
import numpy as np
import uvloop

from spillway.app.system import SystemClock
from spillway.cli import bench_arguments, drill_arguments
from spillway.cli.bench import allow_open_files
from spillway.cli.drill_view import print_report, show_progress
from spillway.core.errors import UsageError
from spillway.load.corpus import Corpus
from spillway.load.drill import Drill, DrillReport, Load, PhaseName
from spillway.load.drill_admin import AdminPort
from spillway.load.drill_document import MEASURED, drill_document
from spillway.load.drill_figures import phase_figures
from spillway.load.log import RequestLog
from spillway.load.options import BenchOptions
from spillway.load.record import RequestRecord
from spillway.load.requirement import Requirement, Verdict, judge, parse_requirement
from spillway.load.slo import Slo
from spillway.load.target import RequestMaker, parse_target
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.settings import ClientLimits

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TEXTS, _CALLERS, _ARRIVALS = range(3)  # streams of chance of their own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    drill_arguments.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    options = drill_arguments.options_of(arguments)
    requirements = [parse_requirement(text) for text in arguments.require]
    _check_figures(requirements)
    for path in filter(None, (arguments.output, arguments.html, arguments.log)):
        if not path.parent.is_dir():
            raise UsageError(f"{path}: no such folder")
    parse_target(arguments.url)
    log = RequestLog(arguments.log) if arguments.log else None
    allow_open_files()
    try:
        report = uvloop.run(_drill(arguments, options, log))
    finally:
        if log is not None:
            log.close()

    document = drill_document(report, options.slo)
    verdicts = [_judged(requirement, document) for requirement in requirements]
    document["requirements"] = msgspec.to_builtins(verdicts)
    _write(arguments, options.slo, report, document, verdicts)
    if log is not None and log.failure is not None:
        print(f"spillway drill: the log is not complete: {log.failure}", file=sys.stderr)
        return 1
    return 0 if report.whole and all(verdict.met for verdict in verdicts) else 1


async def _drill(arguments: argparse.Namespace, options: BenchOptions, log: RequestLog | None) -> DrillReport:
    url = drill_arguments.admin_url(arguments)
    admin_origin, origin = _origin(url), _origin(arguments.url)
    try:
        admin = AdminPort(admin_origin, url, drill_arguments.admin_token(arguments))
        fault = await drill_arguments.fault_of(arguments, admin)
        drill = Drill(
            fault, _load(arguments, options, origin), SystemClock(), _say, _sink(log), warmup_s=arguments.warmup
        )
        async with _meanwhile(drill, options):
            return await drill.run()
    finally:
        origin.abort()
        admin_origin.abort()


def _load(arguments: argparse.Namespace, options: BenchOptions, origin: HttpOrigin) -> Load:
    target, shape = parse_target(arguments.url), bench_arguments.shape_of(arguments)
    clients = bench_arguments.credentials_of(arguments)
    seed: int = arguments.seed

    def maker(phase: PhaseName) -> RequestMaker:
        texts = np.random.default_rng([seed, _TEXTS, list(PhaseName).index(phase)])
        return RequestMaker(target, shape, clients, Corpus(texts), np.random.default_rng([seed, _CALLERS]))

    # made anew for each phase: a generator that was spawned from gives other children the next time
    return Load(options, origin, maker, lambda: np.random.default_rng([seed, _ARRIVALS]))


@contextlib.asynccontextmanager
async def _meanwhile(drill: Drill, options: BenchOptions) -> AsyncGenerator[None]:
    """While the block runs, progress is shown, and signals end the drill in good order, however often they come."""
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, drill.stop)
    progress = loop.create_task(show_progress(drill, options.duration_s or 0.0))
    try:
        yield
    finally:
        progress.cancel()
        await asyncio.gather(progress, return_exceptions=True)
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _origin(url: str) -> HttpOrigin:
    tls = ssl.create_default_context() if url.startswith("https:") else None
    return HttpOrigin(Destination(url, tls=tls), ClientLimits())


def _sink(log: RequestLog | None) -> Callable[[RequestRecord], None]:
    def sink(record: RequestRecord) -> None:
        if log is not None:
            log.write(record)

    return sink


def _say(text: str) -> None:
    print(f"drill: {text}", file=sys.stderr, flush=True)


def _check_figures(requirements: list[Requirement]) -> None:
    """A misspelt figure is found before anything is struck."""
    nothing = msgspec.to_builtins(phase_figures([], [], Slo(), 1.0))
    for requirement in requirements:
        judge(requirement, {name.value: nothing for name in MEASURED})


def _judged(requirement: Requirement, document: dict[str, object]) -> Verdict:
    """A phase that did not run meets nothing."""
    if document[requirement.figure.partition(".")[0]] is None:
        return Verdict(requirement.text, None, met=False)
    return judge(requirement, document)


def _write(
    arguments: argparse.Namespace, slo: Slo, report: DrillReport, document: dict[str, object], verdicts: list[Verdict]
) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    if arguments.html is not None:
        from spillway.load.drill_page import drill_page  # matplotlib takes half a second that only this needs

        subtitle = f"{parse_target(arguments.url).authority} · model {arguments.model} · seed {arguments.seed}"
        arguments.html.write_text(drill_page(report, slo, verdicts, subtitle), encoding="utf-8")
    if arguments.json:
        print(text)
        return
    print_report(report, slo)
    for verdict in verdicts:
        print(f"{'met   ' if verdict.met else 'MISSED'} {verdict.require} (measured {verdict.measured})")
