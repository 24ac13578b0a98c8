"""Bodies of `/v1/embeddings` and `/v1/moderations`, read and written."""

import base64
import struct
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from spillway.core.errors import BadRequestError

_encode = msgspec.json.Encoder().encode
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Ask(msgspec.Struct):
    input: _Text | Annotated[list[_Text], msgspec.Meta(min_length=1)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Ask(msgspec.Struct, frozen=True):
    model: str
    texts: list[str]
    as_base64: bool


_read = msgspec.json.Decoder(_Ask).decode


def read(body: bytes, *, max_inputs: int, max_text_chars: int) -> Ask:
    """BadRequestError with the field at fault."""
    try:
        ask = _read(body)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise BadRequestError(f"{what.replace('`', '')}.", param=path.strip(".`") or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError("The body is not valid JSON.") from error
    texts = [ask.input] if isinstance(ask.input, str) else ask.input
    if len(texts) > max_inputs:
        raise BadRequestError(f"input has more than {max_inputs} texts.", param="input")
    if any(len(text) > max_text_chars for text in texts):
        message = f"A text of input has more than {max_text_chars} characters."
        raise BadRequestError(message, param="input", code="context_length_exceeded")
    if ask.dimensions is not None:
        raise BadRequestError("This model's embeddings have one size only.", param="dimensions")
    return Ask(ask.model, texts, ask.encoding_format == "base64")


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class _Usage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    model: str
    usage: _Usage
    object: str = "list"


def embeddings_body(model: str, vectors: list[list[float]], tokens: int, *, as_base64: bool) -> bytes:
    """base64: of little-endian 32-bit floats, as OpenAI writes them."""
    shown = [_Embedding(index, _packed(one) if as_base64 else one) for index, one in enumerate(vectors)]
    return _encode(_Embeddings(shown, model, _Usage(tokens, tokens)))


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


class _Verdict(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class _Moderation(msgspec.Struct):
    id: str
    model: str
    results: list[_Verdict]
    usage: _Usage


def moderation_body(
    id: str, model: str, scores: list[dict[str, float]], thresholds: Mapping[str, float], tokens: int
) -> bytes:
    """A text is flagged by each category whose score reaches its threshold (0.5 where none is given)."""
    results: list[_Verdict] = []
    for one in scores:
        categories = {name: score >= thresholds.get(name, 0.5) for name, score in one.items()}
        results.append(_Verdict(any(categories.values()), categories, one))
    return _encode(_Moderation(id, model, results, _Usage(tokens, tokens)))
