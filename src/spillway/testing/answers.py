"""Answers that generate: streamed or whole, and the faults that strike on the way."""

from collections.abc import Callable

from spillway.core.clock import Seconds, Timer
from spillway.testing.fake_engine import FakeEngine
from spillway.testing.faults import Fault, FaultKind
from spillway.testing.openai_bodies import BROKEN_EVENT, DONE, Dialect, error_body, usage_of
from spillway.testing.raw_http import RawExchange
from spillway.testing.refusals import OVERLOADED
from spillway.testing.seen import Ending, Seen
from spillway.testing.sequences import EngineFullError, Sequence
from spillway.testing.tokens import word

SLOW_FIRST_TOKEN_S = 30.0  # where the fault says no delay_s
_BAD_CHUNK = b"zz\r\nthis is no chunk\r\n"
_ERROR = error_body("The engine failed while generating.", "server_error")
_JSON = b"application/json"
_STRIKES_MID_STREAM = frozenset({
    FaultKind.CUT, FaultKind.RESET_MID_STREAM, FaultKind.STALL, FaultKind.MALFORMED_CHUNK, FaultKind.BAD_FRAMING,
    FaultKind.ERROR_EVENT, FaultKind.FILTERED_MID_STREAM,
})  # fmt: skip
_GARBAGE = b"\x00garbage after the message\r\n\r\n"


class GeneratedAnswer:
    """Common to all: the life of a sequence between the engine and an exchange.

    `seen` says how many tokens come in and go out; `reason` is the finish reason of an undisturbed reply.
    """

    def __init__(
        self, engine: FakeEngine, exchange: RawExchange, seen: Seen, fault: Fault | None, *, reason: str
    ) -> None:  # fmt: skip
        self._engine = engine
        self._exchange = exchange
        self._seen = seen
        self._fault = fault
        self._kind = fault.kind if fault else None
        self._reason = reason
        self._sequence = Sequence(seen.prompt_tokens, seen.asked_tokens, self)
        self._timer: Timer | None = None

    def begin(self) -> None:
        self._exchange.listener = self
        if self._fault is not None and self._kind is FaultKind.SLOW_FIRST_TOKEN:
            self._later(self._fault.delay_s or SLOW_FIRST_TOKEN_S, self._submit)
        else:
            self._submit()

    def generated(self, count: int) -> None:
        if not self._seen.generated_tokens:
            self._seen.started_s = self._sequence.started_at_s
            self._engine.totals.ttft.add(self._engine.now() - self._seen.arrived_s)
        self._seen.generated_tokens += count
        self._engine.totals.generation_tokens += count
        self._advance()

    def completed(self) -> None:
        totals = self._engine.totals
        totals.successes[self._reason] += 1
        totals.e2e.add(self._engine.now() - self._seen.arrived_s)
        self._complete()

    def client_left(self) -> None:
        self._over(Ending.LEFT)

    def _advance(self) -> None:
        """More tokens are there."""

    def _complete(self) -> None:
        """All tokens are there."""
        raise NotImplementedError

    def _submit(self) -> None:
        self._timer = None
        try:
            self._engine.sequences.submit(self._sequence)
        except EngineFullError:
            self._seen.status = OVERLOADED.status
            self._exchange.respond(OVERLOADED.status, OVERLOADED.body())
            self._over(Ending.REFUSED)
            return
        self._engine.totals.prompt_tokens += self._seen.prompt_tokens

    def _later(self, delay_s: Seconds, action: Callable[[], None]) -> None:
        self._timer = self._engine.timers.call_at(self._engine.now() + delay_s, action)

    def _over(self, ending: Ending) -> None:
        """The engine stops working for this request, whoever ended it."""
        if self._timer is not None:
            self._timer.cancel()
        self._seen.started_s = self._sequence.started_at_s
        self._engine.sequences.cancel(self._sequence)
        self._engine.end(self._seen, ending)

    @property
    def _point(self) -> int:
        """After how many tokens the fault strikes: never later than the end of the reply."""
        return min(self._fault.after_tokens, self._seen.asked_tokens) if self._fault else 0


