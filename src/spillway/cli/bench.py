"""`spillway bench`: load on a URL, by profile or by trace, and what came of it."""

import argparse
import asyncio
import contextlib
import json
import resource
import signal
import ssl
import sys
from collections.abc import AsyncGenerator, Sequence

import msgspec
import numpy as np
import uvloop
from rich.console import Console

from spillway.app.system import SystemClock
from spillway.cli import bench_arguments
from spillway.cli.bench_view import REFRESH_S, print_summary, show_progress
from spillway.core.errors import SpillwayError, UsageError
from spillway.load.bench import Bench, BenchReport
from spillway.load.corpus import Corpus
from spillway.load.document import bench_document, notes_of
from spillway.load.log import RequestLog
from spillway.load.options import BenchOptions
from spillway.load.record import RequestRecord
from spillway.load.requirement import Verdict, judge, parse_requirement
from spillway.load.stats import summarize
from spillway.load.target import RequestMaker, parse_target
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.settings import ClientLimits

WIDTH_OF_FILES = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bench_arguments.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    options = bench_arguments.options_of(arguments)
    requirements = [parse_requirement(text) for text in arguments.require]
    nothing = msgspec.to_builtins(summarize([], options.slo, profile=options.profile))
    for requirement in requirements:
        judge(requirement, nothing)  # a misspelt figure is found before the run, not after it
    for path in filter(None, (arguments.output, arguments.html, arguments.log)):
        if not path.parent.is_dir():
            raise UsageError(f"{path}: no such folder")

    maker_rng, corpus_rng, bench_rng = np.random.default_rng(arguments.seed).spawn(3)
    target = parse_target(arguments.url)
    clients = bench_arguments.credentials_of(arguments)
    maker = RequestMaker(target, bench_arguments.shape_of(arguments), clients, Corpus(corpus_rng), maker_rng)
    log = RequestLog(arguments.log) if arguments.log else None
    allow_open_files()
    try:
        report = uvloop.run(_measure(options, arguments, maker, bench_rng, log))
    finally:
        if log is not None:
            log.close()

    verdicts = [judge(requirement, msgspec.to_builtins(report.best.result)) for requirement in requirements]
    write_results(arguments, report, verdicts, notes_of(options, report))
    if log is not None and log.failure is not None:
        print(f"spillway bench: the log is not complete: {log.failure}", file=sys.stderr)
        return 1
    return 0 if all(verdict.met for verdict in verdicts) else 1


async def _measure(
    options: BenchOptions,
    arguments: argparse.Namespace,
    maker: RequestMaker,
    rng: np.random.Generator,
    log: RequestLog | None,
) -> BenchReport:
    tls = ssl.create_default_context() if arguments.url.startswith("https:") else None
    origin = HttpOrigin(Destination(arguments.url, tls=tls), ClientLimits())

    def sink(record: RequestRecord) -> None:
        if log is not None:
            log.write(record)

    bench = Bench(options, origin, maker, SystemClock(), rng, sink)
    loop = asyncio.get_running_loop()
    running = loop.create_task(bench.run())
    # Ctrl-C gives the results so far; while there are none, it ends the command
    loop.add_signal_handler(signal.SIGINT, lambda: bench.stop() if bench.current else running.cancel())
    try:
        async with _meanwhile(bench, options, arguments, log):
            return await running
    except asyncio.CancelledError:
        raise SpillwayError("stopped before anything was measured") from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        origin.abort()


@contextlib.asynccontextmanager
async def _meanwhile(
    bench: Bench, options: BenchOptions, arguments: argparse.Namespace, log: RequestLog | None
) -> AsyncGenerator[None]:
    """While the block runs, progress is shown and the log reaches the disk."""
    console = Console(stderr=True)
    tasks: list[asyncio.Task[None]] = []
    if console.is_terminal and not arguments.json:
        tasks.append(asyncio.create_task(show_progress(bench, console, options.duration_s)))
    if log is not None:
        tasks.append(asyncio.create_task(_flush_now_and_then(log)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


async def _flush_now_and_then(log: RequestLog) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        log.flush()


def write_results(
    arguments: argparse.Namespace, report: BenchReport, verdicts: Sequence[Verdict], notes: Sequence[str]
) -> None:
    document = json.dumps(bench_document(report, verdicts, notes), indent=2, ensure_ascii=False)
    if arguments.output is not None:
        arguments.output.write_text(document + "\n", encoding="utf-8")
    if arguments.html is not None:
        from spillway.load.page import bench_page  # matplotlib takes half a second that only this needs

        subtitle = f"{parse_target(arguments.url).authority} · model {arguments.model} · seed {arguments.seed}"
        arguments.html.write_text(bench_page(report, verdicts, subtitle, notes), encoding="utf-8")
    if arguments.json:
        print(document)
        return
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
    print_summary(console, report)
    for note in notes:
        console.print(note, markup=False)
    for verdict in verdicts:
        console.print(
            f"{'met   ' if verdict.met else 'MISSED'} {verdict.require} (measured {verdict.measured})", markup=False
        )


def allow_open_files() -> None:
    """Every stream is a connection, and the usual soft limit of 1,024 files is too few of them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
