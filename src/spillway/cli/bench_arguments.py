"""The options of `spillway bench`, and what they become."""

import argparse
from pathlib import Path

import msgspec

from spillway.core.errors import UsageError
from spillway.load.corpus import Yardstick
from spillway.load.options import DEFAULT_DURATION_S, DEFAULT_SWEEP_STEPS, BenchOptions, Lengths, checked
from spillway.load.schedule import Profile
from spillway.load.sizes import Fit
from spillway.load.slo import parse_slo
from spillway.load.target import Credential, Shape, read_credentials
from spillway.load.trace_files import TRACE_NAMES, load_trace

RATE_HELP = f"requests/s (constant, poisson) · streams (concurrent) · steps (sweep, default {DEFAULT_SWEEP_STEPS})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_target(parser.add_argument_group("target"))
    _add_schedule(parser.add_argument_group("schedule"))
    _add_lengths(parser.add_argument_group("lengths"))
    _add_results(parser.add_argument_group("results"))


def _add_target(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]  argparse has no other name for it
    add = group.add_argument
    add("--url", default="http://127.0.0.1:8080", help="the gateway or engine, with or without /v1 (%(default)s)")
    add("--model", default="npc", help="(%(default)s)")
    add("--key", help="sent as a bearer token")
    add(
        "--keys-file",
        type=Path,
        metavar="FILE",
        help="several clients, a line each: KEY, LABEL KEY or LABEL KEY WEIGHT",
    )
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="may be repeated")
    add("--endpoint", choices=("chat", "completions"), default="chat", help="(%(default)s)")
    add("--no-stream", action="store_true", help="ask for whole answers; then there is no TTFT and no TPOT")
    add("--ignore-eos", action="store_true", help="ask for exactly max_tokens, where the engine knows this field")
    add("--sessions", type=int, default=0, metavar="N", help="spread requests over N values of prompt_cache_key")
    add("--extra-body", metavar="JSON", help="an object whose fields are added to every request")


def _add_schedule(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    add = group.add_argument
    add("--profile", choices=[profile.value for profile in Profile], default="constant", help="(%(default)s)")
    add("--rate", type=float, help=RATE_HELP)
    add(
        "--burstiness",
        type=float,
        default=1.0,
        help="poisson: shape of the gaps; 1 Poisson, below 1 burstier (%(default)s)",
    )
    add("--max-concurrency", type=int, metavar="N", help="most in flight; what waits for room is counted as latency")
    add(
        "--duration",
        type=float,
        metavar="S",
        help=f"seconds, default {DEFAULT_DURATION_S:g} where nothing else ends the run",
    )
    add("--max-requests", type=int, metavar="N")
    add("--warmup", type=float, default=0.0, metavar="S", help="first seconds that are left out of the figures")
    add("--timeout", type=float, default=120.0, metavar="S", help="of one request (%(default)g)")
    add("--drain", type=float, default=120.0, metavar="S", help="for what still runs after the duration (%(default)g)")
    add(
        "--trace",
        metavar="FILE",
        help=f"a file, or one of: {', '.join(TRACE_NAMES)}",
    )
    add("--speed", type=float, default=1.0, help="replay so many times as fast (%(default)s)")
    add("--seed", type=int, default=0, help="(%(default)s)")


def _add_lengths(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    add = group.add_argument
    lengths = Lengths()
    add(
        "--input-tokens",
        type=float,
        default=lengths.input_tokens,
        metavar="N",
        help="mean, without a trace (%(default)g)",
    )
    add("--input-tokens-sd", type=float, default=0.0, metavar="N", help="standard deviation (%(default)g)")
    add(
        "--output-tokens",
        type=float,
        default=lengths.output_tokens,
        metavar="N",
        help="mean, sent as max_tokens (%(default)g)",
    )
    add("--output-tokens-sd", type=float, default=0.0, metavar="N", help="standard deviation (%(default)g)")
    add("--scale-input", type=float, default=1.0, metavar="X", help="multiply input lengths")
    add("--scale-output", type=float, default=1.0, metavar="X", help="multiply output lengths")
    add("--clip", action="store_true", help="shorten what does not fit the model's context, and say how much that was")
    add("--context", type=int, default=2048, metavar="TOKENS", help="of the model, for --clip (%(default)s)")
    add(
        "--chars-per-token", type=float, metavar="X", help="of the model's tokenizer; measured by probes when not given"
    )


def _add_results(group: argparse._ArgumentGroup) -> None:  # pyright: ignore[reportPrivateUsage]
    add = group.add_argument
    add(
        "--slo",
        default="",
        metavar="ttft_ms=N,tpot_ms=N,e2e_ms=N",
        help="goodput counts requests that meet all of these",
    )
    add(
        "--require",
        action="append",
        default=[],
        metavar="'goodput_rps>=N'",
        help="else exit 1; may be repeated; any figure of --json",
    )
    add("--json", action="store_true", help="the result on standard output")
    add("--output", type=Path, metavar="FILE", help="the result as JSON")
    add("--html", type=Path, metavar="FILE", help="a report with plots")
    add("--log", type=Path, metavar="FILE", help="a JSON line for every request")


def options_of(arguments: argparse.Namespace) -> BenchOptions:
    """Raises UsageError, and ConfigError for a trace that cannot be read."""
    chars_per_token: float | None = arguments.chars_per_token
    options = BenchOptions(
        profile=Profile(arguments.profile),
        rate=arguments.rate,
        burstiness=arguments.burstiness,
        max_concurrency=arguments.max_concurrency,
        duration_s=arguments.duration,
        max_requests=arguments.max_requests,
        warmup_s=arguments.warmup,
        timeout_s=arguments.timeout,
        drain_s=arguments.drain,
        speed=arguments.speed,
        trace=load_trace(arguments.trace) if arguments.trace else None,
        lengths=Lengths(
            arguments.input_tokens, arguments.input_tokens_sd, arguments.output_tokens, arguments.output_tokens_sd
        ),
        fit=Fit(arguments.scale_input, arguments.scale_output, arguments.context if arguments.clip else None),
        yardstick=None if chars_per_token is None else Yardstick(chars_per_token),
        slo=parse_slo(arguments.slo),
    )
    return checked(options, streamed=not arguments.no_stream)


def shape_of(arguments: argparse.Namespace) -> Shape:
    """Raises UsageError."""
    if arguments.sessions < 0:
        raise UsageError("--sessions must not be below 0")
    try:
        extra = msgspec.json.decode(arguments.extra_body or "{}", type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise UsageError(f"--extra-body is not a JSON object: {error}") from None
    return Shape(
        model=arguments.model,
        chat=arguments.endpoint == "chat",
        streamed=not arguments.no_stream,
        ignore_eos=arguments.ignore_eos,
        sessions=arguments.sessions,
        extra=extra,
        headers=tuple(arguments.header),
    )


def credentials_of(arguments: argparse.Namespace) -> list[Credential]:
    """Raises UsageError."""
    if arguments.keys_file is None:
        return [Credential("client-1", arguments.key)]
    if arguments.key is not None:
        raise UsageError("either --key or --keys-file")
    try:
        return read_credentials(arguments.keys_file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--keys-file {arguments.keys_file}: {error}") from None
