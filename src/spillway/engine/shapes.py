"""The JSON of answers, as chat and completions have it. Pure.

A stream's event is a prefix and a suffix, made once per request, around JSON-escaped text: nothing else is encoded per event.
"""

import msgspec

from spillway.engine.ports import Finish
from spillway.wire import sse

_encode = msgspec.json.encode


class Usage(msgspec.Struct, gc=False):
    """There is no count of cached tokens: the library has no figure for one request, and none is invented."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Message(msgspec.Struct):
    role: str
    content: str
    refusal: None = None


class _ChatChoice(msgspec.Struct):
    index: int
    message: _Message
    logprobs: None
    finish_reason: str


class _TextChoice(msgspec.Struct):
    index: int
    text: str
    logprobs: None
    finish_reason: str


class _Body(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ChatChoice] | list[_TextChoice]
    usage: Usage


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same in every part of one answer. `created_s`: Unix time, whole seconds."""

    id: str
    is_chat: bool
    model: str
    created_s: int
    prompt_tokens: int
    include_usage: bool = False

    def body(self, text: str, finish: Finish, tokens: int) -> bytes:
        """The whole answer to a request that does not stream."""
        if self.is_chat:
            choices = [_ChatChoice(0, _Message("assistant", text), None, finish.value)]
            kind = "chat.completion"
        else:
            choices = [_TextChoice(0, text, None, finish.value)]
            kind = "text_completion"
        return _encode(_Body(self.id, kind, self.created_s, self.model, choices, self._usage(tokens)))

    def opening(self) -> bytes:
        """The event before the first text; completions have none."""
        return self._event(b'{"role":"assistant","content":""}', b"null") if self.is_chat else b""

    def frame(self) -> tuple[bytes, bytes]:
        """What stands before and behind the JSON string of an event's text."""
        before, _, behind = self._event(b'{"content":\0}' if self.is_chat else b"\0", b"null").partition(b"\0")
        return before, behind

    def closing(self, finish: Finish, tokens: int) -> bytes:
        """The events after the last text, with usage if it was asked for."""
        nothing = b"{}" if self.is_chat else b'""'
        events = self._event(nothing, _encode(finish.value))
        if self.include_usage:
            events += b'%b"choices":[],"usage":%b}\n\n' % (self._head(), _encode(self._usage(tokens)))
        return events + sse.DONE

    def _event(self, content: bytes, finish: bytes) -> bytes:
        field = b"delta" if self.is_chat else b"text"
        usage = b',"usage":null' if self.include_usage else b""
        return b'%b"choices":[{"index":0,"%b":%b,"logprobs":null,"finish_reason":%b}]%b}\n\n' % (
            self._head(), field, content, finish, usage,
        )  # fmt: skip

    def _head(self) -> bytes:
        kind = b"chat.completion.chunk" if self.is_chat else b"text_completion"
        return b'data: {"id":%b,"object":"%b","created":%d,"model":%b,' % (
            _encode(self.id), kind, self.created_s, _encode(self.model),
        )  # fmt: skip

    def _usage(self, tokens: int) -> Usage:
        return Usage(self.prompt_tokens, tokens, self.prompt_tokens + tokens)
