"""Lines of a batch: what a client wrote into its input file, and what it reads in its output and error files."""

import msgspec

from spillway.core.errors import BadRequestError

MAX_CUSTOM_ID_CHARS = 512

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations")


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class Line(msgspec.Struct, frozen=True):
    """One request. `body`: as it was written, for the endpoint."""

    custom_id: str
    model: str
    body: bytes


_line = msgspec.json.Decoder(_Line).decode
_body = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def read_line(text: bytes, endpoint: str) -> Line:
    """BadRequestError, with the code and the field at fault, for what is no request to `endpoint`."""
    try:
        line = _line(text)
        body = bytes(line.body)
        head = _body(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError("This line is not valid JSON.", code="invalid_json_line") from error
    if not line.custom_id or len(line.custom_id) > MAX_CUSTOM_ID_CHARS:
        raise BadRequestError(
            f"custom_id must have 1 to {MAX_CUSTOM_ID_CHARS} characters.", param="custom_id", code="invalid_custom_id"
        )
    if line.method != "POST":
        raise BadRequestError("method must be POST.", param="method", code="invalid_method")
    if line.url != endpoint:
        raise BadRequestError(f"url must be the batch's endpoint, {endpoint}.", param="url", code="mismatched_endpoint")
    if head.stream:
        raise BadRequestError(
            "An answer in a batch cannot be streamed.", param="body.stream", code="stream_not_allowed"
        )
    return Line(line.custom_id, head.model, body)


def _invalid(error: msgspec.ValidationError) -> BadRequestError:
    what, _, path = str(error).partition(" - at `$")
    param = path.strip(".`")
    if "missing required field" in what:
        param = f"{param}.{what.rpartition('field ')[2].strip('`')}".strip(".")
        return BadRequestError(f"{param} is missing.", param=param, code="missing_required_parameter")
    return BadRequestError(what.replace("`", "") + ".", param=param or None, code="invalid_request")


class _Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str


class _Outcome(msgspec.Struct):
    id: str
    custom_id: str
    response: _Response | None
    error: _Error | None


def answered_line(id: str, custom_id: str, status: int, request: str, body: msgspec.Raw) -> bytes:
    """Of a request that was answered, well or with an error status."""
    return _encode(_Outcome(id, custom_id, _Response(status, request, body), None)) + b"\n"


def unanswered_line(id: str, custom_id: str, code: str, message: str) -> bytes:
    return _encode(_Outcome(id, custom_id, None, _Error(code, message))) + b"\n"
