"""Kill -9 of batch workers, gateway workers, whole gateways and the store while a batch runs: is every line in its output, once, in order,
with the right answer and the right totals, and billed once?

    python -m tests.soak.batches [--kills 50] [--lines 20000] [--seed 1] [--store sqlite|postgresql|both] [--output FILE]

One host with three batch workers, and a scripted upstream that is never killed: it counts what it generated. Line i has a prompt of a
length of its own, which its answer must tell. At moments drawn uniformly from a seed something is killed, or a batch worker is frozen
until its lease has ended and somebody else works on its shard.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import uvloop

from spillway.core.clock import Seconds
from spillway.testing.postgres import PostgresServer
from spillway.testing.processes import descendants
from spillway.testing.rng import SeededRng
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from tests.soak.client import ask, request
from tests.soak.results import write
from tests.soak.serving import Gateway

KEY = "sk-batches-0123456789abcdef"
MODEL = "offline"
PRICE = {"input_usd_per_mtok": 10.0, "output_usd_per_mtok": 20.0}
LEASE_S = 1.5
ANSWER_TOKENS = 4
SETTLED_S = 15.0
WORKERS = 3
TARGETS = ("batch worker", "freeze", "gateway worker", "gateway", "store")
LOOK_S = 0.1


class Kill(msgspec.Struct, frozen=True):
    target: str
    at_s: Seconds  # after the batch began
    in_flight: int  # lines that the upstream was working on


class Outcome(msgspec.Struct, frozen=True):
    """`wrong`: lines with another line's answer. `repeated`: answers that the upstream finished and that are not in the output.
    `unbilled`: lines without a bill."""

    store: str
    lines: int
    missing: int
    twice: int
    out_of_order: int
    wrong: int
    failed: int
    totals_differ: bool
    repeated: int
    billed: int
    billed_twice: int
    unbilled: int
    kills: tuple[Kill, ...]
    seconds: Seconds

    @property
    def passed(self) -> bool:
        clean = not (self.missing or self.twice or self.out_of_order or self.wrong or self.failed)
        return clean and not (self.totals_differ or self.billed_twice or self.unbilled)


def words_of(line: int) -> int:
    """Of the prompt of a line: neighbours differ."""
    return 1 + line * 7 % 97


def input_of(lines: int) -> bytes:
    def one(line: int) -> bytes:
        body = {
            "model": MODEL,
            "max_tokens": ANSWER_TOKENS,
            "messages": [{"role": "user", "content": " ".join(["word"] * words_of(line))}],
        }
        return json.dumps(
            {"custom_id": f"line-{line}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        ).encode()

    return b"\n".join(map(one, range(lines))) + b"\n"


def form_of(content: bytes) -> tuple[bytes, str]:
    """A multipart form with a file of the purpose batch, and its content type."""
    head = (
        b'--form\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--form\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    )
    return head + content + b"\r\n--form--\r\n", "multipart/form-data; boundary=form"


class Host:
    """The gateway under test, its upstream, and what can be killed of it."""

    def __init__(self, gateway: Gateway, upstream: UpstreamDouble, database: PostgresServer | None) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.database = database

    async def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Until it is answered with 200: a gateway that was just killed is not."""
        async with asyncio.timeout(60.0):
            while True:
                with contextlib.suppress(OSError, EOFError):
                    answer = await ask(self.gateway.port, request(body or b"", key=KEY, path=path, method=method))
                    if answer.status == 200:
                        return answer.body if path.endswith("/content") else msgspec.json.decode(answer.body)
                    assert answer.status >= 500, (answer.status, answer.body)
                await asyncio.sleep(LOOK_S)

    async def upload(self, content: bytes) -> str:
        form, kind = form_of(content)
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncontent-type: {kind}\r\n"
            f"content-length: {len(form)}\r\n\r\n"
        )
        answer = await ask(self.gateway.port, head.encode() + form)
        assert answer.status == 200, answer.body
        return str(msgspec.json.decode(answer.body)["id"])

    async def strike(self, target: str, rng: SeededRng) -> None:
        if target == "gateway":
            await asyncio.to_thread(self.gateway.process.kill)
            await asyncio.to_thread(self.gateway.start)
        elif target == "store" and self.database is not None:
            await asyncio.to_thread(self.database.kill)
            await asyncio.to_thread(self.database.start)
        else:  # a database in a file has no process: its writers are what can be killed
            await self._strike_one(target, rng)

    async def _strike_one(self, target: str, rng: SeededRng) -> None:
        word = b"spillway.app.worker" if target == "gateway worker" else b"batch"
        pids = sorted(pid for pid in descendants(self.gateway.process.pid) if _runs(pid, word))
        if not pids:
            return  # it was killed just before, and its successor is on its way
        pid = pids[int(rng.random() * len(pids))]
        with contextlib.suppress(ProcessLookupError):
            if target == "freeze":
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(LEASE_S * 1.5)
                os.kill(pid, signal.SIGCONT)
            else:
                os.kill(pid, signal.SIGKILL)


def _runs(pid: int, word: bytes) -> bool:
    with contextlib.suppress(OSError):
        return word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def run(kills: int, *, lines: int, seed: int, store: str, span_s: Seconds) -> Outcome:
    """`span_s`: the kills fall into so long a time from the beginning of the batch."""
    return uvloop.run(_run(kills, lines, seed, store, span_s))


