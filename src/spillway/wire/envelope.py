"""What the gateway must know of a JSON request body; everything else in it travels as untouched bytes.

Measured with benchmarks/envelope.py. `messages` and the other big fields are skipped, not parsed, so the cost is a few
microseconds and that of msgspec's skip (about 3 GB/s).

Security: what is decided on here is what the upstream reads, whichever of two equal keys its parser prefers and whether or
not it minds their case. The big values are cut out of the body, and the small rest is checked for keys that appear twice,
are written with escapes, or equal a routing key but for case. A cut is sound wherever it lands: it is made behind a key and
removes the bytes of one whole JSON value, so what it leaves has the same keys at every other place.
"""

import enum
import re
from typing import Annotated

import msgspec

from spillway.core.errors import BadRequestError

MAX_MODEL_CHARS = 256
MAX_NAME_CHARS = 1024
"""Of `user`, `prompt_cache_key` and `safety_identifier`."""
MAX_TOKENS = 2**31 - 1
MAX_CHOICES = 128
MAX_FIELDS = 256
"""Of one object whose keys are looked at."""
MAX_REST_BYTES = 256 * 1024
"""Of a body without `messages`, `tools` and the other fields that are skipped."""
USUAL_OUTPUT_TOKENS = 256
UNCAPPED_OUTPUT_TOKENS = 4096
"""What an answer that the client does not cap may come to, for those who must reckon with the worst."""

_CUT_FROM_BYTES = 1024
_CUT_TRIES = 8

Span = tuple[int, int]


