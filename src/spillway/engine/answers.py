"""How the answer to one generation is written: as events while text comes, or as one body at the end.

Each is the listener of its generation and of its exchange. Hot path: `StreamAnswer.progress` is called for every piece of text and does
one write. Measured by `benchmarks/engine_http.py`.
"""

from typing import Protocol

import msgspec

from spillway.engine.ports import Finish
from spillway.engine.shapes import Shape
from spillway.net.ports import Exchange
from spillway.wire import sse
from spillway.wire.openai import error_body

JSON_TYPE = b"content-type: application/json\r\n"
STREAM_HEADERS = b"content-type: text/event-stream\r\ncache-control: no-cache\r\n"
FAILED_BODY = error_body("The engine failed while it worked on this request.", "server_error", None, "engine_failed")

_encode = msgspec.json.encode


class AnswerWatcher(Protocol):
    """Told once when text begins to come, and once when the answer is over."""

    def answer_began(self) -> None: ...

    def answer_ended(self, finish: Finish | None) -> None:
        """`finish` None: the client left before the end."""
        ...


class WholeAnswer:
    """Collects the text and answers with one body."""

    __slots__ = ("_began", "_exchange", "_pieces", "_shape", "_watcher")

    def __init__(self, exchange: Exchange, shape: Shape, watcher: AnswerWatcher) -> None:
        self._exchange = exchange
        self._shape = shape
        self._watcher = watcher
        self._pieces: list[str] = []
        self._began = False

    def progress(self, text: str, tokens: int, finish: Finish | None) -> None:
        if not self._began and tokens:
            self._began = True
            self._watcher.answer_began()
        self._pieces.append(text)
        if finish is None:
            return
        if finish is Finish.FAILED:
            self._exchange.respond(500, JSON_TYPE, FAILED_BODY)
        else:
            self._exchange.respond(200, JSON_TYPE, self._shape.body("".join(self._pieces), finish, tokens))
        self._watcher.answer_ended(finish)

    def client_left(self) -> None:
        self._watcher.answer_ended(None)

    def client_slow(self) -> None:
        """Nothing is written before the end."""

    def client_ready(self) -> None:
        """Nothing is written before the end."""


class StreamAnswer:
    """Events as text comes. The status line leaves with the first of them, so that a failure before it is still a 500.

    While the client takes nothing, text is kept and becomes one event later: never more than the model's context holds.
    """

    __slots__ = (
        "_begun",
        "_exchange",
        "_kept_finish",
        "_kept_text",
        "_kept_tokens",
        "_prefix",
        "_shape",
        "_slow",
        "_suffix",
        "_watcher",
    )

    def __init__(self, exchange: Exchange, shape: Shape, watcher: AnswerWatcher) -> None:
        self._exchange = exchange
        self._shape = shape
        self._watcher = watcher
        self._prefix, self._suffix = shape.frame()
        self._begun = False
        self._slow = False
        self._kept_text = ""
        self._kept_tokens = 0
        self._kept_finish: Finish | None = None

    def progress(self, text: str, tokens: int, finish: Finish | None) -> None:
        if self._slow:
            self._kept_text += text
            self._kept_tokens = tokens
            self._kept_finish = finish
        elif finish is None and self._begun:
            self._exchange.write([self._prefix, _encode(text), self._suffix])
        elif finish is Finish.FAILED:
            self._fail()
        else:
            self._begin_or_end(text, tokens, finish)

    def _begin_or_end(self, text: str, tokens: int, finish: Finish | None) -> None:
        exchange = self._exchange
        events: list[bytes] = []
        if not self._begun:
            self._begun = True
            self._watcher.answer_began()
            exchange.start(200, STREAM_HEADERS)
            events.append(self._shape.opening())
        if text:
            events += (self._prefix, _encode(text), self._suffix)
        if finish is not None:
            events.append(self._shape.closing(finish, tokens))
        exchange.write(events)
        if finish is not None:
            exchange.finish()
            self._watcher.answer_ended(finish)

    def _fail(self) -> None:
        """A stream that has begun says so in band and ends without [DONE], visibly incomplete."""
        exchange = self._exchange
        if self._begun:
            exchange.write([sse.error_event(FAILED_BODY)])
            exchange.finish()
        else:
            exchange.respond(500, JSON_TYPE, FAILED_BODY)
        self._watcher.answer_ended(Finish.FAILED)

    def client_left(self) -> None:
        self._watcher.answer_ended(None)

    def client_slow(self) -> None:
        self._slow = True

    def client_ready(self) -> None:
        self._slow = False
        text, self._kept_text = self._kept_text, ""
        if text or self._kept_finish is not None:
            self.progress(text, self._kept_tokens, self._kept_finish)
