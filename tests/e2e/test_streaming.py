"""Answers on their way: held until they are sure, passed on as they come, cut visibly, paused for slow readers, cancelled for none."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spillway.testing.processes import descendants
from spillway.testing.seen import Ending
from spillway.testing.spec import UpstreamSpec
from spillway.testing.waiting import eventually
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, live, running
from tests.e2e.talking import Answer, request

pytestmark = pytest.mark.server

TIMEOUTS = {
    "first_content_s": 0.6,
    "between_chunks_s": 0.5,
    "whole_s": 0.8,
    "sweep_s": 0.05,
    "max_held_bytes": 8192,
}
STEADY = UpstreamSpec(inter_token_latency_s=0.02, output_tokens=1000)
SHORT = UpstreamSpec(output_tokens=8)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({"timeouts": TIMEOUTS}) as started:
        yield started


def error_in_band(answer: Answer) -> str:
    """The code of the error that ends a stream."""
    error = json.loads(answer.events[-1])["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error["code"]


@live
async def test_a_stream_says_what_the_whole_answer_says(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", SHORT)) as fleet:
        whole, stream = await fleet.ask(), await fleet.ask(stream=True)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.text == whole.json["choices"][0]["message"]["content"]
        assert stream.events[-1] == "[DONE]"
        assert not stream.cut


@pytest.mark.parametrize(
    "fault",
    ["error_event:0", "cut:0", "reset_mid_stream:0", "bad_framing:0", "stall:0", "close_after_head", "slow_first_token:5", "no_response"],
)  # fmt: skip
@live
async def test_nothing_is_sent_before_the_first_content(gateway: Gateway, fault: str) -> None:
    """So an upstream that fails before it, even behind a 200 and a role, is replaced and the client sees one clean stream."""
    async with gateway.fleet(Site("east", SHORT, rules=(fault,)), Site("west", SHORT)) as fleet:
        answer = await fleet.ask(stream=True)
        assert answer.status == 200
        assert (answer.headers["x-spillway-attempts"], answer.headers["x-spillway-spill"]) == ("2", "failed")
        assert answer.body.count(b'"role"') == 1
        assert answer.body.count(b"[DONE]") == 1
        assert len(answer.text.split()) == 8
        await fleet["east"].quiet(deadline_s=1.0)


@pytest.mark.parametrize("fault", ["cut:3", "reset_mid_stream:3", "bad_framing:3", "error_event:3", "stall:3"])
@live
async def test_a_broken_stream_is_never_sold_as_a_whole_one(gateway: Gateway, fault: str) -> None:
    slow = UpstreamSpec(inter_token_latency_s=0.1, output_tokens=1000)
    async with gateway.fleet(Site("east", slow, rules=(fault,)), Site("west")) as fleet:
        answer = await fleet.ask(stream=True, max_tokens=50, stream_options={"include_usage": True})
        assert (answer.status, answer.cut) == (200, True)
        assert b"[DONE]" not in answer.body
        assert error_in_band(answer) == "stream_cut"
        may_lose_the_last = fault.startswith(("reset", "bad_framing"))  # what broken bytes came with is not trusted
        words = len(answer.text.split())
        assert words == 3 or (may_lose_the_last and words > 0)
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["outcome"], record["completion_tokens"]) == ("cut", words)


@pytest.mark.parametrize("fault", ["no_done", "comments", "malformed_chunk:3", "garbage_after", "no_usage"])
@live
async def test_what_upstreams_get_wrong_without_harm_is_tolerated(gateway: Gateway, fault: str) -> None:
    async with gateway.fleet(Site("east", SHORT, rules=(fault,))) as fleet:
        async with fleet.talk() as talk:
            talk.send(fleet.request(stream=True))
            answer = await talk.answer()
            assert (answer.status, answer.cut, answer.events[-1]) == (200, False, "[DONE]")
            assert answer.body.count(b"[DONE]") == 1
            assert len(answer.text.split()) == 8
            fleet["east"].behave()
            talk.send(fleet.request())
            assert (await talk.answer()).status == 200
        record = await gateway.record(answer.headers["x-request-id"])
        assert record["outcome"] == "ok"
        assert record["completion_tokens"] == pytest.approx(8, abs=1)
        assert record["estimated"] is (fault == "no_usage")


@live
async def test_a_whole_answer_that_is_no_json_is_replaced(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", rules=("malformed_chunk",)), Site("west")) as fleet:
        answer = await fleet.ask()
        assert (answer.status, answer.headers["x-spillway-spill"]) == (200, "failed")
        assert answer.json["choices"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@live
async def test_usage_is_there_for_who_asked_and_counted_for_all(gateway: Gateway, path: str) -> None:
    async with gateway.fleet(Site("east", SHORT)) as fleet:

        async def stream(**options: object) -> Answer:
            body = {"model": fleet.model, "stream": True, "prompt": "a b c", "messages": [], **options}
            del body["messages" if path == "/v1/completions" else "prompt"]
            async with fleet.talk() as talk:
                talk.send(request(body, key=KEY, path=path))
                return await talk.answer()

        asked = await stream(stream_options={"include_usage": True})
        usage = [json.loads(event) for event in asked.events[:-1] if json.loads(event).get("usage")]
        assert [(chunk["choices"], chunk["usage"]["completion_tokens"]) for chunk in usage] == [([], 8)]
        for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
            plain = await stream(**options)
            assert plain.events[-1] == "[DONE]"
            assert not any(json.loads(event).get("usage") for event in plain.events[:-1])
            assert all(json.loads(event)["choices"] for event in plain.events[:-1])
            record = await gateway.record(plain.headers["x-request-id"])
            assert (record["completion_tokens"], record["streamed"], record["estimated"]) == (8, True, False)
            assert record["ttft_s"] > 0
            assert record["tpot_s"] is not None


async def leave(fleet: Fleet, *, stream: bool, after: bytes = b"", politely: bool = False) -> float:
    """Sends a request, leaves when the upstream has it (or `after` was read), and gives the seconds until the upstream knows."""
    loop = asyncio.get_running_loop()
    east = fleet["east"]
    before = east.log.arrived
    async with fleet.talk() as talk:
        talk.send(fleet.request(stream=stream))
        await fleet.arrived("east", before + 1)
        if after:
            await talk.head()
            await talk.until(after)
        left_at = loop.time()
        if politely:
            talk.writer.write_eof()
        else:
            talk.leave()
        await east.quiet(deadline_s=5.0)
        seen = east.log.requests[-1]
        assert seen.ending is Ending.LEFT
        assert seen.ended_s is not None
        return seen.ended_s - left_at


LEAVING: dict[str, Callable[[Fleet], "asyncio.Future[float]"]] = {
    "a stream": lambda fleet: asyncio.ensure_future(leave(fleet, stream=True, after=b'"content":"')),
    "a stream, by FIN": lambda fleet: asyncio.ensure_future(
        leave(fleet, stream=True, after=b'"content":"', politely=True)
    ),
    "a whole answer": lambda fleet: asyncio.ensure_future(leave(fleet, stream=False)),
    "a whole answer, by FIN": lambda fleet: asyncio.ensure_future(leave(fleet, stream=False, politely=True)),
}


@pytest.mark.parametrize("way", LEAVING)
@live
async def test_a_client_that_leaves_takes_its_request_along(gateway: Gateway, way: str) -> None:
    async with gateway.fleet(Site("east", STEADY)) as fleet:
        assert min([await LEAVING[way](fleet) for _ in range(3)]) < 0.1
        await fleet.shows("east", "in_flight", 0)


@pytest.mark.parametrize("stream", [False, True])
@live
async def test_so_does_one_that_leaves_before_the_upstream_said_a_byte(gateway: Gateway, stream: bool) -> None:
    async with gateway.fleet(Site("east", rules=("no_response",)), Site("west")) as fleet:
        assert min([await leave(fleet, stream=stream) for _ in range(3)]) < 0.1
        assert fleet["west"].log.arrived == 0  # nobody is there to try again for
        await gateway.counts(3, "spillway_requests_total", model=fleet.model, outcome="client_left")


@live
async def test_who_leaves_while_waiting_never_reaches_an_upstream(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=0.4, output_tokens=1)
    async with gateway.fleet(Site("east", slow, limit=1)) as fleet, fleet.talk() as running_talk:
        running_talk.send(fleet.request())
        await fleet.arrived("east", 1)
        async with fleet.talk() as waiting:
            waiting.send(fleet.request())
            waiting.leave()
        assert (await running_talk.answer()).status == 200
        await gateway.counts(1, "spillway_requests_total", model=fleet.model, outcome="client_left")
        assert fleet["east"].log.arrived == 1


@live
async def test_who_leaves_in_the_middle_of_a_body_was_never_there(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        async with fleet.talk() as talk:
            talk.send(fleet.request()[:-10])
            talk.leave()
        assert (await fleet.ask()).status == 200
        assert fleet["east"].log.arrived == 1


class Flood:
    """An upstream that streams without end, as fast as it is read."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.sent_at = 0.0
        self.over = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        events = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * 1000) * 64
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(events), events))
                await writer.drain()
                self.sent_bytes += len(events)
                self.sent_at = loop.time()
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self.over.set()


