"""The upstream on the wire: an engine that official clients accept, faults byte by byte, and a log that tells the truth."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import openai
import pytest
import uvloop

from spillway.testing.faults import FaultKind
from spillway.testing.seen import Ending
from spillway.testing.spec import LatencyLine, UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from spillway.testing.waiting import eventually

pytestmark = pytest.mark.server

Scenario = Callable[[UpstreamDouble], Awaitable[None]]


def play(scenario: Scenario, spec: UpstreamSpec | None = None, *, log_path: Path | None = None) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), UpstreamDouble(spec, log_path=log_path) as upstream:
            await scenario(upstream)

    uvloop.run(run())


def request_bytes(fault: str = "", *, close: bool = True, **fields: object) -> bytes:
    """A chat completion. `fault` goes into the header; `close` ends the connection after the answer."""
    return body_bytes(fields, fault=fault, close=close)


def body_bytes(fields: dict[str, object], *, fault: str = "", close: bool = True) -> bytes:
    document = {"model": "fake", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 6, **fields}
    body = json.dumps(document).encode()
    extra = f"x-upstream-fault: {fault}\r\n" if fault else ""
    extra += "connection: close\r\n" if close else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r1\r\n{extra}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def ask(upstream: UpstreamDouble, request: bytes) -> bytes:
    """Everything that comes until the upstream closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    try:
        writer.write(request)
        return await reader.read(-1)
    finally:
        writer.close()


async def control(upstream: UpstreamDouble, document: object) -> bytes:
    body = json.dumps(document).encode()
    head = b"POST /control HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
    return await ask(upstream, head + body)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()


def test_official_client_chat_completions_embeddings_models() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        async with openai.AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="any", max_retries=0) as client:
            reply = await client.chat.completions.create(
                model="npc", max_tokens=5, messages=[{"role": "user", "content": "one two three"}]
            )
            assert reply.usage is not None
            assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 5)
            text = reply.choices[0].message.content or ""
            assert len(text.split()) == 5
            assert reply.choices[0].finish_reason == "length"

            stream = await client.chat.completions.create(
                model="npc", max_tokens=5, messages=[{"role": "user", "content": "one two three"}], stream=True,
                stream_options={"include_usage": True},
            )  # fmt: skip
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
            assert chunks[0].choices[0].delta.role == "assistant"
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.completion_tokens == 5

            whole = await client.completions.create(
                model="npc", prompt="one two", extra_body={"ignore_eos": True}, max_tokens=70
            )
            assert len(whole.choices[0].text.split()) == 70
            natural = await client.completions.create(model="npc", prompt="one two", max_tokens=70)
            assert (len(natural.choices[0].text.split()), natural.choices[0].finish_reason) == (32, "stop")

            vectors = await client.embeddings.create(model="npc", input=["one two", "three", "three"])
            assert [len(entry.embedding) for entry in vectors.data] == [384] * 3
            assert vectors.data[1].embedding == vectors.data[2].embedding != vectors.data[0].embedding
            assert vectors.usage.prompt_tokens == 4
            plain = await client.embeddings.create(model="npc", input="three", encoding_format="float", dimensions=8)
            assert sum(value * value for value in plain.data[0].embedding) == pytest.approx(1.0)

            assert [model.id async for model in client.models.list()] == ["npc", "other"]
        await upstream.quiet()
        assert set(upstream.log.endings) == {Ending.FINISHED}

    play(scenario, UpstreamSpec(models=("npc", "other")))


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "unknown"}, 404, "model_not_found"),
        ({"max_tokens": 100}, 400, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "w " * 64}], "max_tokens": None}, 400, "context_length_exceeded"),
        ({"max_tokens": 0}, 400, None),
        ({"model": 7}, 400, None),
    ],
)
def test_requests_that_the_engine_itself_refuses(fields: dict[str, object], status: int, code: str | None) -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        answer = await ask(upstream, body_bytes(fields))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == code
        assert upstream.log.endings == {Ending.REFUSED: 1}

    play(scenario, UpstreamSpec(max_model_len=64))


