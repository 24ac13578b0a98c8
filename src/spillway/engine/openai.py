"""Request bodies of the OpenAI dialect, as far as this engine can do what they ask. What it cannot do is refused, never ignored."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from spillway.core.errors import BadRequestError
from spillway.engine.guard import check_schema
from spillway.engine.model_folder import SamplingDefaults
from spillway.engine.ports import Sampling
from spillway.engine.prompt import Message

MAX_MESSAGES = 2048
MAX_STOPS = 16
MAX_STOP_CHARS = 256
ANY_OBJECT = '{"type": "object"}'
GREEDY_BELOW = 1e-5
LEAST_TEMPERATURE = 0.01
"""Below it the library's arithmetic degrades; above GREEDY_BELOW it is raised to this."""

Tokens = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Ignored = msgspec.Raw
"""Says something about the request and asks nothing of the engine."""


class _TextPart(msgspec.Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]
    name: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    annotations: list[None] | None = None


class _SchemaFormat(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw()
    name: str = ""
    strict: bool | None = None


class _ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _SchemaFormat | None = None


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class _Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of request share. `ignore_eos`, `min_tokens`, `top_k` and `repetition_penalty` are vLLM's extensions."""

    model: str
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=2)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    logit_bias: dict[str, float] | None = None
    user: Ignored = msgspec.Raw()
    metadata: Ignored = msgspec.Raw()
    service_tier: Ignored = msgspec.Raw()
    safety_identifier: Ignored = msgspec.Raw()
    prompt_cache_key: Ignored = msgspec.Raw()


class _ChatRequest(_Request, kw_only=True):
    messages: list[_Message]
    max_completion_tokens: Tokens | None = None
    response_format: _ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: msgspec.Raw = msgspec.Raw()
    parallel_tool_calls: Ignored = msgspec.Raw()
    functions: list[msgspec.Raw] | None = None
    modalities: list[str] | None = None
    continue_final_message: bool | None = None  # vLLM's extensions, these two
    add_generation_prompt: bool | None = None
    store: bool | None = None


class _CompletionRequest(_Request, kw_only=True):
    prompt: str | list[str | int]
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    logprobs: int | None = None


class Ask(msgspec.Struct, kw_only=True):
    """A request as the engine understands it. Exactly one of `messages`, `text`, `ids` is the prompt."""

    model: str
    stream: bool
    include_usage: bool
    stops: tuple[str, ...]
    max_tokens: int | None
    sampling: Sampling  # its max_tokens holds once the length of the prompt is known
    messages: list[Message] | None = None
    continues: bool = False  # the last message, which is the assistant's, goes on
    text: str | None = None
    ids: list[int] | None = None

    @property
    def is_chat(self) -> bool:
        return self.messages is not None


_decode_chat = msgspec.json.Decoder(_ChatRequest).decode
_decode_completion = msgspec.json.Decoder(_CompletionRequest).decode


