"""Measures one response: a `net` receiver that fills in a record and says when it is over."""

from collections.abc import Callable

from spillway.core.clock import Clock, Seconds
from spillway.load.record import CUT, MALFORMED, RequestRecord
from spillway.load.stream import StreamScanner, decode_answer, error_code
from spillway.net.ports import ConnectionFault, Headers, Ticket

MAX_BODY_BYTES = 16 << 20
"""Of an answer that is not a stream. A longer one counts as malformed."""


class ResponseMeter:
    """`over` is called exactly once, when the record is complete. After `give_up` the connection is closed."""

    __slots__ = ("_body", "_body_bytes", "_clock", "_over", "_record", "_scanner", "_started_s", "ticket")

    def __init__(
        self, record: RequestRecord, clock: Clock, started_s: Seconds, over: Callable[[RequestRecord], None]
    ) -> None:
        self.ticket: Ticket | None = None
        self._record = record
        self._clock = clock
        self._started_s = started_s
        self._over: Callable[[RequestRecord], None] | None = over
        self._scanner: StreamScanner | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0

    def response_head(self, status: int, headers: Headers) -> None:
        record = self._record
        record.status = status
        for name, value in headers:
            match name:
                case b"content-type":
                    if status == 200 and value.startswith(b"text/event-stream"):
                        self._scanner = StreamScanner()
                case b"x-spillway-pool":
                    record.pool = _text(value)
                case b"x-spillway-version":
                    record.version = _text(value)
                case b"x-spillway-spill":
                    record.spill = None if value == b"none" else _text(value)
                case b"x-spillway-attempts":
                    record.attempts = int(value) if value.isdigit() else None
                case b"x-request-id":
                    record.request_id = _text(value)
                case _:
                    pass

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        scanner = self._scanner
        if scanner is None:
            self._body_bytes += len(body)
            if self._body_bytes <= MAX_BODY_BYTES:
                self._body.append(body)
        elif scanner.feed(body) and self._record.first_s is None:
            self._record.first_s = self._now()

    def response_end(self) -> None:
        if self._scanner is not None:
            self._scanner.end()
            self._finish(_stream_error(self._scanner))
        else:
            self._finish(self._body_error())

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        """After a 200 the answer had begun: it is cut, however the connection ended."""
        in_band = self._scanner.error if self._scanner else None
        self._finish(in_band or (CUT if self._record.status == 200 else fault.value))

    def give_up(self, error: str) -> None:
        """Ends the request with `error`; nothing more is received."""
        if self._over is None:
            return
        if self.ticket is not None:
            self.ticket.cancel()
        self._finish(error)

    def _finish(self, error: str | None) -> None:
        over, self._over = self._over, None
        if over is None:
            return
        record = self._record
        record.error = error
        record.last_s = self._now()
        if self._scanner is not None:
            usage = self._scanner.usage()
            record.prompt_tokens = usage.prompt_tokens if usage else None
            record.output_tokens = usage.completion_tokens if usage else self._scanner.content_events
            record.counted = usage is None
        over(record)

    def _body_error(self) -> str | None:
        """The error of an answer that is not a stream; fills in its usage."""
        status = self._record.status
        answer = decode_answer(b"".join(self._body)) if self._body_bytes <= MAX_BODY_BYTES else None
        if status != 200:
            return error_code(answer, f"http_{status}") if answer else f"http_{status}"
        if answer is None:
            return MALFORMED
        if answer.error is not None:
            return error_code(answer, "in_band")
        if not answer.choices:
            return MALFORMED
        if answer.usage is not None:
            self._record.prompt_tokens = answer.usage.prompt_tokens
            self._record.output_tokens = answer.usage.completion_tokens
        return None

    def _now(self) -> Seconds:
        return self._clock.monotonic() - self._started_s


def _stream_error(scanner: StreamScanner) -> str | None:
    if scanner.error is not None:
        return scanner.error
    if scanner.malformed:
        return MALFORMED
    return None if scanner.complete else CUT


def _text(value: bytes) -> str | None:
    return value.decode("latin-1") or None
