"""Answers without a generation: what was refused and why, in the four keys of OpenAI's errors."""

from spillway.core.errors import BadRequestError
from spillway.engine.answers import JSON_TYPE
from spillway.net.ports import Exchange, Rejection
from spillway.wire.openai import error_body

RETRY_SOON = b"retry-after: 1\r\nretry-after-ms: 500\r\n"


def rejection(reason: Rejection) -> tuple[int, bytes, bytes]:
    """`net.ports.Service.rejection`."""
    match reason:
        case Rejection.MALFORMED:
            status, message = 400, "The request is not valid HTTP."
        case Rejection.HEAD_TOO_LARGE:
            status, message = 431, "The request's headers are too large."
        case Rejection.BODY_TOO_LARGE:
            status, message = 413, "The request's body is too large."
        case Rejection.TOO_SLOW:
            status, message = 408, "The request came too slowly."
        case Rejection.DRAINING:
            status, message = 503, "The engine is shutting down."
        case Rejection.TOO_MANY_CONNECTIONS | Rejection.BUSY:
            status, message = 503, "The engine has no room for this request."
        case Rejection.INTERNAL:
            status, message = 500, "The engine failed."
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return status, JSON_TYPE, error_body(message, kind, None, reason.value)


def refuse(exchange: Exchange, status: int, message: str, code: str, param: str | None = None) -> None:
    """429 and 503 say when to come again."""
    kind = "rate_limit_error" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    headers = JSON_TYPE + RETRY_SOON if status in (429, 503) else JSON_TYPE
    exchange.respond(status, headers, error_body(message, kind, param, code))


def refuse_bad(exchange: Exchange, error: BadRequestError) -> None:
    exchange.respond(400, JSON_TYPE, error_body(str(error), "invalid_request_error", error.param, error.code))


def not_found(exchange: Exchange) -> None:
    refuse(exchange, 404, "There is nothing at this path.", "unsupported_endpoint")


def wrong_method(exchange: Exchange) -> None:
    refuse(exchange, 405, "This path does not take this method.", "method_not_allowed")


def too_long(context_tokens: int, what: str) -> BadRequestError:
    """As OpenAI says it; gateways look for the code."""
    message = f"This model's maximum context length is {context_tokens} tokens, but {what}."
    return BadRequestError(message, param="messages", code="context_length_exceeded")
