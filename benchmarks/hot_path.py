"""What our own code costs a request, without the kernel: the whole path between two transports that do nothing.

    .venv/bin/python benchmarks/hot_path.py [--rounds 7] [--tenants 10000] [--profile]

One client connection sends 1 KB requests, one upstream connection answers 600 bytes; or 100 events of a stream. Everything in
between is real: parser, data plane, pipeline, brain, relay, settlement, metrics, spool (its file too). CPU microseconds per
request and per event, best of the rounds: of one tenant without limits, of `--tenants` in turn without limits, and of as many with
seven limits each (requests, tokens, at once, dollars; of tenant, model and organization), reports to a ledger and its work
included. Prints one line of JSON.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import logging
import pstats
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import cast

import uvloop

from spillway.api.data_plane import DataPlane
from spillway.app.system import SystemClock, SystemRng
from spillway.core.clock import Clock
from spillway.core.ids import (
    ClusterName,
    EndpointUrl,
    KeyId,
    ModelName,
    OrganizationId,
    PoolName,
    RequestIds,
    TenantId,
    VersionName,
)
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.gateway.driver import Driver
from spillway.gateway.pipeline import Pipeline
from spillway.gateway.ports import PoolBinding, Principal
from spillway.gateway.quotas import Quotas
from spillway.gateway.settings import GatewaySettings
from spillway.gateway.settle import Settlement
from spillway.net.client_connection import ClientConnection
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.ports import Exchange, Receiver, Route, Ticket
from spillway.net.server import HttpServer
from spillway.net.settings import ClientLimits, ServerLimits
from spillway.quota.book import Book
from spillway.quota.calendar import Calendar
from spillway.quota.gate import Gate
from spillway.quota.ledger import LedgerTimes, Report, Seed
from spillway.quota.rules import Bounds, Owner, Quota
from spillway.store.keyring import Entry, Keys, LookedUp
from spillway.store.minting import new_secret
from spillway.store.settings import SpoolSettings
from spillway.store.spool import Spool
from spillway.telemetry.access_log import GatewayLog
from spillway.telemetry.gateway_metrics import GatewayMetrics
from spillway.telemetry.metrics import Registry
from spillway.telemetry.observers import Observers
from spillway.telemetry.tracer import NoTracing
from spillway.testing.rng import SeededRng
from spillway.traffic.controller import Controller
from spillway.traffic.events import Configured
from spillway.traffic.fleet import Fleet, ModelSpec, PoolSpec

SEAL = b"s" * 32
POOL, URL, NPC = PoolName("npc@east"), EndpointUrl("http://127.0.0.1:9"), ModelName("npc")
ANSWER_BODY = json.dumps(
    {"choices": [{"message": {"content": "x" * 480}}], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER_BODY),
    ANSWER_BODY,
)
EVENTS = 100


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


EVENT = chunk(
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"npc","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = (
    chunk(b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
    + chunk(b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":100}}\n\n')
    + chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


LIMITS = Quota(
    requests_per_minute=10**9,
    tokens_per_minute=10**12,
    in_flight=10**6,
    usd_per_day=10**6,
    models={NPC: Bounds(tokens_per_minute=10**12)},
)
SHARED_LIMITS = Quota(requests_per_minute=10**12, usd_per_month=10**6)
TURN = 50  # requests between two turns of the event loop


def request(secret: str, *, stream: bool) -> bytes:
    body = json.dumps(
        {"model": "npc", "messages": [{"role": "user", "content": "x" * 900}], "max_tokens": 100}
        | ({"stream": True} if stream else {}),
        separators=(",", ":"),
    ).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n%b"
        % (secret.encode(), len(body), body)
    )


class NoTransport:
    """A transport that counts what is written and sends it nowhere."""

    def __init__(self) -> None:
        self.written_bytes = 0

    def write(self, data: bytes) -> None:
        self.written_bytes += len(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.written_bytes += sum(map(len, pieces))

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class OneUpstream:
    """`gateway.ports.Backends` with a head made beforehand, as `backends.pools` does it."""

    def __init__(self, origin: HttpOrigin) -> None:
        self._origin = origin
        self._binding = PoolBinding(POOL, "npc-1.9m", VersionName("v"), Price(1.0, 2.0))
        self._head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

    def binding(self, pool: PoolName) -> PoolBinding:
        return self._binding

    def send(
        self, pool: PoolName, endpoint: EndpointUrl, path: bytes, extra_headers: bytes, body: bytes, receiver: Receiver
    ) -> Ticket:
        return self._origin.send(
            b"%b%bcontent-length: %d\r\n\r\n%b" % (self._head, extra_headers, len(body), body), receiver
        )


def not_found(exchange: Exchange) -> None:
    exchange.respond(404, b"", b"")


def entries(tenants: int, *, limited: bool) -> tuple[list[str], list[Entry]]:
    """Secrets, and what they stand for. Ten tenants are one organization."""
    secrets, found = list[str](), list[Entry]()
    for number in range(tenants):
        secret, digest = new_secret(SeededRng(number), SEAL)
        tenant, organization = TenantId(f"t{number}"), OrganizationId(f"o{number // 10}")
        owner = Owner(tenant, organization, LIMITS, SHARED_LIMITS) if limited else None
        principal = Principal(KeyId(f"k{number}"), tenant, None, Priority.REALTIME, organization, owner=owner)
        secrets.append(secret)
        found.append(Entry(digest, principal, None))
    return secrets, found


class OwnLedger:
    """A book in this process: its work counts, too. Budgets are seeded as soon as somebody asks of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._book = Book(LedgerTimes(), clock.monotonic())
        self.quotas: Quotas | None = None

    def send(self, report: Report) -> None:
        asyncio.get_running_loop().call_soon(self._answer, report)

    def _answer(self, report: Report) -> None:
        assert self.quotas is not None
        reply = self._book.report(report, self._clock.monotonic())
        for grant in reply.grants:
            if grant.unseeded:
                self._book.seed(Seed(grant.key, grant.period, 0), self._clock.monotonic())
        self.quotas.heard(reply)


