"""Server-sent events: splitting a stream into events, and what a chunk of a completion carries.

A line ends with LF, CRLF or CR, an event with an empty line; lines that begin with a colon are comments.
"""

import re
from collections.abc import Iterator

import msgspec

DONE_DATA = b"[DONE]"
DONE = b"data: [DONE]\n\n"
CONTENT_TYPE = b"text/event-stream"

_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_EMPTY = frozenset((b"", b"null", b'""', b"[]", b"{}"))


def error_event(body: bytes) -> bytes:
    """An error in band: `body` is an error body on one line. The stream ends after it, without [DONE]."""
    return b"data: %b\n\n" % body


def end_of_last_event(text: bytes) -> int:
    """The offset behind the last complete event; 0 where none is complete."""
    if b"\r" not in text:
        at = text.rfind(b"\n\n")
        return at + 2 if at >= 0 else 0
    end = 0
    for found in _EVENT_END.finditer(text):
        end = found.end()
    return end


def raw_events(text: bytes) -> Iterator[bytes]:
    """The events of `text` with their ends, so that joining them gives `text`; the last may be incomplete."""
    start = 0
    for found in _EVENT_END.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


def events(text: bytes) -> Iterator[bytes]:
    """The data of each event in `text` that has any; an incomplete last event counts as complete."""
    for event in raw_events(text):
        data = data_of(event)
        if data:
            yield data


def data_of(event: bytes) -> bytes:
    """The data of one event: its `data` lines joined by LF; empty where it has none."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and event.endswith(b"\n\n"):
        return event[6:-2]  # as nearly all are
    lines = _LINE_END.split(event)
    return b"\n".join([_value(line) for line in lines if line.startswith(b"data:") or line == b"data"])


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value


class _Delta(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()
    reasoning: msgspec.Raw = msgspec.Raw()
    reasoning_content: msgspec.Raw = msgspec.Raw()
    refusal: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    text: msgspec.Raw = msgspec.Raw()
    finish_reason: msgspec.Raw = msgspec.Raw()


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: dict[str, msgspec.Raw] | None = None


class _Failed(msgspec.Struct, gc=False):
    error: msgspec.Raw = msgspec.Raw()


_decode_any = msgspec.json.Decoder(msgspec.Raw).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_failed = msgspec.json.Decoder(_Failed).decode
_DELTA_FIELDS = _Delta.__struct_fields__


def has_content(event: bytes) -> bool:
    """Whether a chunk (an event or its data) carries output: text, a tool call, reasoning, a refusal, or a finish reason.

    A chunk that cannot be read carries none, and neither does [DONE].
    """
    chunk = _chunk(event)
    return chunk is not None and any(_speaks(choice) for choice in chunk.choices or ())


def is_readable(event: bytes) -> bool:
    """Whether an event is JSON, [DONE], or carries no data at all."""
    data = data_of(event)
    if not data or data == DONE_DATA:
        return True
    try:
        _decode_any(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def is_error(event: bytes) -> bool:
    """Whether an event or its data, or a whole answer, has an `error` at its top that says something, wherever it stands."""
    data = event if event.startswith(b"{") else data_of(event)
    try:
        return bytes(_decode_failed(data).error) not in _EMPTY
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def is_usage_only(event: bytes) -> bool:
    """Whether a chunk (an event or its data) is the extra one that `stream_options.include_usage` brings."""
    chunk = _chunk(event)
    return chunk is not None and chunk.usage is not None and not chunk.choices


def _speaks(choice: _Choice) -> bool:
    if bytes(choice.text) not in _EMPTY or bytes(choice.finish_reason) not in _EMPTY:
        return True
    delta = choice.delta
    return delta is not None and any(bytes(getattr(delta, field)) not in _EMPTY for field in _DELTA_FIELDS)


def _chunk(event: bytes) -> _Chunk | None:
    data = event if event.startswith(b"{") else data_of(event)
    try:
        return _decode_chunk(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