class Kind(enum.StrEnum):
    """Which OpenAI endpoint a body is for; the value is the field that carries the prompt."""

    CHAT = "messages"
    COMPLETIONS = "prompt"
    EMBEDDINGS = "input"  # moderations too: an input, and no tokens that are written


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What was read. `max_tokens` is the client's cap on output (the newer name wins), None where it gave none.

    `input_bytes`: bytes of the prompt and of the tools, as JSON. Spans are [start, end) offsets of values in the body.
    """

    kind: Kind
    model: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    choices: int
    service_tier: str | None
    user: str | None
    prompt_cache_key: str | None
    safety_identifier: str | None
    input_bytes: int
    model_span: Span
    stream_options_span: Span | None
    prompt: msgspec.Raw  # the value of the field that `kind` names, as it stands in the body

    @property
    def output_tokens_estimate(self) -> int:
        """Of all choices: what is usual, capped by what the client allows. Embeddings have no output."""
        if self.kind is Kind.EMBEDDINGS:
            return 0
        usual = USUAL_OUTPUT_TOKENS
        return self.choices * (usual if self.max_tokens is None else min(usual, self.max_tokens))

    @property
    def output_tokens_most(self) -> int:
        """Of all choices: what the client allows, whatever is usual."""
        if self.kind is Kind.EMBEDDINGS:
            return 0
        return self.choices * (UNCAPPED_OUTPUT_TOKENS if self.max_tokens is None else self.max_tokens)


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)]
_ABSENT = msgspec.Raw()


class _Body(msgspec.Struct, gc=False):
    model: Annotated[str, msgspec.Meta(max_length=MAX_MODEL_CHARS)] = ""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    service_tier: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    user: _Name | None = None
    prompt_cache_key: _Name | None = None
    safety_identifier: _Name | None = None
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    tools: msgspec.Raw = _ABSENT
    functions: msgspec.Raw = _ABSENT
    response_format: msgspec.Raw = _ABSENT
    prediction: msgspec.Raw = _ABSENT
    logit_bias: msgspec.Raw = _ABSENT
    guided_json: msgspec.Raw = _ABSENT
    structured_outputs: msgspec.Raw = _ABSENT


_SKIPPED = tuple((name, f'"{name}"'.encode()) for name, kind in _Body.__annotations__.items() if kind is msgspec.Raw)
ROUTING = frozenset(_Body.__annotations__)
"""Fields that something is decided by, or that are skipped: their names must be in lower case."""
_KNOWN = ROUTING | {
    "temperature", "top_p", "top_k", "min_p", "stop", "seed", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "logprobs", "top_logprobs", "tool_choice", "parallel_tool_calls", "reasoning_effort",
    "verbosity", "metadata", "store", "echo", "suffix", "best_of", "encoding_format", "dimensions", "modalities",
    "audio",
}  # fmt: skip
_STREAM_OPTIONS = frozenset(_StreamOptions.__annotations__)

_decode_body = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

_KEY = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*"[^"\\]*"[ \t\r\n]*:[ \t\r\n]*')
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_CLOSE = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")


def read(body: bytes, kind: Kind) -> Envelope:
    """What routing needs from a request body. Raises BadRequestError, with the field at fault in `param`."""
    cuts: list[Span] = []
    try:
        fields = _decode_body(body)
        rest = body if len(body) < 2 * _CUT_FROM_BYTES else _without_big_values(body, fields, cuts)
        rest_fields = _decode_fields(rest)
        if not body.isascii():
            body.decode()  # what is skipped is not validated, and an upstream may choke on it
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(error) from None
    if not fields.model:
        raise BadRequestError("A model is required", param="model")
    prompt = memoryview(getattr(fields, kind))
    if not prompt.nbytes or (prompt[0] != 0x5B and (prompt[0] != 0x22 or kind is Kind.CHAT)):
        raise BadRequestError(f"The field {kind.value} is required", param=kind.value)
    if fields.stream and kind is Kind.EMBEDDINGS:
        raise BadRequestError("Embeddings cannot be streamed", param="stream")
    model_span, options_span = _spans(rest, rest_fields)
    for at, removed in reversed(cuts):
        model_span = _moved(model_span, at, removed)
        options_span = options_span and _moved(options_span, at, removed)
    options, cap = fields.stream_options, fields.max_completion_tokens
    if options is not None and options_span is not None:
        _usage_span(body[options_span[0] : options_span[1]])
    return Envelope(  # by position: half the cost of by name, once a request
        kind, fields.model, fields.stream is True, options is not None and options.include_usage is True,
        fields.max_tokens if cap is None else cap, fields.n or 1, fields.service_tier, fields.user, fields.prompt_cache_key,
        fields.safety_identifier, prompt.nbytes + memoryview(fields.tools).nbytes, model_span, options_span,
        getattr(fields, kind),
    )  # fmt: skip


def rewrite(body: bytes, envelope: Envelope, *, model: str | None, ask_for_usage: bool) -> bytes:
    """The body with another model and with `stream_options.include_usage` true; not one other byte differs.

    `model` None leaves the model. `ask_for_usage` is for streams; it keeps the other stream options.
    """
    edits: list[tuple[int, int, bytes]] = []
    if model is not None and model != envelope.model:
        edits.append((*envelope.model_span, _encode(model)))
    if ask_for_usage and not envelope.include_usage:
        edits.append(_usage_edit(body, envelope.stream_options_span))
    if not edits:
        return body
    edits.sort()
    view = memoryview(body)  # its slices copy nothing
    pieces: list[bytes | memoryview] = []
    done = 0
    for start, end, replacement in edits:
        pieces += (view[done:start], replacement)
        done = end
    pieces.append(view[done:])
    return b"".join(pieces)


def _usage_edit(body: bytes, span: Span | None) -> tuple[int, int, bytes]:
    if span is None:
        at = body.index(b"{") + 1
        return at, at, b'"stream_options":{"include_usage":true},'
    start, end = span
    if body[start] != 0x7B:  # null
        return start, end, b'{"include_usage":true}'
    options = body[start:end]
    inner = _usage_span(options)
    if inner is not None:
        return start + inner[0], start + inner[1], b"true"
    comma = b"" if _CLOSE.match(options, 1) else b","
    return start + 1, start + 1, b'"include_usage":true' + comma


def _without_big_values(body: bytes, fields: _Body, cuts: list[Span]) -> bytes:
    """The body with 0 in place of each big skipped value; `cuts` gets the offset and the bytes that went, in order of cutting."""
    big = [
        (memoryview(value).nbytes, quoted, value)
        for name, quoted in _SKIPPED
        if (value := getattr(fields, name)) is not _ABSENT
    ]
    rest = body
    for size, quoted, value in sorted(big, key=lambda one: -one[0]):
        if size >= _CUT_FROM_BYTES:
            rest = _cut(rest, quoted, bytes(value), cuts)
    if len(rest) > MAX_REST_BYTES:
        raise BadRequestError(f"The fields beside the prompt and the tools exceed {MAX_REST_BYTES} bytes")
    return rest


def _cut(rest: bytes, quoted: bytes, value: bytes, cuts: list[Span]) -> bytes:
    if value[0] not in b'[{"':  # only these end where they end: 12 is also the beginning of 123
        return rest
    at = 0
    for _ in range(_CUT_TRIES):
        at = rest.find(quoted, at)
        if at < 0:  # its key is written with an escape, and will be refused for it
            break
        at += len(quoted)
        colon = _COLON.match(rest, at)
        if colon is not None and rest.startswith(value, colon.end()):
            cuts.append((colon.end(), len(value) - 1))
            return b"%b0%b" % (rest[: colon.end()], rest[colon.end() + len(value) :])
    return rest


def _moved(span: Span, at: int, removed: int) -> Span:
    return span if span[0] < at else (span[0] + removed, span[1] + removed)


def _spans(rest: bytes, fields: dict[str, msgspec.Raw]) -> tuple[Span, Span | None]:
    """Where the values of `model` and `stream_options` stand, once it is sure that each key is there once and plainly."""
    if fields.keys() <= _KNOWN:
        if _encode(fields) == rest:  # as most clients write
            return _regular_spans(fields, 1)
        if b"{%b}" % b", ".join([b'"%b": %b' % (name.encode(), value) for name, value in fields.items()]) == rest:
            return _regular_spans(fields, 2)  # as Python's json writes
    spans = _walk(rest, fields, ROUTING)
    return spans["model"], spans.get("stream_options")


def _regular_spans(fields: dict[str, msgspec.Raw], gap: int) -> tuple[Span, Span | None]:
    """As `_spans` for a text that has `gap` bytes between name and value and between one field and the next."""
    model: Span = (0, 0)
    options = None
    wanted = 2 if "stream_options" in fields else 1
    at = 1
    for name, value in fields.items():
        start = at + len(name) + 2 + gap
        end = start + memoryview(value).nbytes
        if name == "model":
            model = (start, end)
            wanted -= 1
        elif name == "stream_options":
            options = (start, end)
            wanted -= 1
        if not wanted:
            break
        at = end + gap
    return model, options


def _usage_span(options: bytes) -> Span | None:
    """Where the value of `include_usage` stands in the object (or null) `options`."""
    if options[0] != 0x7B:
        return None
    return _walk(options, _decode_fields(options), _STREAM_OPTIONS).get("include_usage")


def _walk(text: bytes, fields: dict[str, msgspec.Raw], routing: frozenset[str]) -> dict[str, Span]:
    """Where the value of each key stands. `fields` is what a last-wins parser reads in `text`.

    By induction: the next value of `fields` must stand behind the next key of the text, so that what follows it is a key again.
    If a key is there twice, `fields` is used up before the text is.
    """
    if len(fields) > MAX_FIELDS:
        raise BadRequestError(f"An object has more than {MAX_FIELDS} fields")
    for name in fields.keys() - _KNOWN:
        folded = name.casefold()
        if folded != name and folded in routing:
            raise BadRequestError(f"The field {folded} must be written in lower case", param=folded)
    spans: dict[str, Span] = {}
    at = 0
    for name, value in fields.items():
        key = _KEY.match(text, at)
        if key is None:  # an escape in it
            raise _written_oddly()
        literal, start = bytes(value), key.end()
        if not text.startswith(literal, start):
            raise _written_oddly()
        at = start + len(literal)
        spans[name] = (start, at)
    if fields and _CLOSE.match(text, at) is None:
        raise _written_oddly()
    return spans


def _written_oddly() -> BadRequestError:
    return BadRequestError("Each field may appear once only, and its name must be written without escapes")


def _unreadable(error: Exception) -> BadRequestError:
    if isinstance(error, RecursionError):
        return BadRequestError("The body is nested too deep")
    if not isinstance(error, msgspec.ValidationError):
        return BadRequestError(f"The body is not valid JSON: {error}")
    what, _, path = str(error).partition(" - at `$")
    if not path:
        return BadRequestError("The body must be a JSON object")
    param = path.strip(".`")
    return BadRequestError(f"{param}: {what[0].lower()}{what[1:].replace('`', '')}", param=param)
