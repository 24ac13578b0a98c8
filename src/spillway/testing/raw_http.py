"""A small HTTP/1.1 server that can also say what no honest server would.

`spillway.net` refuses to write broken HTTP, and its client should not be tested against its own twin alone. So the fake
upstream has this server of its own: keep-alive, one request at a time, and for faults `raw` bytes, `abort` and `reset`.
Bounds: 64 KiB of head and 64 MiB of body; over either the connection is closed. Pipelined requests wait their turn, at most 64.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from spillway.core.clock import Seconds
from spillway.net.ports import Headers

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_PIPELINED = 64
ACCEPT_TURNS = 4  # of the loop, from the kernel's accept to `connection_made`
_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_LINGER_ZERO = struct.pack("ii", 1, 0)


class LeavingListener(Protocol):
    def client_left(self) -> None: ...


class RawExchange:
    """One request and the way to answer it. After the client left, or the answer ended, writing does nothing."""

    __slots__ = ("_chunked", "_connection", "body", "headers", "keep", "listener", "method", "path")

    def __init__(self, connection: "RawConnection", method: bytes, path: bytes, headers: Headers, body: bytes) -> None:
        self._connection: RawConnection | None = connection
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.keep = True
        self._chunked = False
        self.listener: LeavingListener | None = None

    def header(self, name: bytes) -> str | None:
        return next((value.decode("latin-1") for field, value in self.headers if field == name), None)

    def respond(
        self, status: int, body: bytes, *, content_type: bytes = b"application/json", extra: bytes = b""
    ) -> None:
        """A complete answer. `extra`: whole header lines, each ended by CRLF."""
        head = _head(status, content_type, extra, b"content-length: %d\r\n" % len(body), keep=self.keep)
        self._write(head + body)
        self._end()

    def start(self, *, content_type: bytes = b"text/event-stream", body_bytes: int | None = None) -> None:
        """The head of a 200, at once: chunked, or of `body_bytes` announced."""
        self._chunked = body_bytes is None
        framing = b"transfer-encoding: chunked\r\n" if body_bytes is None else b"content-length: %d\r\n" % body_bytes
        self._write(_head(200, content_type, b"", framing, keep=self.keep))

    def chunk(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self, last: bytes = b"", *, after: bytes = b"") -> None:
        """The `last` of the body and its end, in one write; `after`: bytes behind the end of the message."""
        if self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last) if last else b"0\r\n\r\n"
        self._write(last + after)
        self._end()

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self._write(data)

    def abort(self) -> None:
        """Close now, whatever is missing. What was written is still sent."""
        if self._connection is not None:
            self._connection.close_after_flush()
        self.detach()

    def reset(self) -> None:
        """Close with a TCP reset; what was written may be lost on the way."""
        if self._connection is not None:
            self._connection.reset()
        self.detach()

    def detach(self) -> None:
        self._connection = None
        self.listener = None

    def _write(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.transport.write(data)

    def _end(self) -> None:
        connection, keep = self._connection, self.keep
        self.detach()
        if connection is not None:
            connection.answered(keep=keep)


Serve = Callable[[RawExchange], None]


class RawConnection(asyncio.Protocol):
    """Parses requests and hands them over one at a time."""

    transport: asyncio.Transport

    def __init__(self, server: "RawServer") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._ready: deque[RawExchange] = deque()
        self._current: RawExchange | None = None
        self._path = b""
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.transport.close()
            return
        if len(self._ready) > MAX_PIPELINED:
            self.transport.pause_reading()
        self._next()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.lost(self)
        current, self._current = self._current, None
        self._ready.clear()
        if current is not None:
            listener = current.listener
            current.detach()
            if listener is not None:
                listener.client_left()

    # What the parser tells

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body, self._bytes = b"", [], [], 0

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._bytes += len(name) + len(value)
        if self._bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if (b"expect", b"100-continue") in self._headers:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._bytes = 0

    def on_body(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > MAX_BODY_BYTES:
            self.transport.abort()
            return
        self._body.append(data)

    def on_message_complete(self) -> None:
        exchange = RawExchange(self, self._parser.get_method(), self._path, self._headers, b"".join(self._body))
        exchange.keep = self._parser.should_keep_alive()
        self._ready.append(exchange)

    # What exchanges ask

    def answered(self, *, keep: bool) -> None:
        self._current = None
        if not keep:
            self.transport.close()
            return
        self.transport.resume_reading()
        asyncio.get_running_loop().call_soon(self._next)

    def close_after_flush(self) -> None:
        self._current = None
        self.transport.close()

    def reset(self) -> None:
        self._current = None
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.transport.abort()

    def _next(self) -> None:
        if self._current is None and self._ready and not self.transport.is_closing():
            self._current = self._ready.popleft()
            self._server.serve(self._current)


class RawServer:
    """Listens on loopback, or wherever it is told."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.port = 0
        self._connections: set[RawConnection] = set()
        self._empty = asyncio.Event()
        self._listening: asyncio.Server | None = None
        self._closed = False

    async def listen(self, host: str, port: int) -> None:
        """Port 0 takes a free one; a server that listened before takes its port again. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._closed = False
        self._listening = await loop.create_server(
            lambda: RawConnection(self), host, port or self.port, backlog=4096
        )  # fmt: skip
        self.port = self._listening.sockets[0].getsockname()[1]

    def stop_listening(self) -> None:
        """New connections are refused from now on; those that stand go on."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    async def close(self, deadline_s: Seconds = 2.0) -> None:
        """Drops every connection at once. Raises TimeoutError where they are not gone after `deadline_s`."""
        self.stop_listening()
        self._closed = True
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.transport.abort()
        if self._connections:
            async with asyncio.timeout(deadline_s):
                await self._empty.wait()

    def opened(self, connection: RawConnection) -> None:
        self._connections.add(connection)
        self._empty.clear()
        if self._closed:
            connection.transport.abort()

    def lost(self, connection: RawConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    @property
    def connections(self) -> int:
        return len(self._connections)


def _head(status: int, content_type: bytes, extra: bytes, framing: bytes, *, keep: bool) -> bytes:
    fate = b"" if keep else b"connection: close\r\n"
    reason = _REASONS.get(status, b"")
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b%b%b\r\n" % (status, reason, content_type, extra, framing, fate)