def resident_bytes(pids: list[int]) -> int:
    """Of all these processes."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@live
async def test_a_reader_that_takes_nothing_pauses_the_upstream_and_costs_no_memory(gateway: Gateway) -> None:
    flood = Flood()
    server = await asyncio.start_server(flood.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop = asyncio.get_running_loop()
    async with server, gateway.fleet(Site("flood", settings={"endpoints": [url]})) as fleet:
        workers = descendants(gateway.process.pid)
        before = resident_bytes(workers)
        async with fleet.talk(receive_buffer_bytes=65536) as talk:
            talk.send(fleet.request(stream=True))
            await talk.head()
            await eventually(lambda: flood.sent_at and loop.time() - flood.sent_at > 0.7, what="a paused upstream")
            paused_at = flood.sent_bytes
            assert paused_at < 64 << 20  # what the kernel's buffers take
            assert resident_bytes(workers) - before < 8 << 20
            wanted = paused_at + (8 << 20)
            while flood.sent_bytes < wanted:
                assert await talk.reader.read(1 << 20)
            assert resident_bytes(workers) - before < 8 << 20
        await asyncio.wait_for(flood.over.wait(), 2.0)


@pytest.mark.parametrize("stream", [False, True])
@live
async def test_clients_of_http_1_0(gateway: Gateway, stream: bool) -> None:
    async with gateway.fleet(Site("east", SHORT)) as fleet, fleet.talk() as talk:
        talk.send(fleet.request(stream=stream, version="1.0"))
        answer = await talk.answer()
        assert answer.status == 200
        assert "transfer-encoding" not in answer.headers
        assert answer.headers["connection"] == "close"
        assert answer.text if stream else answer.json["choices"]
        assert await talk.ended()


@live
async def test_http_1_0_sees_a_cut_as_an_error_in_band(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", SHORT, rules=("cut:2",))) as fleet, fleet.talk() as talk:
        talk.send(fleet.request(stream=True, version="1.0"))
        answer = await talk.answer()
        assert error_in_band(answer) == "stream_cut"


@live
async def test_pipelined_requests_are_answered_in_their_order(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", SHORT)) as fleet, fleet.talk() as talk:
        lengths = [5, 1, 3, 7]
        talk.send(b"".join(fleet.request(max_tokens=n, stream=n % 3 == 1) for n in lengths))
        for length in lengths:
            answer = await talk.answer()
            text = answer.text if length % 3 == 1 else answer.json["choices"][0]["message"]["content"]
            assert len(text.split()) == length


@live
async def test_head_has_no_body_and_leaves_the_connection_usable(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", SHORT)) as fleet, fleet.talk() as talk:
        for path, status in (
            ("/v1/models", 200),
            ("/health/live", 200),
            ("/v1/chat/completions", 405),
            ("/v1/messages", 404),
        ):
            talk.send(request(b"", key=KEY, path=path, method="HEAD"))
            answer = await talk.answer("HEAD")
            assert (answer.status, answer.body) == (status, b"")
        talk.send(fleet.request())
        assert (await talk.answer()).status == 200


@live
async def test_many_requests_share_connections(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", SHORT)) as fleet, fleet.talk() as talk:
        for _ in range(20):
            talk.send(fleet.request(stream=True))
            assert (await talk.answer()).events[-1] == "[DONE]"
        assert fleet["east"].connections == 1


@live
async def test_a_large_answer_is_passed_on_as_it_comes(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", UpstreamSpec(output_tokens=4000))) as fleet:
        answer = await fleet.ask()
        assert answer.status == 200
        assert len(answer.json["choices"][0]["message"]["content"].split()) == 4000
        assert (await gateway.record(answer.headers["x-request-id"]))["completion_tokens"] == 4000


@pytest.mark.parametrize("fault", ["cut", "stall"])
@live
async def test_a_large_answer_that_breaks_off_is_cut_and_holds_nothing_strange(gateway: Gateway, fault: str) -> None:
    async with gateway.fleet(Site("east", UpstreamSpec(output_tokens=20_000), rules=(fault,)), Site("west")) as fleet:
        answer = await fleet.ask()
        assert (answer.status, answer.cut) == (200, True)
        assert b"data:" not in answer.body
        assert (await gateway.record(answer.headers["x-request-id"]))["outcome"] == "cut"


@live
async def test_whole_answers_have_a_time_too(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", rules=("no_response",))) as fleet:
        answer = await fleet.ask()
        assert answer.status == 504
        assert answer.error["code"] == "upstream_timeout"
        assert answer.headers["x-should-retry"] == "false"


@live
async def test_embeddings(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", UpstreamSpec(embedding_dimensions=8))) as fleet, fleet.talk() as talk:
        talk.send(request({"model": fleet.model, "input": ["a b", "c"]}, key=KEY, path="/v1/embeddings"))
        answer = await talk.answer()
        assert [len(item["embedding"]) for item in answer.json["data"]] == [8, 8]
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["prompt_tokens"], record["completion_tokens"]) == (3, 0)


@live
async def test_embeddings_are_not_streamed_and_asking_for_it_harms_no_endpoint(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east"), Site("west")) as fleet, fleet.talk() as talk:
        for _ in range(5):
            talk.send(request({"model": fleet.model, "input": "a", "stream": True}, key=KEY, path="/v1/embeddings"))
            assert (await talk.answer()).error["param"] == "stream"
        assert (await fleet.ask()).headers["x-spillway-pool"] == fleet.pool("east")


@live
async def test_large_bodies_wait_for_leave_to_come(gateway: Gateway) -> None:
    """`Expect: 100-continue`, as curl sends it."""
    async with gateway.fleet(Site("east", SHORT)) as fleet, fleet.talk() as talk:
        data = fleet.request(headers={"expect": "100-continue"}, padding="x" * 100_000)
        head, end, body = data.partition(b"\r\n\r\n")
        talk.send(head + end)
        assert await talk.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        talk.send(body)
        assert (await talk.answer()).status == 200
