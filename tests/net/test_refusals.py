"""What the server does not take: each way to smuggle a request, to bend a head, to grow without bound."""

import pytest

from spillway.net.ports import Rejection
from spillway.net.settings import ServerLimits
from tests.net.played import Client, PlayedService

GET = b"GET /auto HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /auto HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "length and encoding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": POST + b"Content-Length: -3\r\n\r\nabc",
    "a hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "an empty length": POST + b"Content-Length:\r\n\r\nabc",
    "a length with a space": POST + b"Content-Length: 3 4\r\n\r\nabc",
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "encoding gzip": POST + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "encoding identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "encoding gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "encoding chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "encoding chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding in two headers": POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding with a comma": POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "encoding with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "encoding xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "encoding before a vertical tab": POST + b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "encoding empty": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "encoding folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "encoding in HTTP/1.0": b"POST /auto HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding in kept HTTP/1.0": b"POST /auto HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF everywhere": b"GET /auto HTTP/1.1\nHost: x\n\n",
    "bare LF after a header": GET + b"A: b\nC: d\r\n\r\n",
    "bare LF at the end of the head": GET + b"\n",
    "bare CR in a value": GET + b"A: b\rc\r\n\r\n",
    "CR before CRLF": GET + b"A: b\r\r\n\r\n",
    "NUL in a value": GET + b"A: b\0c\r\n\r\n",
    "control character in a value": GET + b"A: b\x01c\r\n\r\n",
    "folded header": GET + b"A: b\r\n c\r\n\r\n",
    "space before the colon": GET + b"A : b\r\n\r\n",
    "space before the first header": b"GET /auto HTTP/1.1\r\n Host: x\r\n\r\n",
    "a header without a name": GET + b": b\r\n\r\n",
    "a header without a colon": GET + b"A\r\n\r\n",
    "a name that is no token": GET + b"(a): b\r\n\r\n",
    "a name beyond ASCII": GET + b"\xff: b\r\n\r\n",
    "no Host": b"GET /auto HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: y\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET /auto HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/0.9": b"GET /auto HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/0.9 without a version": b"GET /auto\r\n\r\n",
    "HTTP/1.2": b"GET /auto HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/1.01": b"GET /auto HTTP/1.01\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /auto HTTP/2.0\r\nHost: x\r\n\r\n",
    "kept HTTP/2.0": b"GET /auto HTTP/2.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a lower-case method": b"get /auto HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"FETCH /auto HTTP/1.1\r\nHost: x\r\n\r\n",
    "Icecast": b"SOURCE /auto ICE/1.0\r\nHost: x\r\n\r\n",
    "RTSP": b"DESCRIBE /auto RTSP/1.0\r\nHost: x\r\n\r\n",
    "RTSP with a length": b"ANNOUNCE /auto RTSP/1.0\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
    "tabs in the request line": b"GET\t/auto\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "space after the version": b"GET /auto HTTP/1.1 \r\nHost: x\r\n\r\n",
    "control character in the target": b"GET /au\x01to HTTP/1.1\r\nHost: x\r\n\r\n",
    "target beyond ASCII": b"GET /aut\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment in the target": b"GET /auto#top HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target that is no path": b"GET auto HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target of another scheme": b"GET ftp://x/auto HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "upgrade": GET + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "upgrade with a body": POST + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 3\r\n\r\nabc",
    "chunk size with a space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk size after a space": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk size empty": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "chunk size before a bare LF": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "chunk extension with a bare LF": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "chunk extension with a bare CR": CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "chunk before a bare LF": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "last chunk before a bare LF": CHUNKED + b"3\r\nabc\r\n0\r\n\n",
    "folded trailer": CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\n c\r\n\r\n",
    "length as a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 7\r\n\r\n",
    "encoding as a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("each", [None, 1, 7])
@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_answered_400_and_is_the_last(request_bytes: bytes, each: int | None) -> None:
    client = Client()
    client.send(request_bytes + b"GET /auto/smuggled HTTP/1.1\r\nHost: x\r\n\r\n", each=each)
    assert client.service.rejections == [Rejection.MALFORMED]
    assert client.transport.sent.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert client.transport.sent.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in client.transport.sent
    assert client.transport.eof_sent
    assert not client.exchanges


