"""`spillway bench`: load on a URL, by profile or by trace, and what came of it."""

import argparse
import asyncio
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import uvloop
from rich.console import Console

from spillway.app.system import SystemClock
from spillway.cli import bench_arguments
from spillway.cli.bench_view import REFRESH_S, print_summary, show_progress
from spillway.core.errors import ConfigError
from spillway.load.bench import Bench, BenchReport
from spillway.load.corpus import Corpus
from spillway.load.log import RequestLog
from spillway.load.options import BenchOptions, streams_of
from spillway.load.record import RequestRecord
from spillway.load.requirement import Verdict, judge, parse_requirement
from spillway.load.schedule import Profile
from spillway.load.stats import summarize
from spillway.load.target import RequestMaker, Target, parse_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bench_arguments.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    options = bench_arguments.options_of(arguments)
    requirements = [parse_requirement(text) for text in arguments.require]
    nothing = summarize([], options.slo, profile=options.profile)
    for requirement in requirements:
        judge(requirement, msgspec.to_builtins(nothing))  # a misspelt figure is found before the run, not after it

    target = parse_target(arguments.url)
    corpus_rng, clients_rng, rng = np.random.default_rng(arguments.seed).spawn(3)
    clients = bench_arguments.credentials_of(arguments)
    maker = RequestMaker(target, bench_arguments.shape_of(arguments), clients, Corpus(corpus_rng), clients_rng)
    log = RequestLog(arguments.log) if arguments.log else None
    _allow_open_files()
    quiet = arguments.json or not sys.stderr.isatty()
    try:
        report = uvloop.run(_measure(options, target, maker, rng, log, quiet=quiet))
    finally:
        if log is not None:
            log.close()

    notes = _notes(options, report, log)
    verdicts = [judge(requirement, msgspec.to_builtins(report.best.result)) for requirement in requirements]
    _write_results(arguments, report, verdicts, notes)
    return 0 if all(verdict.met for verdict in verdicts) and not (log and log.failure) else 1
