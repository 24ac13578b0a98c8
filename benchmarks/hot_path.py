"""What our own code costs a request, without the kernel: the whole path between two transports that do nothing.

    .venv/bin/python benchmarks/hot_path.py [--rounds 7] [--profile]

One client connection sends 1 KB requests, one upstream connection answers 600 bytes; or 100 events of a stream. Everything in
between is real: parser, data plane, pipeline, brain, relay, settlement, metrics, spool (its file too). CPU microseconds per
request and per event, best of the rounds. Prints one line of JSON.
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
from pathlib import Path
from typing import cast

import uvloop

from spillway.api.data_plane import DataPlane
from spillway.app.system import SystemClock, SystemRng
from spillway.core.ids import ClusterName, EndpointUrl, KeyId, ModelName, PoolName, RequestIds, TenantId, VersionName
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.gateway.driver import Driver
from spillway.gateway.pipeline import Pipeline
from spillway.gateway.ports import PoolBinding, Principal
from spillway.gateway.settings import GatewaySettings
from spillway.gateway.settle import Settlement
from spillway.net.client_connection import ClientConnection
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.ports import Exchange, Receiver, Route, Ticket
from spillway.net.server import HttpServer
from spillway.net.settings import ClientLimits, ServerLimits
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
SECRET, DIGEST = new_secret(SeededRng(1), SEAL)
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


def request(*, stream: bool) -> bytes:
    body = json.dumps(
        {"model": "npc", "messages": [{"role": "user", "content": "x" * 900}], "max_tokens": 100}
        | ({"stream": True} if stream else {}),
        separators=(",", ":"),
    ).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Length: %d\r\n\r\n%b"
        % (SECRET.encode(), len(body), body)
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


class HotPath:
    def __init__(self, home: Path) -> None:
        clock, rng = SystemClock(), SystemRng()
        keyring = Keys(SEAL, clock, asyncio.get_running_loop(), lambda _: None)
        principal = Principal(KeyId("k"), TenantId("t"), None, Priority.REALTIME)
        keyring.take(LookedUp((Entry(DIGEST, principal, None),)))
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
        driver = Driver(
            Controller(),
            OneUpstream(origin),
            settlement,
            observer,
            clock,
            asyncio.get_running_loop(),
            GatewaySettings(),
        )
        fleet = Fleet({POOL: PoolSpec(POOL, ClusterName("east"), (URL,), 4096)}, {NPC: ModelSpec(NPC, ((POOL,),))})
        driver.tell(Configured(fleet))
        pipeline = Pipeline(keyring, {"npc": NPC}, driver, settlement, observer, clock)
        other = Route(not_found, max_body_bytes=1 << 24)
        plane = DataPlane(
            pipeline, other, RequestIds(rng), rng, NoTracing(), observer, max_body_bytes=1 << 24, expose_pools=True
        )
        self.server = HttpServer(plane, ServerLimits())
        self.client = self.server.protocol()
        self.client_transport = NoTransport()
        self.client.connection_made(cast("asyncio.Transport", self.client_transport))
        self.upstream = ClientConnection(origin)
        self.upstream.connection_made(cast("asyncio.Transport", NoTransport()))
        origin.released(self.upstream)

    def whole(self, data: bytes) -> None:
        self.client.data_received(data)
        self.upstream.data_received(ANSWER)

    def stream(self, data: bytes) -> None:
        self.client.data_received(data)
        received = self.upstream.data_received
        received(STREAM_HEAD)
        for _ in range(EVENTS):
            received(EVENT)
        received(STREAM_END)


async def measure(rounds: int, *, profile: bool) -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = HotPath(Path(folder))
        plain, streamed = request(stream=False), request(stream=True)
        for name, act, data, count, divisor in (
            ("us_per_request", path.whole, plain, 5000, 1),
            ("us_per_event", path.stream, streamed, 100, EVENTS),
        ):
            act(data)
            gc.collect()
            gc.freeze()
            best = float("inf")
            profiler = cProfile.Profile()
            if profile:
                profiler.enable()
            for _ in range(rounds):
                start = time.process_time()
                for _ in range(count):
                    act(data)
                best = min(best, (time.process_time() - start) / count / divisor)
                await asyncio.sleep(0)
            if profile:
                profiler.disable()
                pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
            figures[name] = round(best * 1e6, 2)
        if path.client_transport.written_bytes < 5000 * len(ANSWER_BODY):
            raise SystemExit("the answers did not arrive")
        path.spool.close()
        path.server.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(uvloop.run(measure(arguments.rounds, profile=arguments.profile))))


if __name__ == "__main__":
    main()
