"""What a client connection makes of the bytes of an upstream."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.net.ports import ConnectionFault
from tests.net.played import Receiver, Upstream

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 3\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.mark.parametrize("each", [None, 1])
@pytest.mark.parametrize(
    ("response", "body"),
    [
        (SIZED + b"abc", b"abc"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (CHUNKED + chunk(b"abc") + chunk(b"de") + b"0\r\n\r\n", b"abcde"),
        (CHUNKED + b"3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + SIZED + b"abc", b"abc"),
    ],
)
def test_a_whole_response_is_told_and_the_connection_kept(response: bytes, body: bytes, each: int | None) -> None:
    upstream = Upstream()
    upstream.send(response, each=each)
    assert (upstream.receiver.status, upstream.receiver.body) == (200, body)
    assert upstream.receiver.ended
    assert upstream.kept
    assert not upstream.transport.closed
    assert (b"link", b"a") not in upstream.receiver.headers


def test_headers_are_told_in_lower_case_without_white_space() -> None:
    upstream = Upstream()
    upstream.send(OK + b"X-A:  b c \t\r\nContent-LENGTH: 0\r\n\r\n")
    assert upstream.receiver.headers == [(b"x-a", b"b c"), (b"content-length", b"0")]


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_has_no_body_is_over_with_its_head(status: int) -> None:
    upstream = Upstream()
    upstream.send(b"HTTP/1.1 %d Nothing\r\nContent-Length: 3\r\n\r\n" % status)
    assert upstream.receiver.ended
    assert upstream.kept


@pytest.mark.parametrize("head", [SIZED, CHUNKED, OK + b"\r\n"])
def test_the_response_to_head_is_over_with_its_head(head: bytes) -> None:
    upstream = Upstream(HEAD)
    upstream.send(head)
    assert upstream.receiver.ended
    assert upstream.transport.closed
    assert not upstream.kept


@pytest.mark.parametrize("head", [OK + b"\r\n", b"HTTP/1.0 200 OK\r\n\r\n", OK + b"Connection: close\r\n\r\n"])
def test_a_body_without_a_length_ends_with_the_connection(head: bytes) -> None:
    upstream = Upstream()
    upstream.send(head + b"abc")
    upstream.send(b"def")
    assert not upstream.receiver.ended
    upstream.hang_up()
    assert (upstream.receiver.body, upstream.receiver.ended) == (b"abcdef", True)
    assert upstream.owner.told == ["made", "lost"]


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 20", SIZED, SIZED + b"ab", CHUNKED, CHUNKED + chunk(b"abc"), CHUNKED + b"0\r\n"]
)
def test_an_end_in_the_middle_is_a_loss(begun: bytes) -> None:
    upstream = Upstream()
    if begun:
        upstream.send(begun)
    upstream.hang_up()
    assert upstream.receiver.fault is ConnectionFault.LOST
    assert upstream.owner.told == ["made", "lost"]


def test_a_reset_is_a_loss_also_where_the_end_would_be_the_end() -> None:
    upstream = Upstream()
    upstream.send(OK + b"\r\nabc")
    upstream.hang_up(ConnectionResetError("reset by peer"))
    assert (upstream.receiver.fault, upstream.receiver.detail) == (ConnectionFault.LOST, "reset by peer")


MALFORMED = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "length and encoding": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "encoding gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "encoding gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding chunked, gzip": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "encoding twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 3\r\n\r\nabc",
    "folded header": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 None\r\nContent-Length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 Much\r\nContent-Length: 0\r\n\r\n",
    "status 1000": b"HTTP/1.1 1000 More\r\nContent-Length: 0\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    "101 without upgrade": b"HTTP/1.1 101 Switching\r\n\r\nabc",
    "chunk size that is none": CHUNKED + b"z\r\n",
    "chunk longer than its size": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("each", [None, 1])
@pytest.mark.parametrize("response", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_http_is_malformed_and_the_connection_over(response: bytes, each: int | None) -> None:
    upstream = Upstream()
    upstream.send(response, each=each)
    assert upstream.receiver.fault is ConnectionFault.MALFORMED
    assert upstream.receiver.detail
    assert upstream.transport.closed
    assert upstream.owner.told == ["made", "lost"]


@pytest.mark.parametrize("each", [None, 700])
def test_a_head_over_its_bound_is_too_large(each: int | None) -> None:
    fits = OK + b"A: " + b"b" * 1900 + b"\r\nContent-Length: 3\r\n\r\nabc"
    upstream = Upstream(max_head_bytes=2000)
    upstream.send(fits, each=each)
    assert upstream.receiver.ended
    for too_large in (fits.replace(b"b" * 1900, b"b" * 2100), OK + b"A: b\r\n" * 1000, b"HTTP/1.1 100 C\r\n\r\n" * 200):
        upstream = Upstream(max_head_bytes=2000)
        upstream.send(too_large, each=each)
        assert upstream.receiver.fault is ConnectionFault.TOO_LARGE


@pytest.mark.parametrize("surplus", [b"x", SIZED + b"abc", b"HTTP/1.1 100 Continue\r\n\r\n", b"0\r\n\r\n"])
@pytest.mark.parametrize(
    "response",
    [SIZED + b"abc", CHUNKED + chunk(b"abc") + b"0\r\n\r\n", OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc"],
)
def test_bytes_after_a_response_are_never_delivered_and_end_the_connection(response: bytes, surplus: bytes) -> None:
    together, apart = Upstream(), Upstream()
    together.send(response + surplus)
    apart.send(response)
    if apart.kept:
        apart.send(surplus)
    for upstream in (together, apart):
        assert (upstream.receiver.status, upstream.receiver.body) == (200, b"abc")
        assert upstream.receiver.ended
        assert upstream.transport.closed
        assert upstream.owner.told[-1] == "lost"
    assert not together.kept


def test_a_response_before_the_request_has_left_ends_the_connection() -> None:
    upstream = Upstream()
    upstream.transport.buffered_bytes = 1000
    upstream.send(SIZED + b"abc")
    assert upstream.receiver.ended
    assert not upstream.kept


def test_a_kept_connection_carries_the_next_request() -> None:
    upstream = Upstream()
    upstream.send(CHUNKED + chunk(b"abc") + b"0\r\n\r\n")
    for number in range(3):
        upstream.ticket.receiver = None
        receiver = Receiver()
        upstream.ticket.request, upstream.ticket.receiver = b"GET /%d HTTP/1.1\r\n\r\n" % number, receiver
        upstream.connection.send(upstream.ticket, 0.0)
        upstream.send(SIZED + b"abc")
        assert (receiver.body, receiver.ended) == (b"abc", True)
    assert upstream.owner.told == ["made"] + ["released"] * 4


class Leaves(Receiver):
    """Cancels its ticket when it is told `when`."""

    def __init__(self, upstream: Upstream, when: str) -> None:
        super().__init__()
        self.upstream, self.when = upstream, when

    def response_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        super().response_head(status, headers)
        if self.when == "head":
            self.upstream.ticket.cancel()

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        super().response_body(data, pieces)
        if self.when == "body":
            self.upstream.ticket.cancel()

    def response_end(self) -> None:
        super().response_end()
        self.upstream.ticket.cancel()


@pytest.mark.parametrize("when", ["head", "body", "end"])
def test_nothing_is_told_after_cancel(when: str) -> None:
    upstream = Upstream()
    upstream.ticket.receiver = receiver = Leaves(upstream, when)
    upstream.send(SIZED + b"abc")
    assert receiver.ended == (when == "end")
    assert receiver.pieces == ([] if when == "head" else [b"abc"])
    assert upstream.transport.aborted == (when != "end")
    upstream.ticket.cancel()
    upstream.ticket.pause()
    upstream.ticket.resume()
    assert upstream.kept == (when == "end")


def test_cancel_before_any_answer_cuts_the_connection() -> None:
    upstream = Upstream()
    upstream.ticket.cancel()
    assert upstream.transport.aborted
    assert upstream.owner.told == ["made", "lost"]
    upstream.hang_up()
    assert not upstream.receiver.over


def test_pause_stops_reading_and_the_end_of_a_response_resumes_it() -> None:
    upstream = Upstream()
    upstream.ticket.pause()
    assert not upstream.transport.reading
    upstream.ticket.resume()
    assert upstream.transport.reading
    upstream.ticket.pause()
    upstream.send(SIZED + b"abc")
    assert upstream.transport.reading
    upstream.ticket.pause()
    assert upstream.transport.reading


def test_a_read_of_whole_chunks_is_passed_on_as_it_came() -> None:
    upstream = Upstream()
    upstream.send(CHUNKED)
    upstream.send(chunk(b"abc"))
    upstream.send(chunk(b"x" * 300) + chunk(b"de"))
    upstream.send(chunk(b"f") + b"0\r\n\r\n")
    assert upstream.receiver.framed == [chunk(b"abc"), chunk(b"x" * 300) + chunk(b"de"), chunk(b"f")]
    assert upstream.receiver.ended


def test_a_read_that_cuts_a_chunk_is_not_passed_on_until_the_next_boundary() -> None:
    upstream = Upstream()
    upstream.send(CHUNKED)
    upstream.send(b"5\r\nab")
    upstream.send(b"cde\r\n")
    upstream.send(chunk(b"fg"))
    upstream.send(b"100\r\n12345")  # as long as its piece framed anew
    upstream.send(b"6" * 251 + b"\r\n")
    upstream.send(chunk(b"hi"))
    assert upstream.receiver.framed == [b"", b"", chunk(b"fg"), b"", b"", chunk(b"hi")]


@pytest.mark.parametrize(
    "read",
    [
        b"3;a=b\r\nabc\r\n",
        b"03\r\nabc\r\n",
        chunk(b"abc") + b"0\r\nX-Trailer: y\r\n\r\n",
        chunk(b"abc") + b"000\r\n\r\n",
        chunk(b"abc") + b"2\r\nd",
        chunk(b"abc") + b"2",
        chunk(b"abc") + b"2\r\n",
        chunk(b"abc") + b"0\r\n\r\n" + b"\r\n",
        chunk(b"abc") + b"0\r\n\r\n" + SIZED,
    ],
)
def test_what_is_not_plain_chunks_is_not_passed_on(read: bytes) -> None:
    upstream = Upstream()
    upstream.send(CHUNKED)
    upstream.send(read)
    assert set(upstream.receiver.framed) == {b""}
    assert upstream.receiver.body.startswith(b"abc")


def test_a_body_of_known_length_is_never_passed_on_as_chunks() -> None:
    upstream = Upstream()
    upstream.send(OK + b"Content-Length: 8\r\n\r\n")
    upstream.send(chunk(b"abc"))
    assert upstream.receiver.framed == [b""]
    assert upstream.receiver.body == chunk(b"abc")


WHOLE_CHUNKS = re.compile(rb"(?:[1-9a-f][0-9a-f]*\r\n)")


def unframed(data: bytes) -> bytes:
    """The body of whole, plain chunks. Fails on anything else."""
    body = b""
    while data:
        size = WHOLE_CHUNKS.match(data)
        assert size
        start, length = size.end(), int(size.group(), 16)
        assert data[start + length : start + length + 2] == b"\r\n"
        body += data[start : start + length]
        data = data[start + length + 2 :]
    return body


chunk_data = st.binary(min_size=1, max_size=40) | st.sampled_from(
    [b"\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\n", b"x" * 300, b"5\r\nab"]
)
extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b"])


@given(
    st.lists(st.tuples(chunk_data, extensions), max_size=6), st.lists(st.integers(0, 2000), max_size=12), st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_any_cut_of_a_response_gives_the_same_body_and_passes_on_only_legal_chunks(
    chunks: list[tuple[bytes, bytes]], cuts: list[int], trailer: bool
) -> None:
    data = CHUNKED + b"".join(b"%x%b\r\n%b\r\n" % (len(body), extension, body) for body, extension in chunks)
    data += b"0\r\nX: y\r\n\r\n" if trailer else b"0\r\n\r\n"
    upstream = Upstream()
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    whole = b""
    for start, end in itertools.pairwise(edges):
        if end == start:
            continue
        pieces_before, reads_before = len(upstream.receiver.pieces), upstream.receiver.reads
        upstream.connection.data_received(data[start:end])
        if upstream.receiver.reads > reads_before:
            brought = b"".join(upstream.receiver.pieces[pieces_before:])
            framed = upstream.receiver.framed[-1]
            assert not framed or unframed(framed) == brought
            whole += brought
    assert whole == b"".join(body for body, _ in chunks)
    assert upstream.receiver.ended
    assert upstream.kept


@given(
    st.binary(max_size=200) | st.sampled_from(sorted(MALFORMED.values())), st.binary(max_size=20), st.integers(0, 300)
)
@settings(max_examples=300, deadline=None)
def test_no_bytes_of_an_upstream_escape_as_an_exception(data: bytes, inserted: bytes, at: int) -> None:
    upstream = Upstream()
    upstream.send(data[:at] + inserted + data[at:] or b"x")
    if not upstream.transport.closed:
        upstream.hang_up()
    assert upstream.receiver.over