async def _run(kills: int, lines: int, seed: int, store: str, span_s: Seconds) -> Outcome:
    spec = UpstreamSpec(time_to_first_token_s=0.05, inter_token_latency_s=0.02, models=("fake",))
    with TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        database = stack.enter_context(PostgresServer()) if store == "postgresql" else None
        async with UpstreamDouble(spec) as upstream:
            url = "sqlite:spillway.db" if database is None else database.database()
            gateway = Gateway(Path(name), config_of(upstream.url, url))
            await asyncio.to_thread(gateway.start)
            stack.callback(gateway.end)
            host = Host(gateway, upstream, database)
            outcome = await _killing(host, kills, lines, seed, store, span_s)
            await asyncio.to_thread(gateway.stop)
            return outcome


async def _killing(host: Host, kills: int, lines: int, seed: int, store: str, span_s: Seconds) -> Outcome:
    rng = SeededRng(seed)
    moments = sorted(0.3 + rng.random() * span_s for _ in range(kills))
    targets = [TARGETS[int(rng.random() * len(TARGETS))] for _ in range(kills)]
    file = await host.upload(input_of(lines))
    wanted = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = await host.call("POST", "/v1/batches", wanted)
    began_s = time.monotonic()
    struck: list[Kill] = []
    for moment, target in zip(moments, targets, strict=True):
        await asyncio.sleep(max(0.0, began_s + moment - time.monotonic()))
        in_flight = len(host.upstream.log.open)
        struck.append(Kill(target, round(time.monotonic() - began_s, 2), in_flight))
        await host.strike(target, rng)
    async with asyncio.timeout(60.0 + lines / 20):
        while batch["status"] != "completed":
            assert batch["status"] in ("validating", "in_progress", "finalizing"), batch
            await asyncio.sleep(LOOK_S)
            batch = await host.call("GET", f"/v1/batches/{batch['id']}")
    seconds = time.monotonic() - began_s
    output = await host.call("GET", f"/v1/files/{batch['output_file_id']}/content")
    return await _audit(host, batch, output, lines, struck, store, seconds)


async def _audit(
    host: Host, batch: Any, output: bytes, lines: int, kills: list[Kill], store: str, seconds: Seconds
) -> Outcome:
    rows = [msgspec.json.decode(line) for line in output.splitlines()]
    numbers = [int(row["custom_id"].removeprefix("line-")) for row in rows]
    usages = [row["response"]["body"]["usage"] for row in rows]
    told = batch["usage"]["input_tokens"], batch["usage"]["output_tokens"]
    summed = sum(usage["prompt_tokens"] for usage in usages), sum(usage["completion_tokens"] for usage in usages)
    cost_usd = (summed[0] * PRICE["input_usd_per_mtok"] + summed[1] * PRICE["output_usd_per_mtok"]) / 1e6
    counts = batch["request_counts"]
    totals = told == summed and counts == {"total": lines, "completed": len(rows), "failed": lines - len(rows)}
    finished = sum(seen.sent_tokens == ANSWER_TOKENS for seen in host.upstream.log.requests)
    billed, tokens = await _billed(host, lines)
    return Outcome(
        store=store,
        lines=lines,
        missing=lines - len(set(numbers)),
        twice=len(numbers) - len(set(numbers)),
        out_of_order=sum(later < earlier for earlier, later in _neighbours(numbers)),
        wrong=sum(usage["prompt_tokens"] != words_of(n) for n, usage in zip(numbers, usages, strict=True)),
        failed=counts["failed"],
        totals_differ=not totals or abs(batch["cost_usd"] - cost_usd) > 1e-6,
        repeated=finished - len(rows),
        billed=billed,
        billed_twice=max(0, billed - lines) + max(0, tokens - summed[1]),
        unbilled=max(0, lines - billed),
        kills=tuple(kills),
        seconds=round(seconds, 1),
    )


async def _billed(host: Host, lines: int) -> tuple[int, int]:
    """Requests and output tokens on the tenant's bill, once no more come."""
    before, deadline = (-1, -1), time.monotonic() + SETTLED_S
    while True:
        answer = await host.gateway.admin("GET", "/admin/v1/usage")
        assert answer.status == 200, answer.body
        hours = msgspec.json.decode(answer.body)["hours"]
        now = sum(hour["requests"] for hour in hours), sum(hour["completion_tokens"] for hour in hours)
        if now[0] >= lines or (now == before and time.monotonic() > deadline - SETTLED_S + 3.0):
            return now
        before = now
        await asyncio.sleep(1.0)


def _neighbours(numbers: list[int]) -> Iterator[tuple[int, int]]:
    return itertools.pairwise(numbers)


def config_of(upstream: str, store: str) -> dict[str, Any]:
    return {
        "store": {"url": store, "spool": {"segment_s": 0.2}},
        "batch": {"workers": WORKERS, "lease_s": LEASE_S, "poll_s": 0.1, "in_flight": 32, "shard_lines": 64},
        "clusters": {"here": {}},
        "pools": {
            "fake@here": {"cluster": "here", "endpoints": [upstream], "model": "fake", "limit": 64, "price": PRICE}
        },
        "models": {MODEL: {"tiers": [["fake@here"]]}},
        "keys": [{"secret": KEY, "tenant": "soak"}],
    }


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--span-s", type=float, default=60.0)
    parser.add_argument("--store", choices=("sqlite", "postgresql", "both"), default="both")
    parser.add_argument("--output", type=Path, help="instead of docs/results/batches.json")
    arguments = parser.parse_args(words)
    stores = ("sqlite", "postgresql") if arguments.store == "both" else (arguments.store,)
    outcomes = [
        run(arguments.kills, lines=arguments.lines, seed=arguments.seed, store=store, span_s=arguments.span_s)
        for store in stores
    ]
    figures = {"runs": msgspec.to_builtins(outcomes)}
    return write("batches", figures, passed=all(outcome.passed for outcome in outcomes), output=arguments.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
