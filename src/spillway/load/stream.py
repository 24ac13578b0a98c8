"""Reads a server-sent stream of completions for what a load run must know, without decoding its events.

A generator that decodes every chunk measures itself. Events are searched as bytes: quotes inside a JSON string are escaped,
so that `"usage":{` cannot come from generated text. Only what decides is decoded: an error, and the last usage.
"""

import re

import msgspec

MAX_LINE_BYTES = 1 << 20
MAX_CODE_CHARS = 64

_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|refusal|arguments)"\s*:\s*"[^"]')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_DONE = b"[DONE]"


class TokenCounts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class ErrorBody(msgspec.Struct):
    message: str = ""
    type: str | None = None
    code: str | int | None = None


class Answer(msgspec.Struct):
    """What is read of a complete answer, of an event, or of an error's body."""

    error: ErrorBody | str | None = None
    usage: TokenCounts | None = None
    choices: list[msgspec.Raw] | None = None


def error_code(answer: Answer, otherwise: str) -> str:
    """The error's code, else its type, else `otherwise`; at most MAX_CODE_CHARS."""
    match answer.error:
        case ErrorBody(code=code, type=kind):
            word = str(code or kind or otherwise)
        case _:
            word = otherwise
    return word[:MAX_CODE_CHARS]


def decode_answer(body: bytes) -> Answer | None:
    """None where the body is not JSON of a known shape."""
    try:
        return msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError:
        return None


class StreamScanner:
    """Fed with body bytes as they come, cut anywhere. Afterwards its fields say what the stream held."""

    __slots__ = ("_rest", "_usage", "content_events", "done", "error", "finished", "malformed")

    def __init__(self) -> None:
        self._rest = b""
        self._usage = b""
        self.content_events = 0
        self.finished = False  # a finish reason came
        self.done = False  # [DONE] came
        self.error: str | None = None  # code of an error in band
        self.malformed = False  # a line longer than MAX_LINE_BYTES; nothing more is read

    @property
    def complete(self) -> bool:
        return self.finished or self.done

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes; whether they held content."""
        if self.malformed:
            return False
        *lines, self._rest = (self._rest + data if self._rest else data).split(b"\n")
        before = self.content_events
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line)
        if len(self._rest) > MAX_LINE_BYTES:
            self.malformed = True
            self._rest = b""
        return self.content_events > before

    def end(self) -> None:
        """The stream is over: what came after the last newline counts too."""
        self.feed(b"\n")

    def usage(self) -> TokenCounts | None:
        """The last usage that an event reported."""
        answer = decode_answer(self._usage) if self._usage else None
        return answer.usage if answer else None

    def _event(self, line: bytes) -> None:
        if _CONTENT.search(line):
            self.content_events += 1
        elif line[5:].strip() == _DONE:
            self.done = True
            return
        if b'"finish_reason"' in line and _FINISHED.search(line):
            self.finished = True
        if b'"usage"' in line and _USAGE.search(line):
            self._usage = line[5:]
        if b'"error"' in line:
            answer = decode_answer(line[5:])
            if answer and answer.error is not None:
                self.error = error_code(answer, "in_band")
