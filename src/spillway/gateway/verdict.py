"""What an upstream's error answer means: a fault of the endpoint, load, or the request's own mistake."""

import re

import msgspec

from spillway.core.outcome import Outcome
from spillway.traffic.events import Fault
from spillway.wire import openai

_MAX_MESSAGE = 400
_SECRETS_AND_PLACES = re.compile(r"(?:sk-|key-|Bearer )\S+|https?://\S+|[\x00-\x1f\x7f]")


class Verdict(msgspec.Struct, frozen=True):
    """`fault` set: the endpoint's doing, another may be tried. Else `outcome` and `message` are for the client."""

    fault: Fault | None
    outcome: Outcome = Outcome.UPSTREAM_REJECTED
    message: str = ""


_OVERLOADED = Verdict(Fault.OVERLOADED)
_SERVER_ERROR = Verdict(Fault.SERVER_ERROR)
_TIMEOUT = Verdict(Fault.TIMEOUT)
_REQUEST_AT_FAULT = frozenset((400, 405, 409, 411, 413, 415, 422))


def verdict_on(status: int, body: bytes) -> Verdict:
    """401, 403 and 404 are the operator's mistake (our key, our model name there), not the client's: faults."""
    if status in (429, 503):
        return _OVERLOADED
    if status in (408, 504):
        return _TIMEOUT
    if status not in _REQUEST_AT_FAULT:
        return _SERVER_ERROR
    said = openai.read_error(body)
    match said.code:
        case "context_length_exceeded":
            outcome = Outcome.CONTEXT_LENGTH_EXCEEDED
        case "content_filter" | "content_policy_violation":
            outcome = Outcome.CONTENT_FILTERED
        case _:
            outcome = Outcome.UPSTREAM_REJECTED
    return Verdict(None, outcome, cleaned(said.message) or "The model's server refused the request.")


def cleaned(message: str) -> str:
    """An upstream's words without keys, addresses and control characters, and of bounded length."""
    return _SECRETS_AND_PLACES.sub("…", message)[:_MAX_MESSAGE]
