"""Finds what a request used in the whole answer of an upstream, or in the last pieces of a stream, without parsing the rest.

Where an answer does not say, `written_bytes` tells how much a model wrote, to estimate from.
"""

import re
from typing import Annotated

import msgspec

from spillway.core.usage import Usage

_TRIES = 4
_BRACES = 32

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Details(msgspec.Struct, gc=False):
    cached_tokens: _Tokens | None = None


class _Reported(msgspec.Struct, gc=False):
    prompt_tokens: _Tokens
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: _Reported | None = None


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b"null")
    reasoning_content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: msgspec.Raw = msgspec.Raw(b"null")


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    text: msgspec.Raw = msgspec.Raw(b"null")


class _Choices(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_choices = msgspec.json.Decoder(_Choices).decode
_decode_reported = msgspec.json.Decoder(_Reported).decode
_OBJECT = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*(?=\{)')


def from_body(body: bytes) -> Usage | None:
    """The usage in a complete JSON answer; None where it reports none, or nothing that makes sense."""
    try:
        return _usage(_decode_answer(body).usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def written_bytes(body: bytes) -> int:
    """Bytes of JSON that the model wrote in all choices of a complete answer: content, reasoning, tool calls. 0 where there are none,
    as in embeddings, or where the answer is not of a known shape."""
    try:
        choices = _decode_choices(body).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    parts = [choice.text for choice in choices]
    for message in (choice.message for choice in choices if choice.message is not None):
        parts += (message.content, message.reasoning_content, message.tool_calls)
    return sum(len(part) for part in map(bytes, parts) if part not in (b"null", b'""', b"[]"))


def from_tail(pieces: list[bytes]) -> Usage | None:
    """The last usage in the end of an answer, streamed or not; None where there is none.

    Text that a model wrote cannot pass for it: inside of a JSON string the quotes around `usage` have a backslash.
    """
    text = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    end = len(text)
    for _ in range(_TRIES):
        at = text.rfind(b'"usage"', 0, end)
        if at < 0:
            return None
        usage = _in_event(text, at) or _in_pieces(text, at)
        if usage is not None:
            return usage
        end = at
    return None


def _in_event(text: bytes, at: int) -> Usage | None:
    """The usage in the event around `at`."""
    start = text.rfind(b"data:", 0, at)
    if start < 0:
        return None
    line_end = text.find(b"\n", at)
    return from_body(text[start + 5 : line_end if line_end >= 0 else len(text)])


def _in_pieces(text: bytes, at: int) -> Usage | None:
    """The usage object that begins at `at`, where what stands around it is not complete."""
    found = _OBJECT.match(text, at)
    if found is None:
        return None
    start = end = found.end()
    for _ in range(_BRACES):
        end = text.find(b"}", end) + 1
        if end == 0:
            return None
        try:
            return _usage(_decode_reported(text[start:end]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
    return None


def _usage(reported: _Reported | None) -> Usage | None:
    if reported is None:
        return None
    details = reported.prompt_tokens_details
    cached = None if details is None else details.cached_tokens
    return Usage(reported.prompt_tokens, reported.completion_tokens or 0, cached)
