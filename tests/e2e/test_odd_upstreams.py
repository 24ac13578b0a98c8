"""Upstreams that are odd but within the law: other line ends, other framing, other cuts, other versions of HTTP."""

import gzip
import json
from collections.abc import Iterator

import pytest

from tests.e2e.canned import answer, canned
from tests.e2e.gateway import KEY, Gateway, Site, live, running
from tests.e2e.talking import request

pytestmark = pytest.mark.server

EVENTS = [
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}',
    b'data: {"choices":[{"index":0,"delta":{"content":"caf\xc3\xa9"}}]}',
    b'data: {"choices":[{"index":0,"delta":{"content":" data: x"}}]}',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}',
    b"data: [DONE]",
]
LF = b"".join(event + b"\n\n" for event in EVENTS)
CRLF = LF.replace(b"\n", b"\r\n")
WHOLE = b'{"choices":[{"index":0,"message":{"content":"hi"}}],"usage":{"prompt_tokens":7,"completion_tokens":2}}'
TYPE = b"content-type: text/event-stream; charset=utf-8\r\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as started:
        yield started


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (TYPE, framed)


STREAMS = {
    "one chunk": chunked(LF, 100_000),
    "an event and a half": chunked(LF, 120),
    "single bytes": chunked(LF, 1),
    "with a length": answer(200, LF, TYPE),
    "CRLF": chunked(CRLF, 100_000),
    "CRLF in pieces": chunked(CRLF, 7),
    "CR": chunked(LF.replace(b"\n", b"\r"), 50),
    "no space behind the colon": chunked(LF.replace(b"data: {", b"data:{"), 90),
    "comments, ids and names": chunked(
        b": hello\n\n" + LF.replace(b"data: {", b"id: 1\nevent: x\nretry: 5\ndata: {"), 64
    ),
    "no last empty line": chunked(LF.rstrip(b"\n"), 64),
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\n" + chunked(LF, 64),
    "after 103": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + chunked(LF, 64),
    "with a trailer": chunked(LF, 64)[:-2] + b"x-trailer: 1\r\n\r\n",
}


@pytest.mark.parametrize("oddity", STREAMS)
@live
async def test_streams(gateway: Gateway, oddity: str) -> None:
    async with canned([STREAMS[oddity]]) as url, gateway.fleet(Site("odd", settings={"endpoints": [url]})) as fleet:
        got = await fleet.ask(stream=True)
        assert (got.status, got.cut) == (200, False)
        body = got.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"data:{", b"data: {")
        datas = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
        assert datas == [event[6:] for event in (*EVENTS[:4], EVENTS[5])]
        record = await gateway.record(got.headers["x-request-id"])
        assert (record["outcome"], record["completion_tokens"], record["estimated"]) == ("ok", 2, False)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@live
async def test_an_answer_may_end_with_its_connection(gateway: Gateway, version: bytes) -> None:
    """Without framing, a cut looks like an end: only the finish reason tells."""
    head = b"HTTP/%b 200 OK\r\n%bconnection: close\r\n\r\n" % (version, TYPE)
    good, cut = head + LF, head + b"\n\n".join(EVENTS[:3]) + b"\n\n"
    async with (
        canned([good, cut], close=True) as url,
        gateway.fleet(Site("odd", settings={"endpoints": [url]})) as fleet,
    ):
        whole = await fleet.ask(stream=True)
        assert (whole.cut, whole.events[-1]) == (False, "[DONE]")
        half = await fleet.ask(stream=True)
        assert (half.status, half.cut) == (200, True)
        assert json.loads(half.events[-1])["error"]["code"] == "stream_cut"


WHOLES = {
    "chunked": chunked(WHOLE, 9).replace(TYPE, b"content-type: application/json\r\n"),
    "white space around": answer(200, b"\r\n " + WHOLE + b"\n\n"),
    "another type": answer(200, WHOLE, b"content-type: text/plain\r\n"),
    "no type": answer(200, WHOLE, b""),
    "usage first": answer(200, b'{"usage":{"prompt_tokens":7,"completion_tokens":2},' + WHOLE[1:].partition(b',"usage"')[0] + b"}"),
    "many headers": answer(200, WHOLE, b"".join(b"x-%d: %b\r\n" % (n, b"y" * 200) for n in range(150))),
}  # fmt: skip


@pytest.mark.parametrize("oddity", WHOLES)
@live
async def test_whole_answers(gateway: Gateway, oddity: str) -> None:
    async with canned([WHOLES[oddity]]) as url, gateway.fleet(Site("odd", settings={"endpoints": [url]})) as fleet:
        got = await fleet.ask()
        assert got.status == 200
        assert got.json["choices"][0]["message"]["content"] == "hi"
        record = await gateway.record(got.headers["x-request-id"])
        assert (record["prompt_tokens"], record["completion_tokens"]) == (7, 2)


@pytest.mark.parametrize("stream", [False, True])
@live
async def test_what_is_compressed_against_our_wish_is_no_answer(gateway: Gateway, stream: bool) -> None:
    body, kind = (LF, TYPE) if stream else (WHOLE, b"content-type: application/json\r\n")
    packed = answer(200, gzip.compress(body), kind + b"content-encoding: gzip\r\n")
    async with (
        canned([packed]) as url,
        gateway.fleet(Site("odd", settings={"endpoints": [url]}), Site("west")) as fleet,
    ):
        got = await fleet.ask(stream=stream)
        assert (got.status, got.headers["x-spillway-spill"]) == (200, "failed")


@live
async def test_aliases_are_models_wherever_names_are_used(gateway: Gateway) -> None:
    narrow = {"secret": "sk-e2e-narrow-0123456789", "tenant": "narrow"}
    async with gateway.fleet(Site("east"), model={"aliases": ["also"]}) as fleet:
        await gateway.configure({"keys": [*gateway.config["keys"], {**narrow, "models": ["also"]}]})
        for key in (KEY, narrow["secret"]):
            listed = await gateway.get("/v1/models", key=key)
            while listed.status == 401:  # the key has not reached the worker
                listed = await gateway.get("/v1/models", key=key)
            assert {model["id"] for model in listed.json["data"]} == {"also", fleet.model}
            assert (await gateway.get("/v1/models/also", key=key)).status == 200
            async with fleet.talk() as talk:
                talk.send(request(fleet.body(model="also"), key=key))
                got = await talk.answer()
            assert (await gateway.record(got.headers["x-request-id"]))["model"] == fleet.model
        made = await gateway.admin("POST", "/admin/v1/keys", {"tenant": "other", "models": ["also"]})
        assert made.json["key"]["models"] == [fleet.model]
