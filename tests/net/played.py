"""Played parts around `spillway.net`: a transport that keeps what is written, services, listeners and receivers that remember."""

import asyncio
from collections.abc import Callable
from typing import Any

from spillway.net.client_connection import ClientConnection
from spillway.net.ports import ConnectionFault, Exchange, Headers, Rejection, Route
from spillway.net.server_connection import ServerConnection, Shared
from spillway.net.settings import ServerLimits
from spillway.net.ticket import ClientTicket

Handle = Callable[[Exchange], None]


class PlayedTransport(asyncio.Transport):
    """Keeps what is written. Tells the protocol of its end as soon as it is closed or aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.protocol: asyncio.Protocol | None = None
        self.reading = True
        self.closed = False
        self.aborted = False
        self.eof_sent = False
        self.buffered_bytes = 0

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def take(self) -> bytes:
        sent = self.sent
        self.writes.clear()
        return sent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_sent
        if not self.closed:
            self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.eof_sent = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.protocol is not None:
                self.protocol.connection_lost(None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.buffered_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.7", 50000) if name == "peername" else default


class PlayedService:
    """Keeps every exchange. `/auto…` is answered at once with its method, target and body; `/streamed…` is streamed."""

    def __init__(self, *, max_body_bytes: int = 1 << 20) -> None:
        self.exchanges: list[Exchange] = []
        self.rejections: list[Rejection] = []
        self._buffered = Route(self.exchanges.append, max_body_bytes=max_body_bytes)
        self.streamed = Route(self.exchanges.append, max_body_bytes=max_body_bytes, streamed=True)
        self._auto = Route(self.echo, max_body_bytes=max_body_bytes)
        self._broken = Route(self.fail, max_body_bytes=max_body_bytes)

    def route(self, method: bytes, path: bytes) -> Route:
        if path.startswith(b"/streamed"):
            return self.streamed
        if path.startswith(b"/broken"):
            return self._broken
        if path == b"/noroute":
            raise ValueError("routing is broken")
        return self._auto if path.startswith(b"/auto") else self._buffered

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        self.rejections.append(reason)
        return STATUS[reason], b"content-type: text/plain\r\n", reason.value.encode()

    def echo(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.respond(200, b"", b"%b %b?%b %b" % (exchange.method, exchange.path, exchange.query, exchange.body))

    def fail(self, exchange: Exchange) -> None:
        raise ValueError("the route is broken")


STATUS = {
    Rejection.MALFORMED: 400,
    Rejection.HEAD_TOO_LARGE: 431,
    Rejection.BODY_TOO_LARGE: 413,
    Rejection.TOO_SLOW: 408,
    Rejection.DRAINING: 503,
    Rejection.TOO_MANY_CONNECTIONS: 503,
    Rejection.BUSY: 503,
    Rejection.INTERNAL: 500,
}


class Now:
    """Time that stands still until it is set."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class Client:
    """The client's side of one `ServerConnection` on a played transport."""

    def __init__(self, service: PlayedService | None = None, *, limits: ServerLimits | None = None) -> None:
        self.service = service or PlayedService()
        self.now = Now()
        self.shared = Shared(self.service, limits or ServerLimits(), self.now)
        self.connection = ServerConnection(self.shared)
        self.transport = PlayedTransport()
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    @property
    def exchanges(self) -> list[Exchange]:
        return self.service.exchanges

    def send(self, data: bytes, *, each: int | None = None) -> None:
        """In reads of `each` bytes, or in one."""
        size = each or max(1, len(data))
        for at in range(0, len(data), size):
            if not self.transport.closed:
                self.connection.data_received(data[at : at + size])

    def wait(self, seconds: float) -> None:
        """Lets time pass, swept four times a second."""
        end_s = self.now.s + seconds
        while self.now.s < end_s:
            self.now.s = min(end_s, self.now.s + 0.25)
            if self.connection in self.shared.open:
                self.connection.sweep(self.now.s)

    @property
    def refused(self) -> bool:
        """Told an error of the server's own, and our half of the connection is shut."""
        return bool(self.service.rejections) and (self.transport.eof_sent or self.transport.closed)


class Listener:
    """An `ExchangeListener` that remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def client_left(self) -> None:
        self.told.append("left")

    def client_slow(self) -> None:
        self.told.append("slow")

    def client_ready(self) -> None:
        self.told.append("ready")


class Sink:
    """A `BodySink` that remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = 0

    def body_piece(self, data: bytes) -> None:
        assert not self.ended
        assert data
        self.data += data

    def body_end(self) -> None:
        self.ended += 1


class Receiver:
    """A `Receiver` that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.pieces: list[bytes] = []
        self.framed: list[bytes] = []
        self.reads = 0
        self.ended = False
        self.fault: ConnectionFault | None = None
        self.detail = ""
        self.told_over: Callable[[], object] = int

    def response_head(self, status: int, headers: Headers) -> None:
        assert not self.status
        assert not self.over
        self.status, self.headers = status, headers

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        assert self.status
        assert not self.over
        assert pieces
        self.reads += 1
        self.framed.append(data)
        self.pieces += pieces

    def response_end(self) -> None:
        assert self.status
        assert not self.over
        self.ended = True
        self.told_over()

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        assert not self.over
        self.fault, self.detail = fault, detail
        self.told_over()

    @property
    def over(self) -> bool:
        return self.ended or self.fault is not None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class PlayedOwner:
    """The pool around one `ClientConnection`, which it never sends again."""

    def __init__(self, *, max_head_bytes: int = 64 * 1024) -> None:
        self.max_head_bytes = max_head_bytes
        self.told: list[str] = []

    def made(self, connection: ClientConnection) -> None:
        self.told.append("made")

    def released(self, connection: ClientConnection) -> None:
        self.told.append("released")

    def lost(self, connection: ClientConnection) -> None:
        self.told.append("lost")

    def sent_again(self, connection: ClientConnection, ticket: ClientTicket) -> bool:
        return False


class Upstream:
    """The other side of one `ClientConnection` on a played transport, with a request on its way."""

    def __init__(
        self, request: bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", *, max_head_bytes: int = 64 * 1024
    ) -> None:
        self.owner = PlayedOwner(max_head_bytes=max_head_bytes)
        self.connection = ClientConnection(self.owner)
        self.transport = PlayedTransport()
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)
        self.receiver = Receiver()
        self.ticket = ClientTicket(request, self.receiver)
        self.connection.send(self.ticket, 0.0)

    def send(self, data: bytes, *, each: int | None = None) -> None:
        size = each or max(1, len(data))
        for at in range(0, len(data), size):
            if not self.transport.closed:
                self.connection.data_received(data[at : at + size])

    def hang_up(self, error: Exception | None = None) -> None:
        """The end of what the upstream sends, or an error."""
        if error is None:
            self.connection.eof_received()
        self.transport.closed = True
        self.connection.connection_lost(error)

    @property
    def kept(self) -> bool:
        return "released" in self.owner.told
