"""Answers without any generation: the error bodies of an engine, and the faults that strike before it starts."""

from typing import NamedTuple

from spillway.core.clock import Timer
from spillway.testing.fake_engine import FakeEngine
from spillway.testing.faults import Fault, FaultKind
from spillway.testing.openai_bodies import error_body
from spillway.testing.raw_http import RawExchange
from spillway.testing.seen import Ending, Seen


class Refusal(NamedTuple):
    """One error answer."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None

    def body(self) -> bytes:
        return error_body(self.message, self.kind, param=self.param, code=self.code)


OVERLOADED = Refusal(429, "rate_limit_error", "rate_limit_exceeded", "The engine's waiting queue is full.")

_REFUSALS: dict[FaultKind, Refusal] = {
    FaultKind.RATE_LIMITED: Refusal(429, "rate_limit_error", "rate_limit_exceeded", "Rate limit reached."),
    FaultKind.SERVER_ERROR: Refusal(500, "server_error", None, "The server had an error."),
    FaultKind.BAD_GATEWAY: Refusal(502, "server_error", None, "Bad gateway."),
    FaultKind.UNAVAILABLE: Refusal(503, "server_error", None, "The engine is overloaded."),
    FaultKind.BAD_KEY: Refusal(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    FaultKind.MODEL_NOT_FOUND: Refusal(404, "invalid_request_error", "model_not_found", "No such model.", "model"),
    FaultKind.CONTEXT_LENGTH_EXCEEDED: Refusal(
        400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is exceeded.", "messages"
    ),
    FaultKind.CONTENT_FILTER: Refusal(
        400, "invalid_request_error", "content_filter", "The response was filtered by the content policy.", "prompt"
    ),
    FaultKind.REJECT_SHAPE: Refusal(
        400, "invalid_request_error", "unsupported_parameter", "Unsupported parameter for this model.", "tools"
    ),
}  # fmt: skip

STRIKES_BEFORE_START = frozenset(_REFUSALS) | {
    FaultKind.RESET, FaultKind.NO_RESPONSE, FaultKind.MALFORMED_HTTP, FaultKind.HUGE_HEADER, FaultKind.CLOSE_AFTER_HEAD,
}  # fmt: skip


class FaultyAnswer:
    """Answers one exchange with a fault of `STRIKES_BEFORE_START`, after the fault's `delay_s`. `seen` None: not logged."""

    def __init__(self, engine: FakeEngine, exchange: RawExchange, fault: Fault, seen: Seen | None) -> None:
        self._engine = engine
        self._exchange = exchange
        self._fault = fault
        self._seen = seen
        self._timer: Timer | None = None

    def begin(self) -> None:
        self._exchange.listener = self
        if self._fault.delay_s:
            self._timer = self._engine.timers.call_at(self._engine.now() + self._fault.delay_s, self._strike)
        else:
            self._strike()

    def client_left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end(Ending.LEFT)

    def _strike(self) -> None:
        exchange = self._exchange
        match self._fault.kind:
            case FaultKind.NO_RESPONSE:
                return
            case FaultKind.RESET:
                exchange.reset()
            case FaultKind.MALFORMED_HTTP:
                exchange.raw(b"HTTP/9 what nonsense\r\nthis is : not\x00a header\r\n\r\n\xff\xfe")
                exchange.abort()
            case FaultKind.CLOSE_AFTER_HEAD:
                self._status(200)
                exchange.start()
                exchange.abort()
            case FaultKind.HUGE_HEADER:
                self._status(200)
                exchange.respond(200, b"{}", extra=b"x-padding: %b\r\n" % (b"x" * self._fault.size_bytes))
            case kind:
                refusal = _REFUSALS[kind]
                self._status(refusal.status)
                exchange.respond(refusal.status, refusal.body(), extra=self._retry_after())
        self._end(Ending.FAULTED)

    def _retry_after(self) -> bytes:
        seconds = self._fault.retry_after_s
        return b"" if seconds is None else b"retry-after: %g\r\n" % seconds

    def _status(self, status: int) -> None:
        if self._seen is not None:
            self._seen.status = status

    def _end(self, ending: Ending) -> None:
        if self._seen is not None:
            self._engine.end(self._seen, ending)
