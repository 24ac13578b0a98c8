"""One accepted connection: requests in, one at a time handed to their routes, answers out in the same order.

Hot path. What matters for speed: a request that comes whole on an idle connection takes `data_received`, one feed of the parser, one
pass of `_advance` and the route's `handle`; its answer is one `transport.write`. There is no timer, task or future per request or
per connection: the server's sweep looks at every connection about once a second, and the hot path leaves it a flag, not a time.

Rules:
1. While an exchange is being answered and its body is complete, later bytes are set aside unparsed (over `HELD_BYTES` reading
   pauses). What one feed of the parser brought beyond that waits in `reader.ready`: at most the requests in `FEED_BYTES`.
2. A request is handed over when the answer before it is complete and the client takes what is written.
3. A refusal is answered in its turn and is the last answer. A connection that ends while its client may still be sending lingers: our
   half is shut, what comes is thrown away until the client closes or `linger_s` is over. Else a reset could overtake the answer.
4. The end of the client's sending means that the client left, also where it closed only its half: GPUs that generate for nobody
   are worse than a client that loses answers which it did not wait for. What was already written is flushed.
   While reading is paused (rule 1, or by a streamed route) leaving is seen when reading goes on, or by a write.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from spillway.net.deadlines import Deadlines, Waiting
from spillway.net.exchange import CLOSE, STATUS_LINES, ServerExchange, peer_address
from spillway.net.ports import Rejection, Service
from spillway.net.reading import FEED_BYTES, RefusedError, RequestReader
from spillway.net.settings import ServerLimits

HELD_BYTES = 64 * 1024
LINGER_BYTES = 4 * 1024 * 1024
TOLD_OVER_BOUND = 1024  # connections over `max_connections` that are still told 503
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = logging.getLogger(__name__)


class Shared:
    """What the connections of one server have in common."""

    __slots__ = ("draining", "emptied", "limits", "now", "open", "service")

    def __init__(self, service: Service, limits: ServerLimits, now: Callable[[], float]) -> None:
        self.service = service
        self.limits = limits
        self.now = now
        self.open: set[ServerConnection] = set()
        self.draining = False
        self.emptied: asyncio.Future[None] | None = None


class ServerConnection(asyncio.Protocol):
    __slots__ = (
        "_advancing", "_body_paused", "_current", "_deadlines", "_ending", "_held", "_held_bytes", "_patient", "_reader",
        "_reading_paused", "_refused", "_shared", "_write_paused", "closing", "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._reader = RequestReader(self, shared.service, shared.limits, shared.now)
        self._current: ServerExchange | None = None  # handed over, not yet answered
        self._refused: Rejection | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._deadlines = Deadlines(shared.limits, shared.now())
        self._advancing = False
        self._body_paused = False  # by a streamed route
        self._reading_paused = False
        self._write_paused = False
        self._ending = False
        self._patient = False  # while draining: an idle connection may bring one more request
        self.closing = shared.draining

    # called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        limits = shared.limits
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=limits.write_buffer_bytes, low=limits.write_buffer_bytes // 4)
        self._reader.peer = peer_address(self.transport)
        shared.open.add(self)
        if len(shared.open) > limits.max_connections + TOLD_OVER_BOUND:
            self.cut()
        elif len(shared.open) > limits.max_connections:
            self._refuse(Rejection.TOO_MANY_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        current = self._current
        if (current is not None and current.body_complete) or self._held or reader.ready or reader.ended:
            self._set_aside(data)
        elif len(data) > FEED_BYTES:
            self._hold(data)
            self._advance()
        else:
            self._feed(data)
            self._advance()

    def eof_received(self) -> None:
        self._left()

    def connection_lost(self, exc: Exception | None) -> None:
        shared = self._shared
        shared.open.discard(self)
        self._left()
        if shared.emptied is not None and not shared.open and not shared.emptied.done():
            shared.emptied.set_result(None)

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._current is not None and self._current.listener is not None:
            self._current.listener.client_slow()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._current is None:
            self._advance()
        elif self._current.listener is not None:
            self._current.listener.client_ready()

    # from bytes to requests

    def _feed(self, data: bytes | memoryview) -> None:
        refusal = None
        try:
            self._reader.feed(data)
        except RefusedError as refused:
            refusal = refused.reason
            if refusal is Rejection.INTERNAL:
                log.exception("finding a route failed")
        if self._current is not None:
            self._deliver(self._current)
        if refusal is not None:
            self._refuse(refusal)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)

    def _set_aside(self, data: bytes) -> None:
        if not self._reader.ended:
            self._hold(data)
            self._update_reading()
            return
        self._held_bytes += len(data)  # thrown away, but counted
        if self._held_bytes > LINGER_BYTES:
            self.cut()

    def _parse_held(self) -> None:
        """Parses what was held until there is a request to hand over."""
        reader = self._reader
        data = memoryview(b"".join(self._held))
        self._held.clear()
        at = 0
        while at < len(data) and not (reader.ready or reader.ended or self._body_paused or self._busy()):
            size = max(FEED_BYTES, reader.body_rest)
            self._feed(data[at : at + size])
            at += size
        self._held_bytes = 0
        if at < len(data) and not reader.ended:
            self._hold(bytes(data[at:]))
        self._update_reading()

    def _busy(self) -> bool:
        """An answer is due before anything else can be."""
        return self._current is not None and self._current.body_complete

    def _update_reading(self) -> None:
        pause = self._body_paused or self._held_bytes > HELD_BYTES
        if pause and not self._reading_paused:
            self.transport.pause_reading()
        elif self._reading_paused and not pause:
            self.transport.resume_reading()
        self._reading_paused = pause

    # from requests to answers

    def _advance(self) -> None:
        """Does what can be done now, in order."""
        if self._advancing:
            return
        self._advancing = True
        reader = self._reader
        while not self._ending:
            if self._current is None:
                if self._write_paused:
                    break
                if reader.ready:
                    self._hand_over(reader.ready.popleft())
                    continue
                if self._refused is not None:
                    self._answer_refusal(self._refused)
                    break
            elif self._current.body_complete:
                break
            if not self._held or self._body_paused:
                break
            self._parse_held()
        self._advancing = False
        if reader.incoming is not None:
            self._say_continue(reader.incoming)
        else:
            self._end_if_drained()

    def _hand_over(self, exchange: ServerExchange) -> None:
        self._current = exchange
        try:
            exchange.route.handle(exchange)
        except Exception:
            log.exception("handling %s failed", exchange.path)
            self._fail(exchange)
            return
        if exchange.route.streamed and self._current is exchange:
            self._deliver(exchange)

    def _deliver(self, exchange: ServerExchange) -> None:
        """Gives the sink of a streamed route what has come of the body. Without a sink it is thrown away."""
        data = self._reader.take_body() if exchange is self._reader.incoming else exchange.body
        exchange.body = b""
        try:
            if data and exchange.sink is not None:
                exchange.sink.body_piece(data)
            if exchange.body_complete and exchange.sink is not None:
                exchange.sink.body_end()
        except Exception:
            log.exception("receiving the body of %s failed", exchange.path)
            self._fail(exchange)
        if exchange.body_complete and self._body_paused:
            self._body_paused = False
            self._update_reading()

    def _fail(self, exchange: ServerExchange) -> None:
        """The route broke: an error where there is still room for one, and its listener may clean up."""
        listener = exchange.listener
        answer = None if exchange.begun else self._rejection(Rejection.INTERNAL)
        if answer is None:
            exchange.abort()
        else:
            exchange.respond(*answer)
        if listener is not None:
            listener.client_left()

    def _say_continue(self, incoming: ServerExchange) -> None:
        its_turn = self._current is incoming or (self._current is None and not self._reader.ready)
        if incoming.expects_continue and its_turn and not self._ending:
            incoming.expects_continue = False
            if not (incoming.begun or self._reader.body_waits):
                self.transport.write(CONTINUE)

    def more(self) -> bool:
        """Something of a further request has come."""
        reader = self._reader
        return bool(reader.ready or self._held or reader.in_head or reader.incoming)

    def answered(self, *, keep: bool) -> None:
        """Called by the exchange when its answer is written."""
        reader = self._reader
        self._current = None
        reader.progress = True
        if not keep:
            self._end(linger=self.more())
        elif self._held or reader.ready or reader.incoming is not None or self._refused is not None:
            self._advance()
        elif self.closing:
            self._end_if_drained()

    # endings

    def _refuse(self, reason: Rejection) -> None:
        """Nothing more is parsed. The refusal is answered after the answers that are still due."""
        reader = self._reader
        incoming, reader.incoming = reader.incoming, None
        reader.ended = True
        reader.in_head = False
        self._held.clear()
        self._refused = reason
        if incoming is not None and incoming in reader.ready:
            reader.ready.remove(incoming)
        if incoming is not None and incoming is self._current:
            self._current = None
            begun, listener = incoming.begun, incoming.listener
            incoming.detach()
            if begun:
                self.cut()
            if listener is not None:
                listener.client_left()
        self._advance()

    def _answer_refusal(self, reason: Rejection) -> None:
        answer = self._rejection(reason)
        if answer is None:
            self.cut()
            return
        status, headers, body = answer
        line = STATUS_LINES[status]
        self.transport.write(b"%b%bcontent-length: %d\r\n%b\r\n%b" % (line, headers, len(body), CLOSE, body))
        self._end(linger=True)

    def _rejection(self, reason: Rejection) -> tuple[int, bytes, bytes] | None:
        try:
            return self._shared.service.rejection(reason)
        except Exception:
            log.exception("the service has no answer for %s", reason)
            return None

    def _end(self, *, linger: bool) -> None:
        """Closes when everything is written."""
        self._ending = True
        self._reader.ended = True
        self._reader.progress = True
        self._held.clear()
        self._held_bytes = 0
        self._body_paused = False
        if not linger:
            self.transport.close()
            return
        self._update_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def cut(self) -> None:
        """Closes at once, so that the client sees an incomplete answer."""
        self._left()
        self.transport.abort()

    def _left(self) -> None:
        self._ending = True
        self._held.clear()
        self._reader.close()
        exchange, self._current = self._current, None
        if exchange is not None:
            listener = exchange.listener
            exchange.detach()
            if listener is not None:
                listener.client_left()

    # streamed routes

    def pause_body(self, exchange: ServerExchange) -> None:
        if exchange is self._reader.incoming:
            self._body_paused = True
            self._update_reading()

    def resume_body(self, exchange: ServerExchange) -> None:
        if self._body_paused and exchange is self._current:
            self._body_paused = False
            self._update_reading()
            self._advance()

    # called by the server

    def drain(self, *, patient: bool) -> None:
        """The next answer is the last. An idle connection is closed, at once or, where `patient`, after `linger_s` without a request."""
        self.closing = True
        self._patient = patient
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self.closing and not self._patient and self._current is None and not self._ending and not self.more():
            self._end(linger=False)

    def refuse_unfinished(self) -> None:
        """The time to drain is over: what was not received whole is refused."""
        if self._current is not None or self._ending:
            return
        if self.more():
            self._refuse(Rejection.DRAINING)
        else:
            self._end(linger=False)

    def sweep(self, now_s: float) -> None:
        """Enforces the limits of time. Called about once a second."""
        waiting = self._waiting()
        progressed, self._reader.progress = self._reader.progress, False
        buffered_bytes = self.transport.get_write_buffer_size()
        if not self._deadlines.over(now_s, waiting, progressed=progressed, buffered_bytes=buffered_bytes):
            return
        if waiting is Waiting.TAKING:
            self.transport.abort()
        elif waiting is Waiting.BODY or waiting is Waiting.HEAD:
            self._refuse(Rejection.TOO_SLOW)
        else:
            self._end(linger=False)

    def _waiting(self) -> Waiting:
        if self._write_paused or self._ending:
            return Waiting.TAKING
        if self._busy() or self._reading_paused:
            return Waiting.ANSWER
        if self._reader.incoming is not None:
            return Waiting.BODY
        if self._reader.in_head:
            return Waiting.HEAD
        return Waiting.LAST_REQUEST if self.closing else Waiting.REQUEST
