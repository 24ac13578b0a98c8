"""Limits of time, in played time: heads, bodies, idle connections, answers nobody takes, and lingering."""

import pytest

from spillway.net.ports import Rejection
from spillway.net.settings import ServerLimits
from tests.net.played import Client, Listener

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = ServerLimits(head_timeout_s=4, body_timeout_s=6, idle_timeout_s=20, write_timeout_s=8, linger_s=2)


def test_a_head_that_trickles_is_408() -> None:
    client = Client(limits=LIMITS)
    for byte in GET % b"/auto":
        client.send(bytes([byte]))
        client.wait(0.5)
    assert client.service.rejections == [Rejection.TOO_SLOW]
    assert client.transport.sent.startswith(b"HTTP/1.1 408 ")


def test_a_head_in_time_is_served() -> None:
    client = Client(limits=LIMITS)
    client.send((GET % b"/auto")[:-2])
    client.wait(3.9)
    client.send(b"\r\n")
    assert len(client.exchanges) == 1


@pytest.mark.parametrize("path", [b"/auto", b"/streamed"])
def test_a_body_that_stops_is_408(path: bytes) -> None:
    client = Client(limits=LIMITS)
    client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" % path)
    for _ in range(5):
        client.wait(5.0)
        client.send(b"a")
    assert not client.service.rejections
    client.wait(7.0)
    assert client.service.rejections == [Rejection.TOO_SLOW]
    assert client.refused


def test_a_body_that_its_route_paused_may_wait() -> None:
    client = Client(limits=LIMITS)
    client.send(b"POST /streamed HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
    client.exchanges[0].pause_body()
    client.wait(60.0)
    assert not client.service.rejections


HALVES = [b"GET /half", b"POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na"]


@pytest.mark.parametrize("half", [*HALVES, HALVES[1].replace(b"/half", b"/streamed")])
def test_an_answer_may_take_its_time_and_what_is_behind_it_waits(half: bytes) -> None:
    client = Client(limits=LIMITS)
    client.send(GET % b"/slow" + half)
    client.wait(1000.0)
    client.exchanges[0].respond(200, b"", b"")
    assert not client.service.rejections
    client.wait(3.0)
    assert not client.service.rejections
    client.wait(4.0)
    assert client.service.rejections == [Rejection.TOO_SLOW]


def test_an_idle_connection_is_closed_without_a_word() -> None:
    client = Client(limits=LIMITS)
    client.wait(19.0)
    client.send(GET % b"/auto")
    client.transport.take()
    client.wait(19.0)
    assert not client.transport.closed
    client.wait(2.0)
    assert client.transport.closed
    assert not client.transport.writes
    assert not client.shared.open


def test_empty_lines_do_not_keep_a_connection() -> None:
    client = Client(limits=LIMITS)
    for _ in range(12):
        client.send(b"\r\n")
        client.wait(2.0)
    assert client.transport.closed


def test_a_client_that_takes_nothing_is_cut() -> None:
    client = Client(limits=LIMITS)
    client.send(GET % b"/a")
    client.exchanges[0].listener = listener = Listener()
    client.exchanges[0].start(200, b"")
    client.transport.buffered_bytes = 100_000
    client.connection.pause_writing()
    for taken in range(5):
        client.wait(7.0)
        client.transport.buffered_bytes -= 1000 * taken + 1
    assert not client.transport.closed
    client.wait(9.0)
    assert client.transport.aborted
    assert listener.told == ["slow", "left"]


def test_a_refused_client_that_stays_is_cut_after_lingering() -> None:
    client = Client(limits=LIMITS)
    client.send(b"nonsense\r\n\r\n")
    assert client.refused
    client.wait(1.5)
    client.send(b"still here")
    assert not client.transport.closed
    client.wait(1.5)
    assert client.transport.closed


def test_a_connection_that_opened_while_draining_has_to_speak() -> None:
    client = Client(limits=LIMITS)
    client.connection.drain(patient=True)
    client.wait(1.5)
    assert not client.transport.closed
    client.wait(1.5)
    assert client.transport.closed
