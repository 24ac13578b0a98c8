"""One connection to an origin: a request out, its response in, again and again.

Hot path. What matters for speed: a request is one `transport.write`; a response that comes in one read costs one feed of the parser
and three calls of the receiver; no timer, task or future per request; lists are reused.

Rules:
1. One request at a time. What comes without a request, or after the end of a response, is never delivered and ends the connection.
2. The parser is asked for keep-alive inside `on_message_complete`: afterwards it says no, and the pool would silently stop pooling.
3. A read is passed on as it came (`data` of `Receiver.response_body`) only if it begins and ends between two chunks, without
   chunk extensions, needless zeros or trailers: that is so when its pieces, framed anew, would be exactly as long.
   The last chunk, of length zero, is never part of `data`: whoever passes it on ends their answer themselves.
"""

import asyncio
from typing import Protocol, cast

import httptools

from spillway.net.ports import ConnectionFault, Headers
from spillway.net.ticket import ClientTicket

LAST_CHUNK_BYTES = 5  # 0 CR LF CR LF


class ConnectionOwner(Protocol):
    """The pool, as a connection sees it."""

    max_head_bytes: int

    def made(self, connection: "ClientConnection") -> None: ...

    def released(self, connection: "ClientConnection") -> None:
        """A response has come whole; the connection can carry another request."""
        ...

    def lost(self, connection: "ClientConnection") -> None:
        """Never to be used again. Called once for each `made`."""
        ...

    def sent_again(self, connection: "ClientConnection", ticket: ClientTicket) -> bool:
        """The connection was lost before a byte of the response came: whether the request went out once more."""
        ...


