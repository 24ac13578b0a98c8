"""What an OpenAI-compatible engine writes: errors, whole replies and stream events of the two text dialects, embeddings.

`created` is one fixed moment, so that equal requests get equal bytes.
"""

import base64
import struct
from typing import Protocol

import msgspec

from spillway.testing.tokens import embedding

CREATED_S = 1_704_067_200
DONE = b"data: [DONE]\n\n"
BROKEN_EVENT = b'data: {"id":"broken","choices":[{"index":0,"del\n\n'


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class EngineRequest(msgspec.Struct, frozen=True):
    """The fields of all three paths that the fake engine looks at; it ignores the others, as engines do."""

    model: str
    messages: object = None
    prompt: object = None
    input: object = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    ignore_eos: bool | None = False
    user: str | None = None
    dimensions: int | None = None
    encoding_format: str | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class EngineUsage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def usage_of(prompt_tokens: int, completion_tokens: int) -> EngineUsage:
    return EngineUsage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


def error_body(message: str, kind: str, *, param: str | None = None, code: str | None = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def model_list(models: tuple[str, ...], max_model_len: int) -> bytes:
    entries = [
        {"id": name, "object": "model", "created": CREATED_S, "owned_by": "upstream", "max_model_len": max_model_len}
        for name in models
    ]
    return msgspec.json.encode({"object": "list", "data": entries})


def embeddings_body(model: str, texts: list[str], dimensions: int, usage: EngineUsage, *, as_base64: bool) -> bytes:
    """`as_base64`: little-endian 32 bit floats, as openai-python asks for."""
    entries: list[dict[str, object]] = []
    for index, text in enumerate(texts):
        vector = embedding(text, dimensions)
        packed = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if as_base64 else vector
        entries.append({"object": "embedding", "index": index, "embedding": packed})
    return msgspec.json.encode({"object": "list", "data": entries, "model": model, "usage": usage})


class Dialect(Protocol):
    """How replies of one path look. Events are whole SSE events; `reason` is a finish reason."""

    def opening(self) -> bytes: ...
    def event(self, text: str) -> bytes: ...
    def last_event(self, reason: str) -> bytes: ...
    def usage_event(self, usage: EngineUsage) -> bytes: ...
    def whole(self, text: str, reason: str, usage: EngineUsage | None) -> bytes: ...


class ChatDialect:
    """/v1/chat/completions. The part of an event before its text is made once: streams are most of the work."""

    def __init__(self, number: int, model: str) -> None:
        self._base: dict[str, object] = {"id": f"chatcmpl-{number}", "created": CREATED_S, "model": model}
        self._before_text = _event_head(self._base, "chat.completion.chunk") + b'"delta":{"content":'

    def opening(self) -> bytes:
        return self._chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])

    def event(self, text: str) -> bytes:
        return b'%b%b},"finish_reason":null}]}\n\n' % (self._before_text, msgspec.json.encode(text))

    def last_event(self, reason: str) -> bytes:
        return self._chunk([{"index": 0, "delta": {}, "finish_reason": reason}])

    def usage_event(self, usage: EngineUsage) -> bytes:
        return self._chunk([], usage)

    def whole(self, text: str, reason: str, usage: EngineUsage | None) -> bytes:
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}]
        return _whole({**self._base, "object": "chat.completion", "choices": choices}, usage)

    def _chunk(self, choices: list[dict[str, object]], usage: EngineUsage | None = None) -> bytes:
        return _event({**self._base, "object": "chat.completion.chunk", "choices": choices}, usage)


class CompletionDialect:
    """/v1/completions."""

    def __init__(self, number: int, model: str) -> None:
        self._base: dict[str, object] = {"id": f"cmpl-{number}", "created": CREATED_S, "model": model}
        self._before_text = _event_head(self._base, "text_completion") + b'"text":'

    def opening(self) -> bytes:
        return b""

    def event(self, text: str) -> bytes:
        return b'%b%b,"finish_reason":null}]}\n\n' % (self._before_text, msgspec.json.encode(text))

    def last_event(self, reason: str) -> bytes:
        return self._chunk([{"index": 0, "text": "", "finish_reason": reason}])

    def usage_event(self, usage: EngineUsage) -> bytes:
        return self._chunk([], usage)

    def whole(self, text: str, reason: str, usage: EngineUsage | None) -> bytes:
        choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]
        return _whole({**self._base, "object": "text_completion", "choices": choices}, usage)

    def _chunk(self, choices: list[dict[str, object]], usage: EngineUsage | None = None) -> bytes:
        return _event({**self._base, "object": "text_completion", "choices": choices}, usage)


def _event_head(base: dict[str, object], kind: str) -> bytes:
    return b"data: " + msgspec.json.encode({**base, "object": kind})[:-1] + b',"choices":[{"index":0,'


def _event(document: dict[str, object], usage: EngineUsage | None) -> bytes:
    if usage is not None:
        document["usage"] = usage
    return b"data: %b\n\n" % msgspec.json.encode(document)


def _whole(document: dict[str, object], usage: EngineUsage | None) -> bytes:
    if usage is not None:
        document["usage"] = usage
    return msgspec.json.encode(document)
