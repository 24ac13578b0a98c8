"""The answering side of one request: bytes of a status, headers and a body, framed as the client's HTTP version allows.

Hot path. What matters for speed: one object per request with slots, status lines formatted once, one `transport.write` per call,
the head of a streamed answer joined to its first chunk, and no look-up of the connection's state beyond two attributes.
"""

import asyncio
from http import HTTPStatus
from typing import Protocol

from spillway.net.ports import BodySink, ExchangeListener, Headers, Route

STATUS_LINES = {int(status): b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
CLOSE = b"connection: close\r\n"
KEEP_10 = b"connection: keep-alive\r\n"
JOIN_BELOW_BYTES = (
    64 * 1024
)  # a larger body is handed to the transport as it is instead of being copied behind its head


class AnsweringConnection(Protocol):
    """What an exchange needs of its connection. `closing`: the server drains; an answer is the last if `more` says no."""

    transport: asyncio.Transport
    closing: bool

    def more(self) -> bool: ...
    def answered(self, *, keep: bool) -> None: ...
    def cut(self) -> None: ...
    def pause_body(self, exchange: "ServerExchange") -> None: ...
    def resume_body(self, exchange: "ServerExchange") -> None: ...


class ServerExchange:
    """`ports.Exchange`. The connection fills in the request; the route's handler answers.

    `body_complete`: the whole request was received; only then can the connection be kept.
    """

    __slots__ = (
        "_begun", "_connection", "_head", "body", "body_complete", "expects_continue", "headers", "http10", "keep",
        "listener", "method", "path", "peer", "query", "received_at", "route", "sink",
    )  # fmt: skip

    def __init__(
        self,
        connection: AnsweringConnection,
        route: Route,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Headers,
        peer: str,
    ) -> None:
        self._connection: AnsweringConnection | None = connection
        self.route = route
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = b""
        self.peer = peer
        self.http10 = False
        self.keep = True
        self.expects_continue = False
        self.body_complete = False
        self.received_at = 0.0
        self.listener: ExchangeListener | None = None
        self.sink: BodySink | None = None
        self._begun = False
        self._head = b""  # of a streamed answer, until it leaves with the first write

    @property
    def begun(self) -> bool:
        """The status of the answer is decided."""
        return self._begun

    @property
    def accepts_framed(self) -> bool:
        return not self.http10 and self.method != b"HEAD"

    def pause_body(self) -> None:
        if self._connection is not None:
            self._connection.pause_body(self)

    def resume_body(self) -> None:
        if self._connection is not None:
            self._connection.resume_body(self)

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._begun:
            raise RuntimeError("an answer that was started cannot be given a second time")
        keep = self.keep and self.body_complete and not (connection.closing and not connection.more())
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        fate = CLOSE if not keep else KEEP_10 if self.http10 else b""
        if status == 204 or status == 304:
            head, body = b"%b%b%b\r\n" % (line, headers, fate), b""
        else:
            head = b"%b%bcontent-length: %d\r\n%b\r\n" % (line, headers, len(body), fate)
        if self.method == b"HEAD":
            body = b""
        self.detach()
        if len(body) < JOIN_BELOW_BYTES:
            connection.transport.write(head + body)
        else:
            connection.transport.writelines((head, body))
        connection.answered(keep=keep)

    def start(self, status: int, headers: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._begun:
            raise RuntimeError("an answer that was started cannot be started again")
        self._begun = True
        if self.http10 or not self.body_complete or (connection.closing and not connection.more()):
            self.keep = False
        fate = b"" if self.keep else CLOSE
        framing = b"" if self.http10 else b"transfer-encoding: chunked\r\n"
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._head = b"%b%b%b%b\r\n" % (line, headers, framing, fate)

    def write(self, pieces: list[bytes]) -> None:
        if self._connection is None:
            return
        size = sum(map(len, pieces))
        if not size:
            return
        if self.method == b"HEAD":
            self._send(b"")
        elif self.http10:
            self._send(b"".join(pieces))
        else:
            self._send(b"".join((b"%x\r\n" % size, *pieces, b"\r\n")))

    def write_framed(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or not data:
            return
        if self._head:
            data, self._head = self._head + data, b""
        connection.transport.write(data)

    def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._head:
            data, self._head = self._head + data, b""
        if data:
            connection.transport.write(data)

    def finish(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if not self._begun:
            raise RuntimeError("an answer cannot be finished before it was started")
        end = b"" if self.http10 or self.method == b"HEAD" else b"0\r\n\r\n"
        head, self._head = self._head, b""
        self.detach()
        if head or end:
            connection.transport.write(head + end)
        connection.answered(keep=self.keep)

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self.detach()
            connection.cut()

    def detach(self) -> None:
        """From now on every method is a no-op and nobody is told anything."""
        self._connection = None
        self.listener = None
        self.sink = None


def peer_address(transport: asyncio.Transport) -> str:
    """For `peer`: the address of the other side, without its port."""
    address = transport.get_extra_info("peername")
    return str(address[0]) if isinstance(address, tuple) else ""