def test_requests_before_a_malformed_one_are_answered_first() -> None:
    client = Client()
    client.send(b"GET /kept HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"A : b\r\n\r\n")
    assert not client.transport.writes
    client.exchanges[0].respond(200, b"", b"first")
    first, second = client.transport.sent.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200")
    assert second.startswith(b"400")
    assert client.refused


def large_head(size_bytes: int) -> bytes:
    return GET + b"A: " + b"b" * size_bytes + b"\r\n\r\n"


@pytest.mark.parametrize("each", [None, 100, 20_000])
def test_a_head_over_its_bound_is_431(each: int | None) -> None:
    limits = ServerLimits(max_head_bytes=40_000)
    client = Client(limits=limits)
    client.send(large_head(39_900), each=each)
    assert len(client.exchanges) == 1
    client.send(large_head(40_000), each=each)
    assert len(client.exchanges) == 1
    assert client.service.rejections == [Rejection.HEAD_TOO_LARGE]
    assert client.refused


@pytest.mark.parametrize("unfinished", [b"GET /" + b"a" * 100_000, GET + b"A" * 100_000, GET + b"A: " + b"b" * 100_000])
def test_a_head_that_never_ends_is_431(unfinished: bytes) -> None:
    client = Client()
    client.send(unfinished, each=5_000)
    assert client.service.rejections == [Rejection.HEAD_TOO_LARGE]


def test_many_headers_are_431() -> None:
    client = Client(limits=ServerLimits(max_headers=10))
    client.send(GET + b"".join(b"A%d: b\r\n" % index for index in range(9)) + b"\r\n")
    assert len(client.exchanges) == 1
    client.send(GET + b"".join(b"A%d: b\r\n" % index for index in range(10)) + b"\r\n")
    assert client.service.rejections == [Rejection.HEAD_TOO_LARGE]


def test_a_length_over_the_bound_of_the_route_is_413_before_the_body() -> None:
    client = Client(PlayedService(max_body_bytes=10))
    client.send(POST + b"Content-Length: 10\r\n\r\n0123456789")
    client.send(POST + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n")
    assert client.service.rejections == [Rejection.BODY_TOO_LARGE]
    assert b" 100 " not in client.transport.sent
    client.send(b"0123456789a" * 1000)
    assert len(client.exchanges) == 1


@pytest.mark.parametrize("path", [b"/auto", b"/streamed"])
def test_chunks_over_the_bound_of_the_route_are_413(path: bytes) -> None:
    client = Client(PlayedService(max_body_bytes=10))
    client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path + b"6\r\n012345\r\n")
    assert not client.service.rejections
    client.send(b"5\r\n01234\r\n")
    assert client.service.rejections == [Rejection.BODY_TOO_LARGE]
    assert client.refused


def test_chunk_extensions_and_trailers_are_bounded() -> None:
    for flood in (b"1;" + b"e" * 1000 + b"\r\na\r\n", b"0\r\n" + b"T: u\r\n" * 100_000):
        client = Client()
        client.send(CHUNKED + flood * 200, each=10_000)
        assert client.service.rejections == [Rejection.MALFORMED]
        assert not client.exchanges


def test_over_the_bound_of_connections_the_answer_is_503() -> None:
    client = Client(limits=ServerLimits(max_connections=1))
    other = Client()
    other.shared = client.shared
    second = type(client.connection)(client.shared)
    other.transport.protocol = second
    second.connection_made(other.transport)
    assert client.service.rejections == [Rejection.TOO_MANY_CONNECTIONS]
    assert other.transport.sent.startswith(b"HTTP/1.1 503 ")
    assert other.transport.eof_sent
    assert not client.transport.writes


def test_a_route_that_breaks_is_500_and_the_next_request_is_served() -> None:
    client = Client()
    client.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"\r\n")
    assert client.service.rejections == [Rejection.INTERNAL]
    assert client.transport.sent.startswith(b"HTTP/1.1 500 ")
    assert b"HTTP/1.1 200 OK" in client.transport.sent


class Speechless(PlayedService):
    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        raise KeyError(reason)


@pytest.mark.parametrize("path", [b"/broken", b"/noroute", b"bad target"])
def test_a_service_without_an_answer_ends_the_connection(path: bytes) -> None:
    client = Client(Speechless())
    client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
    assert client.transport.aborted
    assert not client.transport.writes
    assert not client.shared.open


def test_routing_that_breaks_is_500_and_close() -> None:
    client = Client()
    client.send(b"GET /noroute HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.service.rejections == [Rejection.INTERNAL]
    assert client.refused
