"""The front with a played pipeline and played exchanges: who may enter, and how each answer ends."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from spillway.app.system import SystemClock, SystemRng
from spillway.engine.front import Front, Phase, Works
from spillway.engine.model_folder import ModelFolder, SamplingDefaults
from spillway.engine.pacing import Pace
from spillway.engine.prompt import Prompts
from spillway.engine.schemas import SchemaQueue
from spillway.engine.settings import EngineSettings
from spillway.engine.stepper import Stepper
from spillway.net.ports import BodySink, ExchangeListener, Headers, Rejection
from spillway.wire import engine_metrics, sse
from tests.engine.played import SPECIAL, TEMPLATE, BytesTokenizer, PlayedPipeline

CHAT = b"/v1/chat/completions"
WAIT_S = 10.0


class PlayedCompiler:
    def compiles(self, schema: str) -> bool:
        return "refused" not in schema


class PlayedExchange:
    """`net.ports.Exchange` that remembers what was answered."""

    def __init__(self, path: bytes, body: bytes) -> None:
        self.method = b"POST"
        self.path = path
        self.query = b""
        self.headers: Headers = []
        self.body = body
        self.peer = ""
        self.http10 = False
        self.received_at = 0.0
        self.listener: ExchangeListener | None = None
        self.sink: BodySink | None = None
        self.status = 0
        self.sent_headers = b""
        self.sent = b""
        self.writes = 0
        self.done = asyncio.Event()

    accepts_framed = False

    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...
    def write_framed(self, data: bytes) -> None: ...

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self.start(status, headers)
        self.sent = body
        self.done.set()

    def start(self, status: int, headers: bytes) -> None:
        assert not self.status
        self.status, self.sent_headers = status, headers

    def write(self, pieces: list[bytes]) -> None:
        assert self.status
        assert not self.done.is_set()
        self.sent += b"".join(pieces)
        self.writes += 1

    def finish(self) -> None:
        assert self.status
        self.done.set()

    def abort(self) -> None:
        self.done.set()

    @property
    def error_code(self) -> str | None:
        error = json.loads(self.sent)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error["code"]

    @property
    def text(self) -> str:
        """Of a stream."""
        chunks = [json.loads(data) for data in sse.events(self.sent) if data != sse.DONE_DATA]
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk.get("choices"))


class Bench:
    def __init__(self, pipeline: PlayedPipeline, settings: EngineSettings, context_tokens: int) -> None:
        self.pipeline = pipeline
        tokenizer = BytesTokenizer()
        folder = ModelFolder("", context_tokens, 300, 2, tuple(SPECIAL), TEMPLATE, SamplingDefaults())
        loop = asyncio.get_running_loop()
        self.front = Front(settings, folder, SystemClock(), SystemRng())
        self.ready = asyncio.Event()
        self.stepper = Stepper(
            lambda: pipeline, tokenizer, loop, SystemClock(), max_sequences=settings.max_sequences, pace=Pace(0, 0),
            on_ready=self.ready.set, on_dead=lambda error: None,
        )  # fmt: skip
        self.schemas = SchemaQueue(PlayedCompiler, loop)
        prompts = Prompts(tokenizer, tuple(SPECIAL), TEMPLATE)
        self._works = Works(self.stepper, prompts, self.schemas, longest_prompt_bytes=context_tokens)

    async def open(self) -> None:
        self.stepper.start()
        await self.ready.wait()
        self.front.ready(self._works)

    def send(self, path: bytes = CHAT, method: bytes = b"POST", **fields: object) -> PlayedExchange:
        body = {"model": "npc", "messages": [{"role": "user", "content": "hi"}], **fields}
        return self.send_body(json.dumps(body).encode(), path, method)

    def send_body(self, body: bytes, path: bytes = CHAT, method: bytes = b"POST") -> PlayedExchange:
        exchange = PlayedExchange(path, body)
        self.front.route(method, path).handle(exchange)
        return exchange

    def load(self) -> engine_metrics.EngineLoad:
        return engine_metrics.read(self.send(b"/metrics", b"GET").sent)


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    pipeline: PlayedPipeline | None = None,
    *,
    opened: bool = True,
    context_tokens: int = 200,
    max_sequences: int = 8,
    max_waiting: int = 8,
) -> None:
    async def run() -> None:
        settings = EngineSettings(model="", name="npc", max_sequences=max_sequences, max_waiting=max_waiting)
        bench = Bench(pipeline or PlayedPipeline(), settings, context_tokens)
        if opened:
            await bench.open()
        try:
            async with asyncio.timeout(WAIT_S):
                await test(bench)
        finally:
            bench.pipeline.gate.set()
            bench.schemas.close()
            if opened:
                assert bench.stepper.stop(5.0)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_a_whole_answer() -> None:
    async def test(bench: Bench) -> None:
        exchange = bench.send()
        await exchange.done.wait()
        body = json.loads(exchange.sent)
        assert exchange.status == 200
        assert body["choices"][0]["message"]["content"] == "Hello there."
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["usage"]["completion_tokens"] == 13

    on_bench(test)


def test_a_streamed_answer() -> None:
    async def test(bench: Bench) -> None:
        exchange = bench.send(stream=True)
        await exchange.done.wait()
        assert (exchange.status, exchange.text) == (200, "Hello there.")
        assert exchange.sent.endswith(sse.DONE)
        assert exchange.sent.count(b'"role":"assistant"') == 1

    on_bench(test)


def test_before_it_is_ready_and_while_it_drains() -> None:
    async def test(bench: Bench) -> None:
        for phase in (Phase.STARTING, Phase.DRAINING):
            refused = bench.send()
            assert (refused.status, refused.error_code) == (503, phase.value)
            assert b"retry-after" in refused.sent_headers
            health = bench.send(b"/health", b"GET")
            assert (health.status, json.loads(health.sent)) == (503, {"status": phase.value})
            assert await bench.front.drained(1.0)

    on_bench(test, opened=False)


def test_draining_waits_for_what_is_open() -> None:
    async def test(bench: Bench) -> None:
        bench.pipeline.gate.clear()
        running = bench.send()
        assert not await bench.front.drained(0.02)
        bench.pipeline.gate.set()
        assert await bench.front.drained(WAIT_S)
        assert running.status == 200

    on_bench(test)


def test_over_the_bound_it_is_429_and_below_it_again_200() -> None:
    async def test(bench: Bench) -> None:
        bench.pipeline.gate.clear()
        inside = [bench.send() for _ in range(5)]
        outside = bench.send()
        assert (outside.status, outside.error_code) == (429, "engine_full")
        assert b"retry-after-ms" in outside.sent_headers
        load = bench.load()
        assert (load.running or 0) + (load.waiting or 0) == 5
        bench.pipeline.gate.set()
        for exchange in inside:
            await exchange.done.wait()
            assert exchange.status == 200
        again = bench.send()
        await again.done.wait()
        assert again.status == 200
        assert bench.pipeline.widest <= 2

    on_bench(test, max_sequences=2, max_waiting=3)


def test_a_client_that_leaves_gives_its_place_to_the_next() -> None:
    async def test(bench: Bench) -> None:
        leaving = bench.send(stream=True)
        await until(lambda: leaving.status == 200)
        assert leaving.listener is not None
        leaving.listener.client_left()
        writes = leaving.writes
        following = bench.send(max_tokens=3)
        await following.done.wait()
        assert following.status == 200
        assert leaving.writes == writes
        assert bench.load().running == 0

    on_bench(test, PlayedPipeline("x" * 1_000_000), context_tokens=1_000_000, max_sequences=1)


def test_a_client_that_takes_nothing_gets_one_large_event_later() -> None:
    async def test(bench: Bench) -> None:
        bench.pipeline.gate.clear()
        exchange = bench.send(stream=True, max_tokens=150)
        assert exchange.listener is not None
        exchange.listener.client_slow()
        bench.pipeline.gate.set()
        await until(lambda: bench.stepper.counters.output_tokens == 150)
        await until(lambda: bench.stepper.counters.running == 0)
        await asyncio.sleep(0.01)  # what the stepper still tells is taken, and kept
        assert exchange.writes == 0
        exchange.listener.client_ready()
        await exchange.done.wait()
        assert exchange.text == "x" * 150
        assert exchange.sent.endswith(sse.DONE)

    on_bench(test, PlayedPipeline("x" * 1000))


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_before_the_first_token_is_a_500(stream: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.pipeline.schemas.append("broken")
        exchange = bench.send(stream=stream)
        await exchange.done.wait()
        assert (exchange.status, exchange.error_code) == (500, "engine_failed")
        bench.pipeline.schemas.clear()
        after = bench.send()
        await after.done.wait()
        assert after.status == 200

    on_bench(test)


def test_a_failure_in_the_middle_says_so_and_has_no_done() -> None:
    async def test(bench: Bench) -> None:
        exchange = bench.send(stream=True)
        await until(lambda: exchange.status == 200)
        bench.pipeline.schemas.append("broken")
        await exchange.done.wait()
        last = list(sse.events(exchange.sent))[-1]
        assert json.loads(last)["error"]["code"] == "engine_failed"
        assert sse.DONE not in exchange.sent
        bench.pipeline.schemas.clear()

    on_bench(test, PlayedPipeline("x" * 1_000_000), context_tokens=1_000_000)


def test_the_context_is_the_bound() -> None:
    async def test(bench: Bench) -> None:
        prompt_tokens = len("user:hi") + 3
        exact = bench.send(max_tokens=200 - prompt_tokens)
        await exact.done.wait()
        assert json.loads(exact.sent)["usage"]["total_tokens"] == 200
        for over in (
            bench.send(max_tokens=201 - prompt_tokens),
            bench.send(messages=[{"role": "user", "content": "x" * 200}]),
            bench.send(messages=[{"role": "user", "content": "x" * 201}]),
        ):
            assert (over.status, over.error_code) == (400, "context_length_exceeded")
        clamped = bench.send()
        await clamped.done.wait()
        assert json.loads(clamped.sent)["choices"][0]["finish_reason"] == "length"

    on_bench(test, PlayedPipeline("x" * 1000))


def test_schemas_are_looked_at_before_the_batch() -> None:
    def wanted(title: str) -> dict[str, object]:
        return {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": title, "type": "object"}}}

    async def test(bench: Bench) -> None:
        refused = bench.send(response_format=wanted("refused"))
        await refused.done.wait()
        assert (refused.status, refused.error_code) == (400, "invalid_schema")
        leaving = bench.send(response_format=wanted("left"))
        assert leaving.listener is not None
        leaving.listener.client_left()
        fine = bench.send(response_format=wanted("fine"))
        await fine.done.wait()
        assert fine.status == 200
        assert [json.loads(schema)["title"] for schema in bench.pipeline.schemas if schema] == ["fine"]
        assert await bench.front.drained(WAIT_S)

    on_bench(test)


def test_other_paths_methods_models_and_bodies() -> None:
    async def test(bench: Bench) -> None:
        assert bench.send(b"/v1/embeddings").error_code == "unsupported_endpoint"
        assert bench.send(CHAT, b"GET").status == 405
        assert bench.send(model="other").error_code == "model_not_found"
        assert bench.send(tools=[{}]).error_code == "unsupported_value"
        assert bench.send_body(b"{").error_code == "invalid_json"
        assert bench.send_body(b'{"model":"npc","prompt":""}', b"/v1/completions").status == 400
        assert json.loads(bench.send(b"/v1/models", b"GET").sent)["data"][0]["id"] == "npc"
        assert json.loads(bench.send(b"/v1/models/npc", b"GET").sent)["id"] == "npc"
        assert bench.send(b"/v1/models/other", b"GET").status == 404

    on_bench(test)


@pytest.mark.parametrize("reason", list(Rejection))
def test_what_the_server_refuses_itself_has_the_same_body(reason: Rejection) -> None:
    async def test(bench: Bench) -> None:
        status, headers, body = bench.front.rejection(reason)
        assert 400 <= status <= 599
        assert headers.endswith(b"\r\n")
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}

    on_bench(test, opened=False)
