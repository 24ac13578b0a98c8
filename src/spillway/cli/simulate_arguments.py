"""The options of `spillway simulate`, and what they become."""

import argparse
import re
from math import inf
from pathlib import Path

from spillway.core.errors import UsageError
from spillway.core.ids import PoolName
from spillway.core.priority import Priority
from spillway.load.trace_files import SERVEGEN, TRACE_NAMES
from spillway.planner.scenario import Happening, Incident
from spillway.planner.simulate import EngineModel

_FAILURE = re.compile(r"(?P<pool>.+)@(?P<from_s>\d+(\.\d+)?)-(?P<until_s>\d+(\.\d+)?)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what is simulated").add_argument
    add("--config", type=Path, metavar="FILE", help="pools with capacity records, models, priorities")
    add("--trace", metavar="FILE", help=f"a path, or one of {', '.join((*TRACE_NAMES, SERVEGEN))}")
    add("--model", help="asked for where the trace names none that the configuration has (its first)")
    add("--speed", type=positive, default=1.0, help="play the trace so many times as fast (%(default)s)")
    add("--rate", type=positive, metavar="RPS", help="mean rate at speed 1 (as recorded)")
    add("--from", type=seconds, default=0.0, metavar="S", dest="from_s", help="begin so late in ServeGen's two weeks")
    add(
        "--duration",
        type=positive,
        default=inf,
        metavar="S",
        help="end the sped-up trace after so many seconds (ServeGen: a day)",
    )
    add(
        "--scale-input",
        type=positive,
        default=1.0,
        metavar="X",
        help="multiply a trace's prompts by this (%(default)s)",
    )
    add("--scale-output", type=positive, default=1.0, metavar="X", help="… and its outputs (%(default)s)")
    add("--tenants", type=whole, default=1, metavar="N", help="the k-th has a share in proportion to 1/k (%(default)s)")
    add(
        "--priority", action="append", type=priority_share, default=[], metavar="NAME=SHARE",
        help="may be repeated (interactive=1)",
    )  # fmt: skip
    add("--max-tokens", type=whole, metavar="N", help="what the gateway is told of the output (what it will be)")
    add("--gateways", type=whole, default=1, metavar="N", help="(%(default)s)")
    add("--gauge-age-s", type=seconds, default=0.0, metavar="S", help="how late gauges are (%(default)s)")
    add("--engine", choices=[model.value for model in EngineModel], default="summary", help="(%(default)s)")
    add(
        "--fail", action="append", type=failure, default=[], metavar="POOL@FROM-TO",
        help="the pool is down between these seconds; may be repeated",
    )  # fmt: skip
    add("--come-back", action="store_true", help="who is refused comes back once, after the time that it was told")
    add(
        "--policy",
        action="append",
        default=[],
        metavar="NAME",
        help="spillway, one to beat with the best of its settings, or all; may be repeated (spillway)",
    )
    add("--seed", type=int, default=0, help="(%(default)s)")
    add("--journal", type=Path, metavar="FILE", help="instead: tell a gateway's journal again and compare the effects")
    add = parser.add_argument_group("results").add_argument
    add("--json", action="store_true", help="print the results as JSON")
    add("--html", type=Path, metavar="FILE", help="write a report")


def positive(text: str) -> float:
    value = seconds(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number from 0 on")
    return value


def whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def failure(text: str) -> Incident:
    found = _FAILURE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not POOL@FROM-TO, in seconds")
    return Incident(Happening.DOWN, PoolName(found["pool"]), float(found["from_s"]), float(found["until_s"]))


def priority_share(text: str) -> tuple[Priority, float]:
    name, _, share = text.partition("=")
    if name not in list(Priority):
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(Priority)}")
    return Priority(name), positive(share)


def check_paths(arguments: argparse.Namespace) -> None:
    """Raises UsageError."""
    if arguments.journal is None and (arguments.config is None or arguments.trace is None):
        raise UsageError("--config and --trace are needed (or --journal alone)")
    if arguments.html is not None and not arguments.html.parent.is_dir():
        raise UsageError(f"{arguments.html}: no such folder")
