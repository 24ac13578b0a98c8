"""A client behind a guard. Of a stream events are passed on only when a check that saw their text has passed. `gateway.ports.ClientPort`.

A check sees the text since the last one and `context_chars` before it, so that what is bad across the border is seen whole. One check runs
at a time; what comes meanwhile waits for the next. Beyond MOST_BYTES of waiting events the upstream is not read.
"""

from collections import deque
from collections.abc import Callable

from spillway.core.outcome import Outcome
from spillway.gateway.call import Call
from spillway.gateway.ports import ClientPort, Served
from spillway.gateway.safety import Guard
from spillway.wire import spoken, sse

MOST_BYTES = 1 << 20


class HeldBack:
    __slots__ = (
        "_call", "_checking", "_client", "_done", "_guard", "_held", "_held_bytes", "_opening", "_passed", "_stopped", "_text",
    )  # fmt: skip

    def __init__(self, call: Call, client: ClientPort, guard: Guard, stopped: Callable[[Outcome, str], None]) -> None:
        """`stopped`: what ends the call when a check does not pass."""
        self._call = call
        self._client = client
        self._guard = guard
        self._stopped = stopped
        self._opening: tuple[int, bytes, Served] | None = None
        self._held: deque[tuple[bytes, int]] = deque()  # events, and how long the text is behind each
        self._held_bytes = 0
        self._text = ""
        self._passed = 0  # so much of the text has been checked
        self._checking = False
        self._done: Callable[[], None] | None = None

    @property
    def flagged(self) -> tuple[str, ...]:
        return self._guard.flagged

    def check_answer(self, body: bytes, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]) -> None:
        """Of a whole answer, which the relay holds."""
        self._guard.check_answer(body, passed, stopped)

    def reply(self, status: int, content_type: bytes, body: bytes, served: Served) -> None:
        self._client.reply(status, content_type, body, served)

    def open(self, status: int, content_type: bytes, served: Served) -> None:
        self._opening = (status, content_type, served)

    def send(self, data: bytes, pieces: list[bytes]) -> None:
        for event in sse.raw_events(b"".join(pieces)):
            self._text += spoken.streamed(event)
            self._held.append((event, len(self._text)))
            self._held_bytes += len(event)
        if self._held_bytes > MOST_BYTES and self._call.ticket is not None:
            self._call.ticket.pause()
        self._look()

    def finish(self, done: Callable[[], None]) -> None:
        """The stream is complete: `done` is called when all of it has passed."""
        self._done = done
        self._look()

    def close(self) -> None:
        self._client.close()

    def cut(self, outcome: Outcome, message: str) -> None:
        """What was held goes nowhere."""
        self._held.clear()
        if self._opening is None:
            self._client.cut(outcome, message)
        else:
            self._client.refuse(outcome, message, self._opening[2])

    def refuse(
        self,
        outcome: Outcome,
        message: str,
        served: Served,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        self._client.refuse(outcome, message, served, retry_after_s, param, code)

    def _look(self) -> None:
        if self._checking:
            return
        rule, fresh = self._guard.rule, len(self._text) - self._passed
        if fresh < rule.window_chars and (self._done is None or not fresh):
            if self._done is not None:
                self._release(len(self._text))
                self._done()
            return
        self._checking = True
        until = len(self._text)
        text = self._text[max(0, self._passed - rule.context_chars) : until]
        self._guard.check_text(text, lambda: self._has_passed(until), self._has_stopped)

    def _has_passed(self, until: int) -> None:
        self._checking = False
        self._passed = until
        self._release(until)
        self._look()

    def _has_stopped(self, outcome: Outcome, message: str) -> None:
        self._held.clear()
        self._stopped(outcome, message)

    def _release(self, until: int) -> None:
        pieces: list[bytes] = []
        while self._held and self._held[0][1] <= until:
            pieces.append(self._held.popleft()[0])
        if not pieces:
            return
        self._held_bytes -= sum(map(len, pieces))
        if self._opening is not None:
            opening, self._opening = self._opening, None
            self._client.open(*opening)
        self._client.send(b"", pieces)
        if self._held_bytes <= MOST_BYTES // 2 and self._call.ticket is not None and not self._call.paused:
            self._call.ticket.resume()
