"""`spillway calibrate POOL|--url URL`: a load sweep against a live pool, and the capacity record that comes of it."""

import argparse
import json
import math
import os
import ssl
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from spillway import config
from spillway.app.system import SystemClock
from spillway.cli.bench import allow_open_files
from spillway.core.errors import UsageError
from spillway.core.ids import PoolName
from spillway.load.calibrate import Best, Calibration, Level, Plan, Spread, best_under, calibrate
from spillway.load.corpus import Corpus, Yardstick
from spillway.load.slo import parse_slo
from spillway.load.target import Credential, RequestMaker, Shape, parse_target
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.settings import ClientLimits
from spillway.traffic.fleet import Capacity, TokenShape


class Place(msgspec.Struct, frozen=True):
    """What is measured: all endpoints of a pool, or one URL."""

    name: str
    urls: tuple[str, ...]
    model: str
    key: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("pool", nargs="?", metavar="POOL", help="a pool of the configuration; its endpoints are asked directly")
    add("--config", type=Path, metavar="FILE", help="the gateway's configuration")
    add("--url", help="instead of a pool: one engine, with or without /v1")
    add("--model", help="the engine's name of the model; with --url")
    add("--key", help="sent as a bearer token (of a pool: its api_key)")
    add("--concurrency", default="1,2,4,8,16", metavar="N,N,…", help="requests kept in flight, ascending (%(default)s)")
    add("--duration-s", type=float, default=20.0, metavar="S", help="of each level (%(default)g)")
    add("--timeout", type=float, default=120.0, metavar="S", help="of one request (%(default)g)")
    add("--input-tokens", type=int, default=120, metavar="N", help="of each request (%(default)s)")
    add("--output-tokens", type=int, default=60, metavar="N", help="of each request (%(default)s)")
    add("--no-ignore-eos", action="store_true", help="for servers that refuse the field ignore_eos")
    add("--chars-per-token", type=float, metavar="X", help="of the tokenizer; measured by probes when not given")
    add("--slo", default="", metavar="ttft_ms=N,tpot_ms=N,e2e_ms=N", help="for b* and λ*")
    add("--kv-tokens", type=int, metavar="N", help="tokens that fit into the pool's KV cache, for the record")
    add("--seed", type=int, default=0, help="of the prompts (%(default)s)")
    add("--write", type=Path, metavar="FILE", help="the record as YAML, for pools.NAME.capacity")
    add("--json", action="store_true", help="the result on standard output")


def run(arguments: argparse.Namespace) -> int:
    place, plan, slo = _place(arguments), _plan(arguments), parse_slo(arguments.slo)
    if arguments.write is not None and not arguments.write.parent.is_dir():
        raise UsageError(f"{arguments.write}: no such folder")
    allow_open_files()
    found = uvloop.run(_measure(arguments, place, plan))
    best = best_under(slo, found)
    record = _record(arguments, place, plan, found)
    if arguments.write is not None:
        arguments.write.write_text(_yaml(record), encoding="utf-8")
    if arguments.json:
        print(json.dumps(_document(found, best, record), indent=2, ensure_ascii=False))
    else:
        _print(found, best)
    return 0