def read_chat(body: bytes, defaults: SamplingDefaults, seed: int) -> Ask:
    """`seed`: for a request that brings none. Raises BadRequestError."""
    try:
        request = _decode_chat(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from error
    _refuse_unsupported_chat(request)
    if not 0 < len(request.messages) <= MAX_MESSAGES:
        raise BadRequestError(f"messages must have 1 to {MAX_MESSAGES} entries.", param="messages")
    ask = _ask(request, defaults, seed, request.max_completion_tokens or request.max_tokens, _schema(request))
    ask.messages = [Message(_role(message.role), _text(message.content)) for message in request.messages]
    ask.continues = request.continue_final_message is True
    if ask.continues and (request.add_generation_prompt is not False or request.messages[-1].role != "assistant"):
        message = (
            "continue_final_message wants add_generation_prompt to be false and the last message to be the assistant's."
        )
        raise BadRequestError(message, param="continue_final_message")
    if not ask.continues and request.add_generation_prompt is False:
        raise BadRequestError(
            "add_generation_prompt may be false with continue_final_message only.", param="add_generation_prompt"
        )
    return ask


def read_completion(body: bytes, defaults: SamplingDefaults, seed: int, vocabulary: int) -> Ask:
    """`seed`: for a request that brings none. Raises BadRequestError."""
    try:
        request = _decode_completion(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from error
    _refuse_unsupported_completion(request)
    ask = _ask(request, defaults, seed, request.max_tokens or 16, None)
    match request.prompt:
        case str(text) | [str(text)]:
            ask.text = text
        case []:
            raise BadRequestError("prompt is empty.", param="prompt")
        case list(entries):
            ids = [entry for entry in entries if isinstance(entry, int)]
            if len(ids) < len(entries):
                raise _unsupported("prompt", "several prompts in one request")
            if min(ids) < 0 or max(ids) >= vocabulary:
                raise BadRequestError("prompt has a token id that the model does not have.", param="prompt")
            ask.ids = ids
    return ask


def _ask(request: _Request, defaults: SamplingDefaults, seed: int, max_tokens: int | None, schema: str | None) -> Ask:
    if request.n not in (None, 1):
        raise _unsupported("n", "n other than 1")
    if request.logit_bias:
        raise _unsupported("logit_bias", "logit_bias")
    if request.stream_options is not None and not request.stream:
        raise BadRequestError("stream_options needs stream.", param="stream_options")
    if max_tokens is not None and (request.min_tokens or 0) > max_tokens:
        raise BadRequestError("min_tokens is greater than max_tokens.", param="min_tokens")
    temperature = _given(request.temperature, defaults.temperature)
    sampling = Sampling(
        max_tokens=max_tokens or 0,
        min_tokens=request.min_tokens or 0,
        temperature=0.0 if temperature < GREEDY_BELOW else max(temperature, LEAST_TEMPERATURE),
        top_p=_given(request.top_p, defaults.top_p),
        top_k=max(0, defaults.top_k if request.top_k is None else request.top_k),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_given(request.repetition_penalty, defaults.repetition_penalty),
        seed=(seed if request.seed is None else request.seed) % 2**63,
        ignore_eos=bool(request.ignore_eos),
        schema=schema,
    )
    return Ask(
        model=request.model,
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        stops=_stops(request.stop),
        max_tokens=max_tokens,
        sampling=sampling,
    )


def _refuse_unsupported_chat(request: _ChatRequest) -> None:
    if request.tools:
        raise _unsupported("tools", "tools")
    if request.functions:
        raise _unsupported("functions", "functions")
    if bytes(request.tool_choice) not in (b"", b'"none"', b'"auto"', b"null"):
        raise _unsupported("tool_choice", "tool_choice")
    if request.logprobs or request.top_logprobs:
        raise _unsupported("logprobs", "logprobs")
    if request.modalities not in (None, ["text"]):
        raise _unsupported("modalities", "modalities other than text")
    if request.store:
        raise _unsupported("store", "store")


def _refuse_unsupported_completion(request: _CompletionRequest) -> None:
    if request.echo:
        raise _unsupported("echo", "echo")
    if request.best_of not in (None, 1):
        raise _unsupported("best_of", "best_of other than 1")
    if request.suffix:
        raise _unsupported("suffix", "suffix")
    if request.logprobs is not None:
        raise _unsupported("logprobs", "logprobs")


def _schema(request: _ChatRequest) -> str | None:
    """The schema that the answer must keep to; checked, not yet compiled."""
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return ANY_OBJECT
    if wanted.json_schema is None or not bytes(wanted.json_schema.schema):
        raise BadRequestError("response_format needs json_schema.schema.", param="response_format")
    return check_schema(bytes(wanted.json_schema.schema))


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > MAX_STOPS or any(not 0 < len(text) <= MAX_STOP_CHARS for text in stops):
        raise BadRequestError(f"stop takes up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters.", param="stop")
    return tuple(dict.fromkeys(stops))


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _text(content: str | Sequence[_TextPart]) -> str:
    return content if isinstance(content, str) else "".join([part.text for part in content])


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


def _unsupported(param: str, what: str) -> BadRequestError:
    return BadRequestError(f"This engine does not support {what}.", param=param, code="unsupported_value")


def _unreadable(error: Exception) -> BadRequestError:
    """msgspec says which field is wrong, and nothing of its content beyond its type."""
    if isinstance(error, msgspec.ValidationError):
        return BadRequestError(f"The request cannot be understood: {error}.", param=None, code="invalid_value")
    return BadRequestError("The request body is not valid JSON.", param=None, code="invalid_json")