ERRORS = {
    FaultKind.RATE_LIMITED: 429, FaultKind.SERVER_ERROR: 500, FaultKind.BAD_GATEWAY: 502, FaultKind.UNAVAILABLE: 503,
    FaultKind.BAD_KEY: 401, FaultKind.MODEL_NOT_FOUND: 404, FaultKind.CONTEXT_LENGTH_EXCEEDED: 400,
    FaultKind.CONTENT_FILTER: 400, FaultKind.REJECT_SHAPE: 400,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "status"), ERRORS.items())
def test_error_answers(kind: FaultKind, status: int) -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        answer = await ask(upstream, request_bytes(f"{kind}:retry_after_s=2"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"retry-after: 2" in head
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
        assert [(seen.status, seen.fault, seen.ending) for seen in upstream.log.requests] == [
            (status, kind.value, Ending.FAULTED)
        ]

    play(scenario)


STREAMS: dict[str, tuple[bool, bool, int, Ending]] = {
    # fault: (ends as HTTP says, has [DONE], words, ending)
    "": (True, True, 6, Ending.FINISHED),
    "cut:3": (False, False, 3, Ending.FAULTED),
    "cut:0": (False, False, 0, Ending.FAULTED),
    "cut:99": (False, False, 6, Ending.FAULTED),
    "bad_framing:3": (False, False, 3, Ending.FAULTED),
    "close_after_head": (False, False, 0, Ending.FAULTED),
    "error_event:3": (True, False, 3, Ending.FAULTED),
    "filtered_mid_stream:3": (True, True, 3, Ending.FINISHED),
    "malformed_chunk:3": (True, True, 6, Ending.FINISHED),
    "comments": (True, True, 6, Ending.FINISHED),
    "no_done": (True, False, 6, Ending.FINISHED),
    "no_usage": (True, True, 6, Ending.FINISHED),
    "garbage_after": (False, True, 6, Ending.FINISHED),
    "slow_first_token:0.05": (True, True, 6, Ending.FINISHED),
    "stall:3,delay_s=0.05": (True, True, 6, Ending.FINISHED),
}


@pytest.mark.parametrize("fault", STREAMS)
def test_faults_in_streams(fault: str) -> None:
    whole, done, words, ending = STREAMS[fault]

    async def scenario(upstream: UpstreamDouble) -> None:
        answer = await ask(upstream, request_bytes(fault, stream=True, stream_options={"include_usage": True}))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n0\r\n\r\n") is whole
        assert (b"data: [DONE]\n\n" in answer) is done
        assert answer.count(b'"delta":{"content":') == words
        assert (b'"usage":' in answer) is (ending is Ending.FINISHED and fault != "no_usage")
        assert (b'"finish_reason":"content_filter"' in answer) is fault.startswith("filtered")
        assert (b'"error":' in answer) is fault.startswith("error_event")
        assert (b"\n\n: " in answer) is (fault == "comments")
        await upstream.quiet()
        (seen,) = upstream.log.requests
        assert (seen.sent_tokens, seen.ending, seen.fault) == (words, ending, fault.partition(":")[0] or None)

    play(scenario)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["reset", "reset_mid_stream:2"])
def test_resets(fault: str, stream: bool) -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        with pytest.raises(ConnectionResetError):
            await ask(upstream, request_bytes(fault, stream=stream))
        await upstream.quiet()
        assert upstream.log.endings == {Ending.FAULTED: 1}

    play(scenario)


@pytest.mark.parametrize(
    "fault", ["cut", "stall:2,delay_s=0.05", "malformed_chunk", "bad_framing", "error_event", "garbage_after"]
)
def test_faults_in_whole_replies(fault: str) -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        answer = await ask(upstream, request_bytes(fault))
        head, _, body = answer.partition(b"\r\n\r\n")
        announced = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")), None)
        match fault:
            case "cut":
                assert announced is not None
                assert 0 < len(body) < announced
            case "malformed_chunk":
                assert len(body) == announced
                with pytest.raises(json.JSONDecodeError):
                    json.loads(body)
            case "bad_framing":
                assert body.startswith(b"zz\r\n")
            case "error_event":
                assert head.startswith(b"HTTP/1.1 500 ")
            case "garbage_after":
                assert announced is not None
                assert len(body) > announced
            case _:
                assert json.loads(body)["usage"]["completion_tokens"] == 6

    play(scenario)


def test_no_http_and_a_huge_header() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        assert (await ask(upstream, request_bytes("malformed_http"))).startswith(b"HTTP/9 ")
        answer = await ask(upstream, request_bytes("huge_header:100000"))
        assert len(answer.partition(b"\r\n\r\n")[0]) > 100_000

    play(scenario)


@pytest.mark.parametrize("fault", ["no_response", "stall:2", "slow_first_token", "500:delay_s=30", ""])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_noticed_and_its_generation_stops(fault: str, stream: bool) -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(request_bytes(fault, stream=stream, max_tokens=1000, ignore_eos=True))
        await eventually(lambda: upstream.log.open)
        if stream and fault in ("", "stall:2"):
            await reader.readuntil(b"\n\n")
        writer.close()
        await upstream.quiet()
        (seen,) = upstream.log.requests
        assert seen.ending is Ending.LEFT
        assert seen.generated_tokens < 1000
        assert upstream.engine.sequences.running == 0

    play(scenario, UpstreamSpec(inter_token_latency_s=0.01))


def test_faults_from_the_user_field_and_bad_ones() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        assert (await ask(upstream, request_bytes(user="fault:503"))).startswith(b"HTTP/1.1 503 ")
        assert (await ask(upstream, request_bytes(user='fault:{"kind":"429"}'))).startswith(b"HTTP/1.1 429 ")
        assert (await ask(upstream, request_bytes(user="player-7"))).startswith(b"HTTP/1.1 200 ")
        assert b"sunspots" in await ask(upstream, request_bytes("sunspots"))
        assert upstream.log.repeated() == ["r1"]

    play(scenario)


def test_kept_connections_serve_one_request_after_another() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        answer = await ask(upstream, request_bytes(close=False) * 20 + request_bytes())
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == 21
        assert upstream.log.endings == {Ending.FINISHED: 21}
        await eventually(lambda: upstream.connections == 0)

    play(scenario)


def test_refused_connections_and_the_same_port_again() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        port = upstream.port
        upstream.refuse_connections()
        with pytest.raises(ConnectionRefusedError):
            await ask(upstream, request_bytes())
        await upstream.accept_connections()
        assert upstream.port == port
        assert (await ask(upstream, request_bytes())).startswith(b"HTTP/1.1 200 ")

    play(scenario)


def test_health_metrics_and_a_full_engine() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        assert (await ask(upstream, get("/health"))).startswith(b"HTTP/1.1 200 ")
        assert (await ask(upstream, get("/nowhere"))).startswith(b"HTTP/1.1 404 ")
        busy = [asyncio.create_task(ask(upstream, request_bytes(stream=True))) for _ in range(3)]
        await eventually(lambda: upstream.engine.sequences.waiting == 1)
        metrics = (await ask(upstream, get("/metrics"))).decode()
        assert 'vllm:num_requests_running{model_name="fake"} 2\n' in metrics
        assert 'vllm:num_requests_waiting{model_name="fake"} 1\n' in metrics
        assert 'vllm:kv_cache_usage_perc{model_name="fake"} 0.2\n' in metrics
        assert (await ask(upstream, request_bytes())).startswith(b"HTTP/1.1 429 ")
        await asyncio.gather(*busy)
        metrics = (await ask(upstream, get("/metrics"))).decode()
        assert 'vllm:generation_tokens_total{model_name="fake"} 18\n' in metrics
        assert 'vllm:prompt_tokens_total{model_name="fake"} 9\n' in metrics
        assert 'vllm:time_to_first_token_seconds_count{model_name="fake"} 3\n' in metrics
        upstream.misbehave("503:path=/health", "reset:path=/metrics")
        assert (await ask(upstream, get("/health"))).startswith(b"HTTP/1.1 503 ")
        with pytest.raises(ConnectionResetError):
            await ask(upstream, get("/metrics"))
        assert (await ask(upstream, request_bytes())).startswith(b"HTTP/1.1 200 ")

    spec = UpstreamSpec(time_to_first_token_s=0.2, max_num_seqs=2, max_waiting_queue_length=1, kv_cache_size=10)
    play(scenario, spec)


def test_control_changes_the_script_and_the_speed() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        answer = await control(
            upstream, {"faults": ["503:count=1"], "spec": {"models": ["fake", "b"], "output_tokens": 3}}
        )
        state = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (state["spec"]["output_tokens"], state["faults"][0]["rule"]["kind"]) == (3, "503")
        assert (await ask(upstream, request_bytes())).startswith(b"HTTP/1.1 503 ")
        reply = (await ask(upstream, request_bytes(model="b"))).partition(b"\r\n\r\n")[2]
        assert json.loads(reply)["usage"]["completion_tokens"] == 3
        for wrong in ({"faults": ["sunspots"]}, {"spec": {"speed": 1}}, {"spec": {"max_num_seqs": 0}}, {"what": 1}, []):
            assert (await control(upstream, wrong)).startswith(b"HTTP/1.1 400 ")
        log = json.loads((await ask(upstream, get("/control/log?since=1"))).partition(b"\r\n\r\n")[2])
        assert [(entry["number"], entry["model"], entry["ending"]) for entry in log] == [(2, "b", "finished")]
        assert (await control(upstream, {"faults": [], "forget": True})).startswith(b"HTTP/1.1 200 ")
        assert upstream.log.requests == []

    play(scenario)


def test_the_log_file_tells_of_every_request_and_of_no_words(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    async def scenario(upstream: UpstreamDouble) -> None:
        canary = [{"role": "user", "content": "canary-7731"}]
        await ask(upstream, request_bytes(messages=canary))
        await ask(upstream, request_bytes("no_done", messages=canary, stream=True))
        assert b"canary-7731" in upstream.log.requests[0].body
        assert upstream.log.requests[0].header("Host") == "x"

    play(scenario, log_path=path)
    text = path.read_text()
    assert "canary-7731" not in text
    lines = [msgspec.json.decode(line, type=dict[str, object]) for line in text.splitlines()]
    assert [(line["event"], line["number"]) for line in lines] == [
        ("arrived", 1),
        ("over", 1),
        ("arrived", 2),
        ("over", 2),
    ]
    assert lines[-1]["fault"] == "no_done"


def test_only_the_newest_requests_are_kept_whole() -> None:
    async def scenario(upstream: UpstreamDouble) -> None:
        for number in range(5):
            await ask(upstream, request_bytes(user=f"player-{number}"))
        assert [b"player" in seen.body for seen in upstream.log.requests] == [False, False, False, True, True]
        assert [seen.request_id for seen in upstream.log.requests] == ["r1"] * 5

    play(scenario, UpstreamSpec(kept_requests=2))


def test_stopping_ends_what_is_open() -> None:
    async def run() -> None:
        upstream = await UpstreamDouble(UpstreamSpec(time_to_first_token_s=30.0)).start()
        asking = asyncio.create_task(ask(upstream, request_bytes()))
        await eventually(lambda: upstream.log.open)
        await upstream.stop()
        (answer,) = await asyncio.gather(asking, return_exceptions=True)
        assert answer == b"" or isinstance(answer, ConnectionResetError)
        assert sum(upstream.log.endings.values()) == 1

    asyncio.run(run())


def test_a_latency_line_in_real_time() -> None:
    """The line is the truth that a calibration must find, on the wire too: never earlier, and later only as far as the machine is busy."""

    async def scenario(upstream: UpstreamDouble) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        await asyncio.gather(*(ask(upstream, request_bytes(max_tokens=20)) for _ in range(10)))
        assert 0.19 <= loop.time() - begun_s <= 2.0

    line = LatencyLine(0.1, 0.01, input_tokens=3, output_tokens=20)
    play(scenario, UpstreamSpec(latency_line=line))
