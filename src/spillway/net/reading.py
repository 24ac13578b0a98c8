"""From the bytes of a connection to requests: what is accepted, and why the rest is refused.

Hot path. What matters for speed: llhttp's callbacks only append; a header costs one `lower`, one set look-up and one `append`;
the few headers that decide framing take the slower road; the HTTP version is asked for only where it can differ from 1.1.

llhttp (httptools 0.9) already refuses: Content-Length together with Transfer-Encoding, repeated or non-decimal Content-Length,
bare LF or CR, folded headers, space before a colon, control characters in values, chunk sizes with anything but hex digits.
Left to this file: Transfer-Encoding other than exactly `chunked`, or with HTTP/1.0; versions other than 1.0 and 1.1; Host
not exactly once; tunnels and upgrades; fragments in the target; and every size, as llhttp bounds none.
"""

from collections import deque
from collections.abc import Callable

import httptools

from spillway.net.exchange import AnsweringConnection, ServerExchange
from spillway.net.ports import Headers, Rejection, Service
from spillway.net.settings import ServerLimits

FEED_BYTES = 16 * 1024
"""What may be fed at once beyond the body that is due: bounds the requests parsed ahead of their turn."""

FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"))
FOREIGN_METHODS = frozenset(
    b"CONNECT SOURCE DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)
"""Of tunnels, Icecast and RTSP. llhttp parses those too; where RTSP says OPTIONS, GET or POST its framing is HTTP's."""

MAX_LOOSE_PIECES = 1024  # of a body; then they are joined: a body in one-byte chunks must not cost forty times its size
CHUNK_OVERHEAD = 16  # wire bytes per body byte of a chunked body, over which the framing is an attack


class RefusedError(Exception):
    """A request that cannot be served. The connection is answered with the rejection and closed."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(reason.value)
        self.reason = reason


class RequestReader:
    """Parses the requests of one connection. `feed` raises nothing but `RefusedError`, and is not called again after it.

    `ready`: exchanges in the order of their requests: buffered ones when complete, streamed ones from the end of their head.
    `incoming`: the exchange whose body is being received. `in_head`: a head has begun and is not complete.
    `ended`: the last request said that it is the last; what comes after it is not looked at.
    `body_rest`: bytes of the incoming body that are still due, 0 where the length is not known.
    `progress`: set by every head that begins and every piece of a body; the connection's sweep resets it.
    """

    __slots__ = (
        "_blocks", "_body_bytes", "_chunked", "_connection", "_content_length", "_expects", "_feed", "_find_route", "_head_bytes",
        "_headers", "_hosts", "_limits", "_now", "_parser", "_pieces", "_upgrade", "_url", "_version_known", "_wire_bytes",
        "body_rest", "ended", "in_head", "incoming", "peer", "progress", "ready",
    )  # fmt: skip

    def __init__(
        self,
        connection: AnsweringConnection,
        service: Service,
        limits: ServerLimits,
        now: Callable[[], float],
    ) -> None:
        self._connection: AnsweringConnection | None = connection
        self._find_route = service.route
        self._limits = limits
        self._now = now
        self.peer = ""
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._feed: Callable[[bytes | memoryview], None] = self._parser.feed_data
        self.ready: deque[ServerExchange] = deque()
        self.incoming: ServerExchange | None = None
        self.ended = False
        self.body_rest = 0
        self._head_bytes = 0
        self._wire_bytes = 0
        self._body_bytes = 0
        self._pieces: list[bytes] = []
        self._blocks: list[bytes] = []
        self.on_message_begin()
        self.in_head = False

    def close(self) -> None:
        """Breaks the cycle of references between the parser and this object."""
        self._parser = None
        self._feed = _ignore
        self._connection = None
        self.incoming = None
        self.in_head = False
        self.ended = True
        self.ready.clear()

    def feed(self, data: bytes | memoryview) -> None:
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            raise _refusal(error) from error
        if self.in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes + FEED_BYTES:
                raise RefusedError(Rejection.HEAD_TOO_LARGE)
        elif self._chunked and self.incoming is not None:
            self._bound_chunks(len(data))

    def _bound_chunks(self, read_bytes: int) -> None:
        """Chunk sizes, extensions and trailers are bytes too, and pieces are objects."""
        self._wire_bytes += read_bytes
        if self._wire_bytes > CHUNK_OVERHEAD * self._body_bytes + self._limits.max_head_bytes + FEED_BYTES:
            raise RefusedError(Rejection.MALFORMED)
        if len(self._pieces) > MAX_LOOSE_PIECES:
            self._blocks.append(b"".join(self._pieces))
            self._pieces.clear()

    def take_body(self) -> bytes:
        """What has come of the incoming body since the last time."""
        pieces = self._pieces
        if self._blocks:
            body = b"".join((*self._blocks, *pieces))
            self._blocks.clear()
        else:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    @property
    def body_waits(self) -> bool:
        """Something has come of the incoming body."""
        return bool(self._pieces or self._blocks)

    def on_message_begin(self) -> None:
        self.in_head = True
        self.progress = True
        self._url = b""
        self._headers: Headers = []
        self._hosts = 0
        self._content_length = 0
        self._chunked = False
        self._version_known = True
        self._upgrade = False
        self._expects = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            return  # a trailer: none means anything to us
        name = name.lower()
        value = value.rstrip()
        if name in FRAMING:
            self._note_framing(name, value)
        self._headers.append((name, value))

    def _note_framing(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._content_length = int(value)
        elif name == b"connection":
            self._version_known = False
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise RefusedError(Rejection.MALFORMED)
            self._chunked = True
        elif name == b"upgrade":
            self._upgrade = True
        else:
            self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        parser = self._parser
        connection = self._connection
        if parser is None or connection is None:
            return
        keep = parser.should_keep_alive()
        # without a Connection header only HTTP/1.1 is kept, so that the version need not be asked for
        http10 = False if keep and self._version_known else self._is_http10(parser.get_http_version())
        if self._hosts != 1 and not (http10 and self._hosts == 0):
            raise RefusedError(Rejection.MALFORMED)
        if len(self._headers) > self._limits.max_headers or self._head_bytes + FEED_BYTES > self._limits.max_head_bytes:
            self._bound_head()
        method = parser.get_method()
        if method in FOREIGN_METHODS or (self._upgrade and parser.should_upgrade()):
            raise RefusedError(Rejection.MALFORMED)
        url = self._url
        if not url.startswith(b"/") or b"#" in url:
            url = self._target(url)
        path, _, query = url.partition(b"?")
        route = self._find_route(method, path)
        if self._content_length > route.max_body_bytes:
            raise RefusedError(Rejection.BODY_TOO_LARGE)
        self.incoming = exchange = ServerExchange(connection, route, method, path, query, self._headers, self.peer)
        exchange.http10 = http10
        exchange.keep = keep
        exchange.expects_continue = self._expects and not http10
        self.in_head = False
        self.body_rest = self._content_length
        self._head_bytes = self._wire_bytes = self._body_bytes = 0
        if route.streamed:
            self.ready.append(exchange)

    def _is_http10(self, version: str) -> bool:
        if version == "1.1":
            return False
        if version != "1.0" or self._chunked:
            raise RefusedError(Rejection.MALFORMED)
        return True

    def _bound_head(self) -> None:
        """Called where the head can be too large, whatever of the last read belongs to it."""
        limits = self._limits
        headers = self._headers
        if len(headers) > limits.max_headers:
            raise RefusedError(Rejection.HEAD_TOO_LARGE)
        if len(self._url) + sum(len(name) + len(value) + 4 for name, value in headers) > limits.max_head_bytes:
            raise RefusedError(Rejection.HEAD_TOO_LARGE)

    def _target(self, url: bytes) -> bytes:
        """Path and query. Of a target in absolute form the authority is left out, as nothing here routes by it."""
        if b"#" in url:
            raise RefusedError(Rejection.MALFORMED)
        if url == b"*":
            return url
        scheme, separator, rest = url.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise RefusedError(Rejection.MALFORMED)
        end = min(at for at in (rest.find(b"/"), rest.find(b"?"), len(rest)) if at >= 0)
        path = rest[end:]
        return path if path.startswith(b"/") else b"/" + path

    def on_body(self, data: bytes) -> None:
        exchange = self.incoming
        if exchange is None:
            return
        self.progress = True
        if self._chunked:
            self._body_bytes += len(data)
            if self._body_bytes > exchange.route.max_body_bytes:
                raise RefusedError(Rejection.BODY_TOO_LARGE)
        else:
            self.body_rest -= len(data)
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        exchange = self.incoming
        if exchange is None:
            return
        self.incoming = None
        exchange.body_complete = True
        exchange.received_at = self._now()
        if not exchange.keep:
            self.ended = True
        if self._pieces or self._blocks:
            exchange.body = self.take_body()
        if not exchange.route.streamed:
            self.ready.append(exchange)


def _ignore(data: bytes | memoryview) -> None:  # stands in for the parser when there is none
    del data


def _refusal(error: httptools.HttpParserError) -> RefusedError:
    """Which of our refusals stopped the parser; its own are all the client's fault."""
    if not isinstance(error, httptools.HttpParserCallbackError):
        return RefusedError(Rejection.MALFORMED)
    cause = error.__context__
    return cause if isinstance(cause, RefusedError) else RefusedError(Rejection.INTERNAL)
