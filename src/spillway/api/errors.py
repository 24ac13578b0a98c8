"""The only place that knows both Outcome and HTTP status.

Every error body has the four keys of the OpenAI dialect. Retry headers: a client may come back after load (with jitter,
so that a crowd does not return at once), must not where the gateway has already tried everything it may, and is told
nothing where coming back changes nothing.
"""

import math
from typing import NamedTuple

from spillway.core.outcome import Outcome
from spillway.core.rng import Rng
from spillway.net.ports import Rejection
from spillway.wire import openai

MAX_RETRY_AFTER_S = 120.0  # openai-python does not retry at all when told to wait longer
JITTER = 0.25


class ErrorShape(NamedTuple):
    status: int
    type: str
    code: str | None
    message: str
    final: bool = False  # tell the client not to retry


ERRORS: dict[Outcome, ErrorShape] = {
    Outcome.CLIENT_TIMEOUT: ErrorShape(408, "invalid_request_error", "request_timeout", "The request came too slowly."),
    Outcome.INVALID_REQUEST: ErrorShape(400, "invalid_request_error", None, "The request cannot be understood."),
    Outcome.TOO_LARGE: ErrorShape(413, "invalid_request_error", "request_too_large", "The request is too large."),
    Outcome.UNSUPPORTED_ENCODING: ErrorShape(
        415, "invalid_request_error", "unsupported_encoding", "Compressed request bodies are not accepted."
    ),
    Outcome.UNAUTHENTICATED: ErrorShape(
        401, "invalid_request_error", "invalid_api_key", "The API key is missing, unknown, expired or revoked."
    ),
    Outcome.FORBIDDEN: ErrorShape(
        403, "invalid_request_error", "model_not_allowed", "Your key may not use this model."
    ),
    Outcome.NO_POOL_ALLOWED: ErrorShape(
        403,
        "invalid_request_error",
        "no_pool_allowed",
        "Your spill policy leaves no pool that could serve this request.",
    ),
    Outcome.MODEL_NOT_FOUND: ErrorShape(404, "invalid_request_error", "model_not_found", "The model does not exist."),
    Outcome.UNSUPPORTED_ENDPOINT: ErrorShape(
        404, "invalid_request_error", "unsupported_endpoint", "There is no such endpoint."
    ),
    Outcome.METHOD_NOT_ALLOWED: ErrorShape(
        405, "invalid_request_error", "method_not_allowed", "The endpoint does not take this method."
    ),
    Outcome.RATE_LIMITED: ErrorShape(429, "rate_limit_error", "rate_limit_exceeded", "You exceeded your rate limit."),
    Outcome.REFUSED: ErrorShape(
        429, "rate_limit_error", "rate_limit_exceeded", "All capacity for this model is in use."
    ),
    Outcome.EVICTED: ErrorShape(
        429, "rate_limit_error", "rate_limit_exceeded", "No capacity for this model became free in time."
    ),
    Outcome.UNAVAILABLE: ErrorShape(503, "server_error", "unavailable", "The model cannot be served at the moment."),
    Outcome.CONTEXT_LENGTH_EXCEEDED: ErrorShape(
        400, "invalid_request_error", "context_length_exceeded", "The request is longer than the model's context."
    ),
    Outcome.CONTENT_FILTERED: ErrorShape(
        400, "invalid_request_error", "content_filter", "The model's server refused the content."
    ),
    Outcome.UPSTREAM_REJECTED: ErrorShape(
        400, "invalid_request_error", "invalid_request", "The model's server refused the request."
    ),
    Outcome.UPSTREAM_ERROR: ErrorShape(
        502, "server_error", "upstream_error", "The model's servers failed to answer.", final=True
    ),
    Outcome.UPSTREAM_TIMEOUT: ErrorShape(
        504, "server_error", "upstream_timeout", "The model's servers did not answer in time.", final=True
    ),
    Outcome.CUT: ErrorShape(
        502, "server_error", "stream_cut", "The answer broke off before it was complete.", final=True
    ),
    Outcome.INTERNAL: ErrorShape(500, "server_error", "internal_error", "The gateway made a mistake."),
}
"""OK and CLIENT_LEFT have no body: one is an answer, the other has nobody to read it."""


OUTCOME_OF = {
    Rejection.MALFORMED: Outcome.INVALID_REQUEST,
    Rejection.HEAD_TOO_LARGE: Outcome.TOO_LARGE,
    Rejection.BODY_TOO_LARGE: Outcome.TOO_LARGE,
    Rejection.TOO_SLOW: Outcome.CLIENT_TIMEOUT,
    Rejection.DRAINING: Outcome.UNAVAILABLE,
    Rejection.TOO_MANY_CONNECTIONS: Outcome.UNAVAILABLE,
    Rejection.BUSY: Outcome.UNAVAILABLE,
    Rejection.INTERNAL: Outcome.INTERNAL,
}
"""How requests end that the HTTP server refuses by itself."""


def refusal(reason: Rejection) -> tuple[int, bytes, bytes]:
    """Status, header lines and body for a request that no route saw (`net.ports.Service.rejection`)."""
    status, body = error_answer(OUTCOME_OF[reason])
    return 431 if reason is Rejection.HEAD_TOO_LARGE else status, b"content-type: application/json\r\n", body


def error_answer(
    outcome: Outcome, message: str = "", *, param: str | None = None, code: str | None = None
) -> tuple[int, bytes]:
    """Status and body. An empty message means the table's."""
    shape = ERRORS[outcome]
    return shape.status, openai.error_body(message or shape.message, shape.type, param, code or shape.code)


def retry_headers(outcome: Outcome, retry_after_s: float | None, rng: Rng) -> bytes:
    """Header lines that say whether and when to come back. Infinite: coming back changes nothing."""
    if ERRORS[outcome].final or retry_after_s == math.inf:
        return b"x-should-retry: false\r\n"
    if retry_after_s is None:
        return b""
    wait_s = min(MAX_RETRY_AFTER_S, retry_after_s * (1.0 + JITTER * rng.random()))
    return b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (max(1, -int(-wait_s // 1)), int(wait_s * 1000.0))
