"""What the users of `net` implement, and what they may ask of it.

Server side: a `Service` routes each request; a route's `handle` gets the `Exchange` and answers on it.
Client side: whoever sends a request gives a `Receiver` and gets a `Ticket`.
No coroutine, task or future on either path; everything is called on the event loop's thread.
"""

import enum
from collections.abc import Callable
from typing import Protocol

Headers = list[tuple[bytes, bytes]]
"""In the order of arrival; names in lower case, values without surrounding white space."""


class ExchangeListener(Protocol):
    """Told by an exchange, between the call of `handle` and the end of the answer."""

    def client_left(self) -> None:
        """The connection is gone; nothing can be written any more. Called at most once, never after the answer is complete."""
        ...

    def client_slow(self) -> None:
        """More is buffered towards the client than is good: stop producing."""
        ...

    def client_ready(self) -> None:
        """The buffer has drained: produce again."""
        ...


class Exchange(Protocol):
    """One request on a server connection, and the right to answer it: `respond` once, or `start`, writes, `finish`.

    Answers to pipelined requests leave in the order of the requests: the next request is handed over when this one's
    answer is complete. After `client_left` every method is a no-op.
    """

    method: bytes
    path: bytes  # without the query, as it came (not unquoted)
    query: bytes
    headers: Headers
    body: bytes  # complete when `handle` is called, empty for streamed routes
    peer: str  # address of the other side, "" where unknown
    http10: bool
    received_at: float  # loop time when the request was complete
    listener: ExchangeListener | None
    sink: "BodySink | None"  # set by the handler of a streamed route

    def pause_body(self) -> None:
        """Streamed routes: stop reading the request body (backpressure)."""
        ...

    def resume_body(self) -> None: ...

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """A complete answer in one write. `headers`: whole header lines, each ended by CRLF, without framing headers."""
        ...

    def start(self, status: int, headers: bytes) -> None:
        """Begin an answer of unknown length (chunked; closed by the end of connection for HTTP/1.0). Leaves with the first write."""
        ...

    def write(self, pieces: list[bytes]) -> None:
        """Body bytes, framed here, in one write to the transport."""
        ...

    def write_framed(self, data: bytes) -> None:
        """Whole chunks that are already framed and legal. Only when `accepts_framed` is true."""
        ...

    @property
    def accepts_framed(self) -> bool: ...

    def finish(self) -> None:
        """The answer is complete; the connection is kept if HTTP allows it."""
        ...

    def abort(self) -> None:
        """End the connection so that the client sees that the answer is incomplete."""
        ...


class BodySink(Protocol):
    """Receives the body of a streamed route as it comes."""

    def body_piece(self, data: bytes) -> None: ...
    def body_end(self) -> None: ...


class Route:
    """Where a request goes. `streamed`: `handle` is called when the head is complete and sets `exchange.sink`."""

    __slots__ = ("handle", "max_body_bytes", "streamed")

    def __init__(self, handle: "Callable[[Exchange], None]", *, max_body_bytes: int, streamed: bool = False) -> None:
        self.handle = handle
        self.max_body_bytes = max_body_bytes
        self.streamed = streamed


class Rejection(enum.Enum):
    """Why the server itself refuses a request. The connection is closed after the answer."""

    MALFORMED = "malformed"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    TOO_SLOW = "too_slow"
    DRAINING = "draining"  # not received whole when the time to drain was over
    TOO_MANY_CONNECTIONS = "too_many_connections"
    BUSY = "busy"  # as many requests as may run on a bounded route are running
    INTERNAL = "internal"  # a route raised, or did something that it must not


class Service(Protocol):
    """What a server serves."""

    def route(self, method: bytes, path: bytes) -> Route:
        """Called when a request's head is complete. Never fails: an unknown path has a route that says so."""
        ...

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        """Status, header lines and body of the answer to a request that the server refuses by itself."""
        ...


class ConnectionFault(enum.Enum):
    """Why a response will not come, or not whole."""

    CONNECT = "connect"  # refused, unreachable, timed out, TLS or proxy said no
    LOST = "lost"  # closed or reset before the response was complete
    MALFORMED = "malformed"  # not HTTP/1.1
    TOO_LARGE = "too_large"  # response head over the limit


class Receiver(Protocol):
    """Gets one response: a head, pieces, then `response_end`; or `response_failed` at any moment. Nothing after either."""

    def response_head(self, status: int, headers: Headers) -> None: ...

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        """What one read brought. `pieces`: the body bytes. `data`: the same as framed chunks that may be passed on as
        they are to a peer that takes chunked; empty where that is not so. Neither may be kept without a copy of the list."""
        ...

    def response_end(self) -> None: ...

    def response_failed(self, fault: ConnectionFault, detail: str) -> None: ...


class Ticket(Protocol):
    """A request on its way. After `cancel` its receiver is never called again."""

    def cancel(self) -> None:
        """Give up: the connection is closed at once, so that the other side can stop working."""
        ...

    def pause(self) -> None:
        """Stop reading the response (backpressure)."""
        ...

    def resume(self) -> None: ...


class Origin(Protocol):
    """One place that requests can be sent to, with its pool of kept-alive connections."""

    def send(self, request: bytes, receiver: Receiver) -> Ticket:
        """Send a complete HTTP/1.1 request (head and body in one). Uses an idle connection (last in, first out), else
        opens one. If an idle connection turns out to be dead before any byte of a response came, the request is sent
        once more on a new connection; that is not told to the receiver. Dead means lost within
        `ClientLimits.stale_window_s` of sending. The receiver is never called before `send` has returned."""
        ...
