"""Requests that are taken: what their exchange says, in which order they are handed over, and what waits meanwhile."""

import pytest

from spillway.net.ports import Exchange
from spillway.net.server_connection import HELD_BYTES
from tests.net.played import Client, Listener, PlayedService, Sink

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


def posted(path: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)


def chunked(path: bytes, *chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%b" % (path, body)


@pytest.mark.parametrize("each", [None, 1, 5])
def test_an_exchange_says_what_came(each: int | None) -> None:
    client = Client()
    head = b"POST /a%20b?c=d?e HTTP/1.1\r\nHOST: x\r\nX-Empty:\r\nX-Kept:  a  b \t\r\nContent-Length: 4\r\n\r\n"
    client.send(head + b"body", each=each)
    (exchange,) = client.exchanges
    assert (exchange.method, exchange.path, exchange.query) == (b"POST", b"/a%20b", b"c=d?e")
    assert exchange.headers == [(b"host", b"x"), (b"x-empty", b""), (b"x-kept", b"a  b"), (b"content-length", b"4")]
    assert exchange.body == b"body"
    assert exchange.peer == "192.0.2.7"
    assert exchange.received_at == client.now.s
    assert not exchange.http10


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://other:80/a?b", b"/a", b"b"),
        (b"HTTPS://other", b"/", b""),
        (b"http://other?b/c", b"/", b"b/c"),
        (b"http://user@other/a//b", b"/a//b", b""),
        (b"*", b"*", b""),
        (b"//a", b"//a", b""),
        (b"/?", b"/", b""),
    ],
)
def test_a_target_becomes_path_and_query(target: bytes, path: bytes, query: bytes) -> None:
    client = Client()
    client.send(b"OPTIONS %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
    assert (client.exchanges[0].path, client.exchanges[0].query) == (path, query)


def test_bodies_in_chunks_are_joined() -> None:
    client = Client()
    client.send(chunked(b"/a", b"ab", b"c" * 20_000, b"d"))
    assert client.exchanges[0].body == b"ab" + b"c" * 20_000 + b"d"


@pytest.mark.parametrize("each", [16_000, 6 * 1100, 6])
def test_a_body_of_tiny_chunks_is_whole(each: int) -> None:
    client = Client()
    request = chunked(b"/a", *[b"%d" % (number % 10) for number in range(5_000)])
    head_bytes = request.index(b"\r\n\r\n") + 4
    client.send(request[:head_bytes])
    client.send(request[head_bytes:], each=each)
    assert client.exchanges[0].body == b"0123456789" * 500


def test_chunk_extensions_and_trailers_are_left_out() -> None:
    client = Client()
    client.send(
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nHost: evil\r\n\r\n"
    )
    assert client.exchanges[0].body == b"abc"
    assert (b"host", b"evil") not in client.exchanges[0].headers


def test_a_large_body_comes_in_large_reads() -> None:
    client = Client()
    body = bytes(range(256)) * 2048
    client.send(posted(b"/auto", body) + posted(b"/auto", b"next"), each=200_000)
    assert [exchange.body for exchange in client.exchanges] == [body, b"next"]
    assert client.transport.reading


def test_pipelined_requests_are_answered_in_order() -> None:
    client = Client()
    client.send(b"".join(GET % path for path in (b"/1", b"/auto2", b"/3")) + posted(b"/4", b"four"))
    assert [exchange.path for exchange in client.exchanges] == [b"/1"]
    client.exchanges[0].respond(200, b"", b"one")
    assert [exchange.path for exchange in client.exchanges] == [b"/1", b"/auto2", b"/3"]
    assert client.transport.sent.endswith(b"GET /auto2? ")
    client.exchanges[2].respond(200, b"", b"three")
    assert client.exchanges[3].body == b"four"


def test_thousands_of_pipelined_requests_are_not_parsed_ahead_of_their_turn() -> None:
    client = Client()
    client.send(GET % b"/first" + (GET % b"/auto") * 10_000, each=100_000)
    assert not client.transport.reading
    client.exchanges[0].respond(200, b"", b"")
    assert client.transport.reading
    while len(client.exchanges) < 10_001 and client.transport.reading:
        client.send((GET % b"/auto") * 1000)
    assert len(client.exchanges) >= 10_001
    assert client.transport.sent.count(b"HTTP/1.1 200") == len(client.exchanges)


def test_what_waits_is_bounded() -> None:
    client = Client()
    client.send(GET % b"/first")
    client.send(b"x" * HELD_BYTES)
    assert client.transport.reading
    client.send(b"x")
    assert not client.transport.reading


def test_requests_wait_while_the_client_does_not_read() -> None:
    client = Client()
    client.connection.pause_writing()
    client.send((GET % b"/auto") * 3)
    assert not client.exchanges
    client.connection.resume_writing()
    assert len(client.exchanges) == 3


def test_a_request_behind_a_streamed_one_waits_for_it() -> None:
    client = Client()
    client.send(posted(b"/streamed", b"abc") + GET % b"/auto")
    (streamed,) = client.exchanges
    streamed.start(200, b"")
    streamed.write([b"answer"])
    assert len(client.exchanges) == 1
    streamed.finish()
    assert len(client.exchanges) == 2
    assert client.transport.sent.endswith(b"GET /auto? ")


class TakesBody(PlayedService):
    """Sets a sink on every exchange it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.sinks: list[Sink] = []
        self.streamed.handle = self.take

    def take(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.sinks.append(Sink())
        exchange.sink = self.sinks[-1]


@pytest.mark.parametrize("each", [None, 1, 9, 20_000])
def test_a_streamed_body_arrives_as_it_comes(each: int | None) -> None:
    service = TakesBody()
    client = Client(service)
    client.send(chunked(b"/streamed", b"ab", b"c" * 70_000) + posted(b"/streamed", b"second"), each=each)
    assert service.sinks[0].data == b"ab" + b"c" * 70_000
    assert service.sinks[0].ended == 1
    assert len(service.sinks) == 1
    client.exchanges[0].respond(200, b"", b"")
    assert (service.sinks[1].data, service.sinks[1].ended) == (b"second", 1)


@pytest.mark.parametrize("each", [None, 1000, 7000, 90_000])
@pytest.mark.parametrize("large_first", [False, True])
def test_the_end_of_a_streamed_body_is_told_once_whatever_follows(each: int | None, *, large_first: bool) -> None:
    service = TakesBody()
    client = Client(service)
    large = posted(b"/auto", b"c" * 50_000)
    followers = posted(b"/streamed", b"second") + posted(b"/streamed", b"d" * 50_000)
    followers = large + followers if large_first else followers + large
    client.send(chunked(b"/streamed", b"a" * 40_000) + followers, each=each)
    assert (len(service.sinks), service.sinks[0].ended) == (1, 1)
    client.exchanges[0].respond(200, b"", b"")
    assert (service.sinks[1].data, service.sinks[1].ended) == (b"second", 1)
    next(exchange for exchange in client.exchanges[1:] if exchange.path == b"/streamed").respond(200, b"", b"")
    assert (len(service.sinks[2].data), service.sinks[2].ended) == (50_000, 1)
    assert client.transport.reading


def test_a_streamed_route_is_called_before_its_body_came() -> None:
    service = TakesBody()
    client = Client(service)
    request = posted(b"/streamed", b"abcdef")
    client.send(request[:-6])
    assert len(client.exchanges) == 1
    assert client.exchanges[0].received_at == 0.0
    client.send(b"abc")
    assert (service.sinks[0].data, service.sinks[0].ended) == (b"abc", 0)
    client.send(b"def")
    assert (service.sinks[0].data, service.sinks[0].ended) == (b"abcdef", 1)
    assert client.exchanges[0].received_at == client.now.s


def test_a_paused_body_stops_reading_until_it_is_resumed() -> None:
    service = TakesBody()
    client = Client(service)
    request = posted(b"/streamed", b"a" * 200_000)
    client.send(request[:1000])
    client.exchanges[0].pause_body()
    assert not client.transport.reading
    client.exchanges[0].resume_body()
    assert client.transport.reading
    client.exchanges[0].pause_body()
    client.send(request[1000:])
    assert len(service.sinks[0].data) < 200_000
    client.exchanges[0].resume_body()
    assert len(service.sinks[0].data) == 200_000
    assert service.sinks[0].ended == 1
    assert client.transport.reading


def test_an_early_answer_to_a_body_under_way_ends_the_connection() -> None:
    client = Client(TakesBody())
    client.send(posted(b"/streamed", b"a" * 1000)[:-500])
    client.exchanges[0].respond(403, b"", b"no")
    assert b"connection: close\r\n" in client.transport.sent
    assert client.transport.eof_sent
    client.send(b"a" * 500 + GET % b"/auto")
    assert len(client.exchanges) == 1
    assert not client.transport.closed
    client.wait(3.0)
    assert client.transport.closed


def test_an_early_streamed_answer_to_a_body_under_way_ends_the_connection() -> None:
    client = Client(TakesBody())
    client.send(posted(b"/streamed", b"a" * 1000)[:-500])
    client.exchanges[0].start(200, b"")
    client.exchanges[0].write([b"early"])
    client.send(b"a" * 500)
    client.exchanges[0].finish()
    assert b"connection: close\r\n" in client.transport.sent
    assert client.transport.closed


def test_who_sends_without_end_to_a_closing_connection_is_cut() -> None:
    client = Client(TakesBody())
    client.send(posted(b"/streamed", b"a" * 1000)[:-500])
    client.exchanges[0].respond(403, b"", b"no")
    client.send(b"a" * (5 << 20), each=100_000)
    assert client.transport.aborted


def expecting(path: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n" % path


@pytest.mark.parametrize("path", [b"/auto", b"/streamed"])
def test_100_continue_is_said_once_when_the_body_is_waited_for(path: bytes) -> None:
    client = Client()
    client.send(expecting(path))
    assert client.transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"a")
    client.send(b"bc")
    assert b"100" not in client.transport.sent


def test_100_continue_is_not_said_when_the_body_is_there_or_not_wanted() -> None:
    client = Client()
    client.send(expecting(b"/auto") + b"abc")
    assert client.transport.take().startswith(b"HTTP/1.1 200")
    client.send(expecting(b"/auto").replace(b"1.1", b"1.0"))
    assert not client.transport.writes


def test_100_continue_waits_for_the_answer_before_it() -> None:
    client = Client()
    client.send(GET % b"/first" + expecting(b"/auto"))
    assert not client.transport.writes
    client.exchanges[0].respond(200, b"", b"")
    assert client.transport.sent.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_nothing_after_connection_close_is_looked_at() -> None:
    client = Client()
    client.send(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET % b"/auto")
    client.send(b"garbage")
    client.exchanges[0].respond(200, b"", b"")
    assert len(client.exchanges) == 1
    assert not client.service.rejections
    assert b"connection: close\r\n" in client.transport.sent
    assert client.transport.closed


def test_empty_lines_between_requests_are_skipped() -> None:
    client = Client()
    client.send(b"\r\n" + GET % b"/auto" + b"\r\n\r\n" + GET % b"/auto")
    assert len(client.exchanges) == 2


def test_a_client_that_leaves_is_told_once_and_what_waits_is_dropped() -> None:
    client = Client()
    client.send((GET % b"/first") + GET % b"/auto")
    listener = Listener()
    exchange = client.exchanges[0]
    exchange.listener = listener
    client.connection.eof_received()
    assert listener.told == ["left"]
    client.transport.close()
    assert listener.told == ["left"]
    exchange.respond(200, b"", b"late")
    assert not client.transport.writes
    assert len(client.exchanges) == 1
    assert not client.shared.open


def test_a_client_that_leaves_after_the_answer_is_not_told() -> None:
    client = Client()
    client.send(GET % b"/a")
    client.exchanges[0].listener = listener = Listener()
    client.exchanges[0].respond(200, b"", b"")
    client.transport.close()
    assert not listener.told


def test_a_client_that_leaves_in_the_middle_of_a_streamed_body() -> None:
    service = TakesBody()
    client = Client(service)
    client.send(posted(b"/streamed", b"abcdef")[:-3])
    client.exchanges[0].listener = listener = Listener()
    client.transport.close()
    assert listener.told == ["left"]
    assert service.sinks[0].ended == 0


@pytest.mark.parametrize("begun", [False, True])
def test_a_streamed_body_that_turns_bad_ends_its_exchange(*, begun: bool) -> None:
    client = Client(TakesBody())
    client.send(chunked(b"/streamed", b"abc")[:-5])
    exchange = client.exchanges[0]
    exchange.listener = listener = Listener()
    if begun:
        exchange.start(200, b"")
        exchange.write([b"x"])
    client.send(b"zzz\r\n")
    assert listener.told == ["left"]
    assert client.transport.aborted is begun
    assert (b"HTTP/1.1 400" in client.transport.sent) is not begun


def test_a_slow_client_is_told_to_the_listener() -> None:
    client = Client()
    client.send(GET % b"/a")
    client.exchanges[0].listener = listener = Listener()
    client.connection.pause_writing()
    client.connection.resume_writing()
    assert listener.told == ["slow", "ready"]
