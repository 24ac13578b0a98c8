"""Bodies of the OpenAI dialect that the gateway writes or reads itself: errors and the list of models."""

import re
from collections.abc import Iterable

import msgspec

from spillway.core.ids import ModelName

MAX_ERROR_BYTES = 64 * 1024
"""Of an upstream's error body; more of it says nothing."""
MAX_MESSAGE_CHARS = 2000

_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _ErrorBody(msgspec.Struct):
    error: _Error


def error_body(message: str, type: str, param: str | None, code: str | None) -> bytes:
    """`{"error": {…}}` with all four keys and real nulls, on one line."""
    return _encode(_ErrorBody(_Error(message, type, param, code)))


class _Model(msgspec.Struct):
    id: str
    created: int
    object: str = "model"
    owned_by: str = "spillway"


class _ModelList(msgspec.Struct):
    data: list[_Model]
    object: str = "list"


def model_body(model: ModelName, created_s: int) -> bytes:
    """One model, as `GET /v1/models/{model}` shows it. `created_s`: Unix time."""
    return _encode(_Model(model, created_s))


def models_body(models: Iterable[ModelName], created_s: int) -> bytes:
    """The list of `GET /v1/models`, in the order given. `created_s`: Unix time."""
    return _encode(_ModelList([_Model(model, created_s) for model in models]))


class UpstreamError(msgspec.Struct, frozen=True):
    """What an upstream's error body says. The text is the upstream's own: nothing of it goes to a client uncleaned.

    `code` is "context_length_exceeded" or "content_filter" wherever that is what is meant, in whatever words.
    """

    message: str = ""
    type: str = ""
    code: str | None = None


_CONTEXT = re.compile(
    r"context[ _](?:length|window)|max_model_len|max_total_tokens|longer than the (?:maximum model|model's)"
    r"|inputs? tokens \+|`inputs` must have less than",
    re.IGNORECASE,
)
_FILTER = re.compile(r"content[ _]?(?:filter|policy|management policy)|ResponsibleAIPolicyViolation", re.IGNORECASE)
_SILENT = UpstreamError()


def read_error(body: bytes) -> UpstreamError:
    """What an error body of OpenAI's shape, vLLM's, SGLang's, TGI's or FastAPI's says; empty where it says nothing known."""
    if len(body) > MAX_ERROR_BYTES:
        return _SILENT
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _SILENT
    if not isinstance(tree, dict):
        return _SILENT
    error = tree.get("error", tree)
    if isinstance(error, str):  # TGI
        error = {"message": error, "type": tree.get("error_type")}
    if not isinstance(error, dict):
        return _SILENT
    message = _text(error.get("message") or error.get("detail"))
    kind, code = _text(error.get("type")), _text(error.get("code"))
    said = f"{code} {kind} {message}"
    if _FILTER.search(said):
        code = "content_filter"
    elif _CONTEXT.search(said):
        code = "context_length_exceeded"
    return UpstreamError(message, kind, code or None)


def _text(value: object) -> str:
    return value[:MAX_MESSAGE_CHARS] if isinstance(value, str) else ""
