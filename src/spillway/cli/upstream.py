"""`spillway upstream`: a fake OpenAI-compatible engine whose speed, room and faults are set, for tests and drills."""

import argparse
import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import uvloop
import yaml

from spillway.core.errors import ConfigError, SpillwayError, UsageError
from spillway.testing.control import Orders, apply_orders
from spillway.testing.script import FAILURE_TYPES, Failures
from spillway.testing.spec import LatencyLine, UpstreamSpec, duration_s
from spillway.testing.upstream import UpstreamDouble

_DURATIONS = (
    ("time-to-first-token", "time to the first token of a reply"),
    ("time-to-first-token-std-dev", "its spread"),
    ("prefill-overhead", "instead of a fixed time to first token: the constant part"),
    ("prefill-time-per-token", "and the part for each token of the prompt"),
    ("inter-token-latency", "time from one token to the next"),
    ("inter-token-latency-std-dev", "its spread"),
)
_COUNTS = (
    ("max-num-seqs", "requests that run together; more wait"),
    ("max-waiting-queue-length", "requests that wait; more are answered 429"),
    ("kv-cache-size", "KV blocks; unlimited by default"),
    ("block-size", "tokens of a KV block"),
    ("max-model-len", "input and output tokens of one request; more is answered 400"),
    ("output-tokens", "tokens of a reply that max_tokens does not cut"),
    ("embedding-dimensions", "length of embedding vectors"),
    ("seed", "of every chance taken"),
)
_EPILOG = """\
Durations are written 100ms or 1.5s. One word is one token, in and out.
A fault is KIND[:VALUE][:NAME=VALUE,...][@FROM-TO] with times in seconds since the start, e.g.
  --fault 500:count=1   --fault 429:retry_after_s=2@5-65   --fault cut:3   --fault stall:4,share=0.1
  --fault flap:period_s=4,down_s=2@0-60   --fault 503:path=/health
One request asks for a fault by the header x-upstream-fault: KIND, or by "user": "fault:KIND".
POST /control changes faults, failures and spec at run time; GET /control/log tells what was seen.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one; the ready line names it")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be given several times (fake)")
    parser.add_argument("--served-model-name", nargs="+", metavar="NAME", help="names to answer to instead of --model")
    for name, meaning in _DURATIONS:
        parser.add_argument(f"--{name}", metavar="DURATION", help=meaning)
    for name, meaning in _COUNTS:
        parser.add_argument(f"--{name}", type=int, metavar="N", help=meaning)
    parser.add_argument(
        "--time-factor-under-load", type=float, metavar="F", help="slow-down while max-num-seqs run (1)"
    )
    parser.add_argument(
        "--latency-line", metavar="X_S,Y_S", help="residence time T(b) = x + y·b instead of the speeds above"
    )
    parser.add_argument("--reference", metavar="IN,OUT", help="tokens of the request that the line is about (200,80)")
    parser.add_argument("--failure-injection-rate", type=float, default=0.0, metavar="PERCENT")
    parser.add_argument("--failure-types", nargs="+", default=[], choices=sorted(FAILURE_TYPES), metavar="TYPE",
                        help=" · ".join(sorted(FAILURE_TYPES)))  # fmt: skip
    parser.add_argument("--fault", action="append", default=[], metavar="FAULT", help="may be given several times")
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="YAML or JSON: a list of faults, or a body of POST /control"
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="append a JSON line for every request seen, and for its end"
    )
    parser.add_argument("--json", action="store_true", help="ready line as JSON")


def run(arguments: argparse.Namespace) -> int:
    spec = spec_of(arguments)
    orders = orders_of(arguments)
    upstream = UpstreamDouble(spec, log_path=arguments.log)

    def ready() -> None:
        if arguments.json:
            print(msgspec.json.encode({"event": "ready", "url": upstream.url}).decode(), flush=True)
        else:
            print(f"upstream is ready: {upstream.url}", flush=True)

    uvloop.run(_serve(upstream, orders, arguments.host, arguments.port, ready))
    return 0


def spec_of(arguments: argparse.Namespace) -> UpstreamSpec:
    """Raises UsageError."""
    fields: dict[str, object] = {"models": arguments.served_model_name or arguments.model, "kept_requests": 0}
    try:
        for name, _ in _DURATIONS:
            text = _given(arguments, name)
            fields[f"{name.replace('-', '_')}_s"] = None if text is None else duration_s(str(text))
        for name, _ in _COUNTS:
            fields[name.replace("-", "_")] = _given(arguments, name)
        fields["time_factor_under_load"] = arguments.time_factor_under_load
        if arguments.latency_line:
            x_s, y_s = _pair(arguments.latency_line)
            input_tokens, output_tokens = _pair(arguments.reference or "200,80")
            fields["latency_line"] = LatencyLine(x_s, y_s, round(input_tokens), round(output_tokens))
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, UpstreamSpec)
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(str(error)) from error


def orders_of(arguments: argparse.Namespace) -> Orders:
    """The script file, then the faults of the command line. Raises UsageError and ConfigError."""
    try:
        orders = _script(arguments.script) if arguments.script else Orders()
        failures = Failures(arguments.failure_injection_rate, tuple(arguments.failure_types))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if failures.failure_injection_rate:
        orders = msgspec.structs.replace(orders, failures=failures)
    return msgspec.structs.replace(orders, faults=[*(orders.faults or []), *arguments.fault])


def _script(path: Path) -> Orders:
    try:
        document = cast("object", yaml.safe_load(path.read_text()))
        return msgspec.convert({"faults": document} if isinstance(document, list) else document, Orders)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error


async def _serve(
    upstream: UpstreamDouble, orders: Orders, host: str, port: int, ready: Callable[[], None]
) -> None:  # fmt: skip
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await upstream.start(host, port)
    except OSError as error:
        raise SpillwayError(f"cannot listen on {host}:{port}: {error}") from error
    try:
        apply_orders(upstream.engine, orders)
        ready()
        await stopping.wait()
    finally:
        await upstream.stop()


def _given(arguments: argparse.Namespace, option: str) -> object:
    return getattr(arguments, option.replace("-", "_"))


def _pair(text: str) -> tuple[float, float]:
    first, comma, second = text.partition(",")
    if not comma:
        raise ValueError(f"{text!r} is not a pair of numbers such as 0.9,0.02")
    return float(first), float(second)