class HotPath:
    def __init__(self, home: Path, known: list[Entry]) -> None:
        clock, rng = SystemClock(), SystemRng()
        keyring = Keys(SEAL, clock, asyncio.get_running_loop(), lambda _: None)
        keyring.take(LookedUp(tuple(known)))
        metrics = GatewayMetrics(Registry(), [NPC])
        observer = Observers([metrics, GatewayLog(logging.getLogger("bench"), rng)])
        self.spool = Spool(
            home / "spool",
            worker="w",
            timers=asyncio.get_running_loop(),
            settings=SpoolSettings(),
            closed=lambda name: (home / "spool" / name).unlink(),
        )
        origin = HttpOrigin(Destination(URL), ClientLimits())
        settlement = Settlement(self.spool, observer, clock)
        calendar, ledger = Calendar(clock.wall), OwnLedger(clock)
        gate = Gate("w", LedgerTimes(wait_s=60.0), calendar, clock.monotonic())
        quotas = ledger.quotas = Quotas(gate, calendar, clock, asyncio.get_running_loop(), ledger.send)
        quotas.configure({NPC: Price(1.0, 2.0)})
        quotas.start()
        driver = Driver(
            Controller(),
            OneUpstream(origin),
            settlement,
            quotas,
            observer,
            clock,
            asyncio.get_running_loop(),
            GatewaySettings(),
        )
        fleet = Fleet({POOL: PoolSpec(POOL, ClusterName("east"), (URL,), 4096)}, {NPC: ModelSpec(NPC, ((POOL,),))})
        driver.tell(Configured(fleet))
        pipeline = Pipeline(keyring, {"npc": NPC}, driver, settlement, quotas, observer, clock)
        other = Route(not_found, max_body_bytes=1 << 24)
        plane = DataPlane(
            pipeline, other, RequestIds(rng), rng, NoTracing(), observer, max_body_bytes=1 << 24, expose_pools=True
        )
        self.server = HttpServer(plane, ServerLimits())
        self.client = self.server.protocol()
        self.client_transport = NoTransport()
        self.client.connection_made(cast("asyncio.Transport", self.client_transport))
        self.upstream = ClientConnection(origin)
        self.upstream_transport = NoTransport()
        self.upstream.connection_made(cast("asyncio.Transport", self.upstream_transport))
        origin.released(self.upstream)

    async def _send(self, data: bytes) -> None:
        """Until the upstream has it: the first request of a tenant waits for its lease."""
        before = self.upstream_transport.written_bytes
        self.client.data_received(data)
        while self.upstream_transport.written_bytes == before:
            await asyncio.sleep(0)

    async def whole(self, data: bytes) -> None:
        await self._send(data)
        self.upstream.data_received(ANSWER)

    async def stream(self, data: bytes) -> None:
        await self._send(data)
        received = self.upstream.data_received
        received(STREAM_HEAD)
        for _ in range(EVENTS):
            received(EVENT)
        received(STREAM_END)


Act = Callable[[bytes], Awaitable[None]]


async def best_us(act: Act, data: Sequence[bytes], rounds: int, count: int, *, profile: bool) -> float:
    """CPU microseconds of one act, all of `data` in turn."""
    for one in data:
        await act(one)
    gc.collect()
    gc.freeze()
    profiler, best, at = cProfile.Profile(), float("inf"), 0
    if profile:
        profiler.enable()
    for _ in range(rounds):
        start = time.process_time()
        for number in range(count):
            await act(data[at])
            at = (at + 1) % len(data)
            if number % TURN == 0:
                await asyncio.sleep(0)
        best = min(best, (time.process_time() - start) / count)
        await asyncio.sleep(0)
    if profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
    return best * 1e6


async def measure(rounds: int, tenants: int, *, profile: bool) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind, count, limited in (("", 1, False), ("_of_many_tenants", tenants, False), ("_with_limits", tenants, True)):
        with tempfile.TemporaryDirectory() as folder:
            secrets, known = entries(count, limited=limited)
            path = HotPath(Path(folder), known)
            plain = [request(secret, stream=False) for secret in secrets]
            us = await best_us(path.whole, plain, rounds, max(5000, tenants), profile=profile and limited)
            figures[f"us_per_request{kind}"] = round(us, 2)
            if count == 1:
                us = await best_us(path.stream, [request(secrets[0], stream=True)], rounds, 100, profile=profile)
                figures["us_per_event"] = round(us / EVENTS, 2)
            if path.client_transport.written_bytes < 5000 * len(ANSWER_BODY):
                raise SystemExit("the answers did not arrive")
            path.spool.close()
            path.server.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--tenants", type=int, default=10_000)
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(measure(arguments.rounds, arguments.tenants, profile=arguments.profile))))


if __name__ == "__main__":
    main()