class ClientConnection(asyncio.Protocol):
    """`idle_since_s` and `reused` belong to the owner."""

    __slots__ = (
        "_at_boundary", "_chunked", "_done", "_eof", "_feed", "_head_bytes", "_head_ready", "_headers", "_in_chunk", "_in_head",
        "_keep", "_owner", "_parser", "_paused", "_pieces", "_sized", "_status", "_surplus", "_ticket",
        "idle_since_s", "reused", "sent_at_s", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._ticket: ClientTicket | None = None
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        self._paused = False
        self._eof = False
        self.reused = False
        self.idle_since_s = 0.0
        self.sent_at_s = 0.0

    def send(self, ticket: ClientTicket, now_s: float) -> None:
        self._ticket = ticket
        self.sent_at_s = now_s
        self._status = 0
        self._head_bytes = 0
        self._in_head = True
        self._head_ready = False
        self._chunked = False
        self._sized = False
        self._in_chunk = False
        self._at_boundary = False
        self._done = False
        self._keep = False
        self._surplus = False
        ticket.carrier = self
        self.transport.write(ticket.request)
        if ticket.paused:
            self.pause()

    # called by the ticket

    def abandon(self) -> None:
        self._ticket = None
        self._close()

    def pause(self) -> None:
        if not self._paused and self._parser is not None:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._parser is not None:
            self._paused = False
            self.transport.resume_reading()

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._owner.made(self)

    def data_received(self, data: bytes) -> None:
        ticket = self._ticket
        if ticket is None or ticket.receiver is None:
            self._close()
            return
        receiver = ticket.receiver
        at_boundary = self._at_boundary
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            if not self._done:
                self._fail(*_explained(error))
                return
            self._surplus = True
        if self._head_ready:
            self._head_ready = False
            receiver.response_head(self._status, self._headers)
            if self._ticket is not ticket:
                return
        framed = self._framed(data, at_boundary=at_boundary) if self._chunked else b""
        if self._pieces:
            receiver.response_body(framed, self._pieces)
            self._pieces.clear()
            if self._ticket is not ticket:
                return
        if self._done:
            self._complete(ticket)
        elif self._in_head and self._head_bytes > self._owner.max_head_bytes:
            self._fail(ConnectionFault.TOO_LARGE, "the head of the response is too large")

    def eof_received(self) -> None:
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        ticket, self._ticket = self._ticket, None
        if self._parser is None:
            return
        self._parser = None
        self._feed = _ignore
        self._owner.lost(self)
        if ticket is None or ticket.receiver is None:
            return
        if not (self._in_head or self._chunked or self._sized) and self._eof and exc is None:
            receiver, ticket.receiver, ticket.carrier = ticket.receiver, None, None
            receiver.response_end()
        elif self._head_bytes or not self._owner.sent_again(self, ticket):
            ticket.fail(ConnectionFault.LOST, str(exc) if exc else "closed before the response was complete")

    # called by the parser

    def on_message_begin(self) -> None:
        if self._done:
            raise FaultError(ConnectionFault.MALFORMED, "bytes after the end of a response")
        self._headers = []
        self._in_head = True
        self._chunked = False
        self._sized = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer
        name = name.lower()
        value = value.rstrip()
        if name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                raise FaultError(ConnectionFault.MALFORMED, "a transfer encoding other than chunked")
            self._chunked = True
        elif name == b"content-length":
            self._sized = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser, ticket = self._parser, self._ticket
        if parser is None or ticket is None:
            return
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return  # another head follows
        if not 200 <= status < 600:
            raise FaultError(ConnectionFault.MALFORMED, f"status {status}")
        limit_bytes = self._owner.max_head_bytes
        if self._head_bytes > limit_bytes and _size(self._headers) > limit_bytes:
            raise FaultError(ConnectionFault.TOO_LARGE, "the head of the response is too large")
        self._status = status
        self._in_head = False
        self._head_ready = True
        if ticket.request.startswith(b"HEAD "):
            self._done = True  # the parser would wait for a body; this connection is not kept

    def on_chunk_header(self) -> None:
        self._in_chunk = True

    def on_chunk_complete(self) -> None:
        self._in_chunk = False

    def on_body(self, data: bytes) -> None:
        if not self._done:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._parser is not None and self._status and not self._done:
            self._done = True
            self._keep = self._parser.should_keep_alive()

    def _framed(self, data: bytes, *, at_boundary: bool) -> bytes:
        """Rule 3: `data` without the last chunk if it can be passed on as it is, else empty."""
        end_bytes = LAST_CHUNK_BYTES if self._done else 0
        if at_boundary and not self._in_chunk:
            framed_bytes = end_bytes
            for piece in self._pieces:
                size = len(piece)
                framed_bytes += size + ((size.bit_length() + 3) >> 2) + 4
            if framed_bytes == len(data):
                return data[:-end_bytes] if end_bytes else data
        self._at_boundary = not self._in_chunk and data.endswith(b"\r\n")
        return b""

    # endings

    def _complete(self, ticket: ClientTicket) -> None:
        receiver = ticket.receiver
        ticket.receiver = ticket.carrier = self._ticket = None
        if self._keep and not (self._surplus or self._eof or self.transport.get_write_buffer_size()):
            if self._paused:
                self.resume()
            self._owner.released(self)
        else:
            self._close()
        if receiver is not None:
            receiver.response_end()

    def _fail(self, fault: ConnectionFault, detail: str) -> None:
        ticket, self._ticket = self._ticket, None
        self._close()
        if ticket is not None:
            ticket.fail(fault, detail)

    def close(self) -> None:
        """Ends the connection; a request on it fails."""
        self._fail(ConnectionFault.LOST, "the connection was closed on our side")

    def _close(self) -> None:
        if self._parser is not None:
            self._parser = None
            self._feed = _ignore
            self._owner.lost(self)
            self.transport.abort()


class FaultError(Exception):
    """Stops the parser inside a callback."""

    def __init__(self, fault: ConnectionFault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault


def _ignore(data: bytes | memoryview) -> None:  # stands in for the parser when there is none
    del data


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _explained(error: httptools.HttpParserError) -> tuple[ConnectionFault, str]:
    cause = error.__context__
    return (cause.fault, str(cause)) if isinstance(cause, FaultError) else (ConnectionFault.MALFORMED, str(error))