class StreamedAnswer(GeneratedAnswer):
    """Server-sent events, each token as soon as it is there."""

    def __init__(
        self,
        engine: FakeEngine,
        exchange: RawExchange,
        seen: Seen,
        fault: Fault | None,
        *,
        reason: str,
        dialect: Dialect,
        start: int,
        with_usage: bool,
    ) -> None:
        super().__init__(engine, exchange, seen, fault, reason=reason)
        self._dialect = dialect
        self._start = start
        self._with_usage = with_usage and self._kind is not FaultKind.NO_USAGE
        self._struck = self._kind not in _STRIKES_MID_STREAM
        self._silent = False
        self._whole = False  # all tokens are there

    def _advance(self) -> None:
        if self._silent:
            return
        made = self._seen.generated_tokens
        self._send_tokens(made if self._struck else min(made, self._point))
        if not self._struck and self._seen.sent_tokens >= self._point:
            self._struck = True
            self._strike()

    def _complete(self) -> None:
        self._whole = True
        if not self._silent:
            self._finish()

    def _send_tokens(self, until: int) -> None:
        pieces: list[bytes] = []
        if not self._seen.status:
            self._seen.status = 200
            self._exchange.start()
            pieces.append(self._dialect.opening())
        for index in range(self._seen.sent_tokens, until):
            pieces.append(self._dialect.event(word(self._start, index)))
            if self._kind is FaultKind.COMMENTS:
                pieces.append(b": still here\n\n")
        self._seen.sent_tokens = until
        if data := b"".join(pieces):
            self._exchange.chunk(data)

    def _strike(self) -> None:
        exchange = self._exchange
        match self._kind:
            case FaultKind.STALL:
                self._fall_silent()
                return
            case FaultKind.MALFORMED_CHUNK:
                exchange.chunk(BROKEN_EVENT)
                self._advance()
                return
            case FaultKind.FILTERED_MID_STREAM:
                self._reason = "content_filter"
                self._finish()
                return
            case FaultKind.BAD_FRAMING:
                exchange.raw(_BAD_CHUNK)
                exchange.abort()
            case FaultKind.ERROR_EVENT:
                exchange.finish(b"data: %b\n\n" % _ERROR)
            case FaultKind.RESET_MID_STREAM:
                exchange.reset()
            case _:
                exchange.abort()
        self._over(Ending.FAULTED)

    def _fall_silent(self) -> None:
        self._silent = True
        if self._fault is not None and self._fault.delay_s:
            self._later(self._fault.delay_s, self._speak_again)

    def _speak_again(self) -> None:
        self._silent = False
        self._advance()
        if self._whole:
            self._finish()

    def _finish(self) -> None:
        tail = self._dialect.last_event(self._reason)
        if self._with_usage:
            tail += self._dialect.usage_event(usage_of(self._seen.prompt_tokens, self._seen.sent_tokens))
        if self._kind is not FaultKind.NO_DONE:
            tail += DONE
        self._exchange.finish(tail, after=_GARBAGE if self._kind is FaultKind.GARBAGE_AFTER else b"")
        self._over(Ending.FINISHED)


class WholeAnswer(GeneratedAnswer):
    """One JSON document when all is generated. `make_body` gets the finish reason."""

    def __init__(
        self,
        engine: FakeEngine,
        exchange: RawExchange,
        seen: Seen,
        fault: Fault | None,
        *,
        reason: str,
        make_body: Callable[[str], bytes],
    ) -> None:
        super().__init__(engine, exchange, seen, fault, reason=reason)
        self._make_body = make_body
        self._rest = b""

    def _complete(self) -> None:
        exchange = self._exchange
        self._seen.status = 200
        if self._kind is FaultKind.FILTERED_MID_STREAM:
            self._reason = "content_filter"
        body = self._make_body(self._reason)
        match self._kind:
            case FaultKind.CUT | FaultKind.RESET_MID_STREAM | FaultKind.STALL:
                self._half(body)
                return
            case FaultKind.BAD_FRAMING:
                exchange.start(content_type=_JSON)
                exchange.raw(_BAD_CHUNK)
                exchange.abort()
                self._over(Ending.FAULTED)
                return
            case FaultKind.ERROR_EVENT:
                self._seen.status = 500
                exchange.respond(500, _ERROR)
                self._over(Ending.FAULTED)
                return
            case FaultKind.MALFORMED_CHUNK:
                exchange.respond(200, body[: len(body) // 2])
            case FaultKind.GARBAGE_AFTER:
                exchange.start(content_type=_JSON, body_bytes=len(body))
                exchange.finish(body, after=_GARBAGE)
            case _:
                exchange.respond(200, body)
        self._seen.sent_tokens = self._seen.generated_tokens
        self._over(Ending.FINISHED)

    def _half(self, body: bytes) -> None:
        """Half of what the head announced."""
        exchange = self._exchange
        exchange.start(content_type=_JSON, body_bytes=len(body))
        exchange.raw(body[: len(body) // 2])
        if self._kind is FaultKind.STALL:
            self._rest = body[len(body) // 2 :]
            if self._fault is not None and self._fault.delay_s:
                self._later(self._fault.delay_s, self._other_half)
            return
        if self._kind is FaultKind.RESET_MID_STREAM:
            exchange.reset()
        else:
            exchange.abort()
        self._over(Ending.FAULTED)

    def _other_half(self) -> None:
        self._exchange.finish(self._rest)
        self._seen.sent_tokens = self._seen.generated_tokens
        self._over(Ending.FINISHED)
