"""How answers are framed for each version, method and status, and when the connection is kept."""

import pytest

from tests.net.played import Client, Listener

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
GET_10 = b"GET /a HTTP/1.0\r\n\r\n"
KEPT_10 = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n"


def asked(request: bytes) -> Client:
    client = Client()
    client.send(request)
    return client


def test_a_complete_answer_is_one_write() -> None:
    client = asked(GET)
    client.exchanges[0].respond(200, b"a: b\r\nc: d\r\n", b"body")
    assert client.transport.writes == [b"HTTP/1.1 200 OK\r\na: b\r\nc: d\r\ncontent-length: 4\r\n\r\nbody"]
    assert not client.transport.closed


def test_a_large_answer_is_whole() -> None:
    client = asked(GET)
    client.exchanges[0].respond(200, b"", b"x" * 200_000)
    assert client.transport.sent.endswith(b"content-length: 200000\r\n\r\n" + b"x" * 200_000)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    client = asked(GET)
    client.exchanges[0].respond(status, b"", b"ignored")
    assert client.transport.sent.endswith(b"\r\n\r\n")
    assert b"content-length" not in client.transport.sent


def test_head_gets_the_head_only() -> None:
    client = asked(HEAD)
    client.exchanges[0].respond(200, b"", b"body")
    assert client.transport.take() == b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
    client.send(HEAD)
    exchange = client.exchanges[1]
    assert not exchange.accepts_framed
    exchange.start(200, b"")
    exchange.write([b"body"])
    exchange.finish()
    assert client.transport.sent == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def test_an_unknown_status_has_no_phrase() -> None:
    client = asked(GET)
    client.exchanges[0].respond(299, b"", b"")
    assert client.transport.sent.startswith(b"HTTP/1.1 299 \r\n")


def test_a_streamed_answer_begins_with_its_first_piece() -> None:
    client = asked(GET)
    exchange = client.exchanges[0]
    exchange.start(200, b"a: b\r\n")
    assert not client.transport.writes
    exchange.write([b"one", b"two"])
    exchange.write([])
    exchange.write([b""])
    exchange.write_framed(b"3\r\nabc\r\n")
    exchange.finish()
    assert client.transport.writes == [
        b"HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n6\r\nonetwo\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
    ]
    assert not client.transport.closed


def test_an_empty_streamed_answer() -> None:
    client = asked(GET)
    client.exchanges[0].start(200, b"")
    client.exchanges[0].finish()
    assert client.transport.writes == [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"]


def test_http_1_0_ends_a_streamed_answer_by_closing() -> None:
    client = asked(KEPT_10)
    exchange = client.exchanges[0]
    assert exchange.http10
    assert not exchange.accepts_framed
    exchange.start(200, b"")
    exchange.write([b"one"])
    exchange.finish()
    assert client.transport.sent == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none"
    assert client.transport.closed


def test_http_1_0_is_kept_where_it_asks() -> None:
    client = asked(KEPT_10)
    client.exchanges[0].respond(200, b"", b"")
    assert b"connection: keep-alive\r\n" in client.transport.take()
    assert not client.transport.closed
    client.send(GET_10)
    client.exchanges[1].respond(200, b"", b"")
    assert b"connection: close\r\n" in client.transport.sent
    assert client.transport.closed


def test_an_answer_is_given_once() -> None:
    client = asked(GET)
    exchange = client.exchanges[0]
    with pytest.raises(RuntimeError, match="before it was started"):
        exchange.finish()
    exchange.start(200, b"")
    with pytest.raises(RuntimeError, match="started again"):
        exchange.start(200, b"")
    with pytest.raises(RuntimeError, match="second time"):
        exchange.respond(200, b"", b"")
    exchange.finish()
    sent = client.transport.sent
    exchange.respond(200, b"", b"")
    exchange.start(200, b"")
    exchange.write([b"x"])
    exchange.write_framed(b"1\r\nx\r\n")
    exchange.finish()
    exchange.abort()
    assert client.transport.sent == sent
    assert not client.transport.closed


def test_abort_cuts_the_connection_and_tells_nobody() -> None:
    client = asked(GET)
    exchange = client.exchanges[0]
    exchange.listener = listener = Listener()
    exchange.start(200, b"")
    exchange.write([b"half"])
    exchange.abort()
    assert client.transport.aborted
    assert not client.transport.sent.endswith(b"0\r\n\r\n")
    assert not listener.told


def test_an_answer_while_draining_is_the_last() -> None:
    client = asked(GET)
    client.connection.drain(patient=False)
    assert not client.transport.closed
    client.exchanges[0].respond(200, b"", b"")
    assert b"connection: close\r\n" in client.transport.sent
    assert client.transport.closed


def test_a_streamed_answer_that_began_before_draining_is_finished() -> None:
    client = asked(GET)
    exchange = client.exchanges[0]
    exchange.start(200, b"")
    client.connection.drain(patient=False)
    exchange.write([b"x"])
    exchange.finish()
    assert client.transport.sent.endswith(b"1\r\nx\r\n0\r\n\r\n")
    assert client.transport.closed


def test_a_patient_drain_waits_for_a_client_that_was_not_told() -> None:
    client = asked(GET)
    exchange = client.exchanges[0]
    exchange.start(200, b"")
    client.connection.drain(patient=True)
    exchange.finish()
    assert b"connection: close" not in client.transport.sent
    assert not client.transport.closed
    client.send(GET)
    client.exchanges[1].respond(200, b"", b"")
    assert b"connection: close" in client.transport.sent
    assert client.transport.closed


def test_draining_serves_the_requests_that_have_come() -> None:
    client = asked(GET * 3)
    client.connection.drain(patient=False)
    for index in range(3):
        client.exchanges[index].respond(200, b"", b"")
    assert client.transport.sent.count(b"connection: close") == 1
    assert client.transport.sent.endswith(b"connection: close\r\n\r\n")
    assert client.transport.closed


def test_draining_closes_idle_connections_but_not_those_that_have_spoken() -> None:
    idle, spoken = asked(GET), asked(GET)
    for client in (idle, spoken):
        client.exchanges[0].respond(200, b"", b"")
    idle.connection.drain(patient=False)
    spoken.connection.drain(patient=True)
    assert idle.transport.closed
    assert not spoken.transport.closed
    spoken.send(GET)
    spoken.exchanges[1].respond(200, b"", b"")
    assert spoken.transport.closed
    assert b"connection: close" in spoken.transport.sent


def test_a_connection_that_never_spoke_is_closed_without_a_word_when_draining_ends() -> None:
    client = Client()
    client.connection.drain(patient=True)
    client.connection.refuse_unfinished()
    assert client.transport.closed
    assert not client.transport.writes


def test_what_was_not_received_whole_when_draining_ends_is_503() -> None:
    client = asked(GET[:-5])
    client.connection.drain(patient=False)
    assert not client.transport.closed
    client.connection.refuse_unfinished()
    assert client.transport.sent.startswith(b"HTTP/1.1 503 ")
    assert client.refused
