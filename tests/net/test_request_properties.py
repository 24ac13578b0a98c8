"""However bytes are cut into reads, the same requests come out; and no bytes at all break the server."""

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.net.ports import Exchange
from tests.net.played import Client, PlayedService
from tests.net.test_refusals import MALFORMED

tokens = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(lambda text: b"x-" + text.encode())
values = st.text("abc ,;=\t\"'", max_size=20).map(str.encode)
bodies = st.binary(max_size=200)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE"]))
    path = draw(st.sampled_from([b"/auto/a?b=c", b"/streamed/a", b"http://h/auto"]))
    lines = [b"Host: h"] + [b"%b:%b" % pair for pair in draw(st.lists(st.tuples(tokens, values), max_size=4))]
    framing = draw(st.sampled_from(["none", "length", "chunks"]))
    if framing == "none":
        tail = b""
    elif framing == "length":
        tail = draw(bodies)
        lines.append(b"Content-Length: %d" % len(tail))
    else:
        chunks = [chunk for chunk in draw(st.lists(bodies, max_size=4)) if chunk] + [b""]
        tail = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        lines.append(b"Transfer-Encoding: chunked")
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, path, b"\r\n".join(draw(st.permutations(lines))), tail)


class Collects:
    """A sink that answers a streamed request when its body is complete."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.body = b""

    def body_piece(self, data: bytes) -> None:
        self.body += data

    def body_end(self) -> None:
        self.exchange.respond(200, b"", self.body.hex().encode())


class Answering(PlayedService):
    """Answers bodies in hexadecimal, so that none of them looks like an answer."""

    def __init__(self) -> None:
        super().__init__(max_body_bytes=2000)
        self.streamed.handle = self.collect

    def echo(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.respond(200, b"", exchange.body.hex().encode())

    def collect(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.sink = Collects(exchange)


def outcome(data: bytes, cuts: list[int]) -> tuple[list[object], bytes, bool]:
    """Everything that can be seen from outside when `data` comes in reads that end at `cuts`."""
    client = Client(Answering())
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in itertools.pairwise(edges):
        if end > start and not client.transport.closed:
            client.connection.data_received(data[start:end])
    seen = [(each.method, each.path, each.query, each.headers, each.body) for each in client.exchanges]
    return [*seen, *client.service.rejections], client.transport.sent, client.transport.eof_sent


@given(st.lists(requests(), min_size=1, max_size=5), st.lists(st.integers(0, 5000), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_cut_of_a_pipeline_gives_the_same_exchanges_and_answers(pipeline: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pipeline)
    seen, sent, _ = outcome(data, [])
    assert len(seen) == len(pipeline)
    assert sent.count(b"HTTP/1.1 200 OK\r\n") == len(pipeline)
    assert outcome(data, cuts)[:2] == (seen, sent)


@given(
    st.lists(requests(), max_size=2),
    st.sampled_from(sorted(MALFORMED.values())),
    st.lists(st.integers(0, 5000), max_size=10),
)
@settings(max_examples=150, deadline=None)
def test_any_cut_of_a_pipeline_with_a_malformed_request_ends_in_the_same_refusal(
    pipeline: list[bytes], malformed: bytes, cuts: list[int]
) -> None:
    data = b"".join([*pipeline, malformed, b"GET /auto HTTP/1.1\r\nHost: h\r\n\r\n"])
    seen, sent, closed = outcome(data, [])
    assert closed
    assert len(seen) == len(pipeline) + 1
    assert re.findall(rb"HTTP/1\.1 (\d+)", sent) == [b"200"] * len(pipeline) + [b"400"]
    assert outcome(data, cuts) == (seen, sent, closed)


@given(requests(), st.data())
@settings(max_examples=300, deadline=None)
def test_no_mutation_of_a_request_escapes_as_an_exception(request: bytes, data: st.DataObject) -> None:
    mutated = bytearray(request)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated)))
        size = data.draw(st.integers(0, 3))
        mutated[at : at + size] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b":"])
        )
    seen, sent, closed = outcome(bytes(mutated), data.draw(st.lists(st.integers(0, 5000), max_size=5)))
    answers = re.findall(rb"HTTP/1\.1 (\d+)", sent)
    assert all(status in (b"100", b"200", b"400", b"413", b"431") for status in answers)
    if any(status != b"200" for status in answers):
        assert closed
        assert len(seen) >= len(answers)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_escape_as_an_exception(data: bytes) -> None:
    _, sent, closed = outcome(data, [])
    assert closed == (b" 400 " in sent)