async def _measure(arguments: argparse.Namespace, place: Place, plan: Plan) -> Calibration:
    prompts, texts = np.random.default_rng(arguments.seed).spawn(2)
    shape = Shape(model=place.model, ignore_eos=not arguments.no_ignore_eos)
    maker = RequestMaker(
        parse_target(place.urls[0]), shape, [Credential("calibrate", place.key)], Corpus(texts), prompts
    )
    origins = [HttpOrigin(Destination(url, tls=_tls(url)), ClientLimits()) for url in place.urls]
    chars_per_token: float | None = arguments.chars_per_token
    yardstick = None if chars_per_token is None else Yardstick(chars_per_token)

    def told(level: Level) -> None:
        print(
            f"{level.concurrency} at once: {level.residence_s:.3f} s at {level.in_flight:.2f} in flight "
            f"(Little {level.little:.2f}), {level.throughput_rps:.2f} requests/s, {level.errors} errors",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    try:
        return await calibrate(plan, Spread(origins), maker, SystemClock(), yardstick, told)
    finally:
        for origin in origins:
            origin.abort()


def _tls(url: str) -> ssl.SSLContext | None:
    return ssl.create_default_context() if url.startswith("https:") else None


def _place(arguments: argparse.Namespace) -> Place:
    if (arguments.pool is None) == (arguments.url is None):
        raise UsageError("either POOL with --config, or --url with --model")
    if arguments.url is not None:
        if arguments.model is None:
            raise UsageError("--url needs --model")
        return Place(arguments.url, (arguments.url,), arguments.model, arguments.key)
    if arguments.config is None:
        raise UsageError("POOL needs --config")
    pools = config.load(arguments.config, os.environ).pools
    pool = pools.get(PoolName(arguments.pool))
    if pool is None:
        raise UsageError(f"{arguments.pool!r} is none of the pools {', '.join(pools)}")
    return Place(arguments.pool, pool.urls, arguments.model or pool.model, arguments.key or pool.api_key)


def _plan(arguments: argparse.Namespace) -> Plan:
    try:
        levels = tuple(int(word) for word in arguments.concurrency.split(","))
    except ValueError:
        raise UsageError(f"--concurrency {arguments.concurrency!r} is not of the form 1,2,4") from None
    if len(levels) < 2 or levels[0] < 1 or any(b <= a for a, b in pairwise(levels)):
        raise UsageError("--concurrency: at least two levels, ascending, from 1 up")
    for name in ("duration_s", "timeout", "input_tokens", "output_tokens", "chars_per_token", "kv_tokens"):
        number = getattr(arguments, name)
        if number is not None and not (math.isfinite(number) and number > 0):
            raise UsageError(f"--{name.replace('_', '-')} must be above 0")
    return Plan(levels, arguments.duration_s, arguments.input_tokens, arguments.output_tokens, arguments.timeout)


def _record(arguments: argparse.Namespace, place: Place, plan: Plan, found: Calibration) -> Capacity:
    line = found.line
    fitted = [str(level.concurrency) for level in found.levels if level.fitted]
    worst = f", held-out error at most {_worst(found.held_out):.1%}" if found.held_out else ""
    return Capacity(
        x_s=round(line.x_s, 6),
        y_s=round(line.y_s, 6),
        kv_tokens=arguments.kv_tokens,
        reference=TokenShape(found.input_tokens, found.output_tokens),
        measured_at=datetime.fromtimestamp(SystemClock().wall(), UTC).isoformat(timespec="seconds"),
        evidence=f"spillway calibrate {place.name}: {place.model}, {len(place.urls)} endpoints, {', '.join(fitted)} at once for "
        f"{plan.duration_s:g} s each; r2 {line.r2:.4f}, x ± {line.x_error_s:.4g} s, y ± {line.y_error_s:.3g} s{worst}",
    )


def _document(found: Calibration, best: Best | None, record: Capacity) -> dict[str, object]:
    """The keys of a capacity record, and beside them how well it is known."""
    return {
        **msgspec.to_builtins(record),
        "r2": found.line.r2,
        "x_error_s": _finite(found.line.x_error_s),
        "y_error_s": _finite(found.line.y_error_s),
        "b_star": None if best is None else best.b_star,
        "lambda_star": None if best is None else best.lambda_star,
        "held_out_errors": list(found.held_out),
        "saturated": found.saturated,
        "points": msgspec.to_builtins(found.levels),
    }


def _yaml(record: Capacity) -> str:
    """JSON of a scalar is YAML of it."""
    lines = ["capacity:"]
    for name, value in msgspec.to_builtins(record).items():
        if value is not None and name != "max_sequences":
            lines.append(f"  {name}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _print(found: Calibration, best: Best | None) -> None:
    line = found.line
    print(
        f"x = {line.x_s:.4f} ± {line.x_error_s:.4f} s   y = {line.y_s:.5f} ± {line.y_error_s:.5f} s   r² = {line.r2:.4f}"
    )
    print(f"reference: {found.input_tokens} tokens in, {found.output_tokens} out")
    if found.held_out:
        print(f"each level predicted from the others: at most {_worst(found.held_out):.1%} off")
    if best is not None:
        print(f"under the SLO: b* = {best.b_star:.1f} in flight, λ* = {best.lambda_star:.3f} requests/s")
    if found.saturated is not None:
        print(f"the sweep ended early: {found.saturated}")


def _worst(errors: Sequence[float]) -> float:
    return max(abs(error) for error in errors)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
