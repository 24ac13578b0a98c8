"""The ways in which a fake upstream misbehaves, and how they are written down.

As text:   KIND[:VALUE][:NAME=VALUE,...][@FROM-TO]       cut:3    429:retry_after_s=2    500:count=1@10-    503@5-65
As JSON:   {"kind": "cut", "after_tokens": 3, "from_s": 5}
VALUE alone sets what matters most for the kind (see `_MAIN_FIELD`). Times count from the start of the script.
The sixteen faults that a gateway must survive, in these words: 429:count=N · 429 · 500:count=1 · 503 · reset · no_response ·
slow_first_token · cut · stall · malformed_chunk · no_done · context_length_exceeded · content_filter · reject_shape ·
flap (a rule with period_s and down_s) · no_usage.
"""

import enum

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError


class FaultKind(enum.StrEnum):
    # Answers without any generation
    RATE_LIMITED = "429"  # with retry-after where `retry_after_s` is given
    SERVER_ERROR = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"  # with retry-after where `retry_after_s` is given
    BAD_KEY = "401"
    MODEL_NOT_FOUND = "404"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"  # 400
    CONTENT_FILTER = "content_filter"  # 400
    REJECT_SHAPE = "reject_shape"  # 400: a parameter that this model does not take

    # No answer that HTTP would call one
    RESET = "reset"  # TCP reset instead of an answer
    NO_RESPONSE = "no_response"  # nothing, until the client leaves
    MALFORMED_HTTP = "malformed_http"  # bytes that are no HTTP
    HUGE_HEADER = "huge_header"  # one header of `size_bytes`
    CLOSE_AFTER_HEAD = "close_after_head"  # 200 and headers, then the end

    # Trouble on the way
    SLOW_FIRST_TOKEN = "slow_first_token"  # the engine starts `delay_s` later
    CUT = "cut"  # connection closed after `after_tokens`; a whole reply is cut in half
    RESET_MID_STREAM = "reset_mid_stream"  # the same with a TCP reset
    STALL = "stall"  # silent after `after_tokens`, for `delay_s`, or for ever where it is 0
    MALFORMED_CHUNK = "malformed_chunk"  # after `after_tokens` one event whose JSON is broken; then it goes on
    COMMENTS = "comments"  # comment lines between the events: legal, and to be tolerated
    BAD_FRAMING = "bad_framing"  # after `after_tokens` a chunk whose length is no number
    ERROR_EVENT = "error_event"  # after `after_tokens` an error inside the stream, then the end without [DONE]
    FILTERED_MID_STREAM = "filtered_mid_stream"  # after `after_tokens` the finish reason content_filter
    NO_DONE = "no_done"  # a complete stream without [DONE]
    NO_USAGE = "no_usage"  # no usage although it was asked for
    GARBAGE_AFTER = "garbage_after"  # a complete answer, then bytes that belong to nothing


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault with its arguments; those that a kind does not use are ignored."""

    kind: FaultKind
    after_tokens: int = 2
    delay_s: Seconds = 0.0  # before the answer, where the kind answers at once; else see `FaultKind`
    retry_after_s: Seconds | None = None
    size_bytes: int = 256 * 1024


class Rule(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and the requests it strikes: those for which every condition holds."""

    from_s: Seconds = 0.0
    to_s: Seconds | None = None  # None: never ends
    count: int | None = None  # at most so many requests; None: no bound
    share: float = 1.0  # of the requests, by chance
    period_s: Seconds | None = None  # with `down_s`: only in the first `down_s` of each period (an endpoint that flaps)
    down_s: Seconds = 0.0
    model: str | None = None
    path: str | None = None  # e.g. /health; None: every path that generates

    def active(self, now_s: Seconds) -> bool:
        if now_s < self.from_s or (self.to_s is not None and now_s >= self.to_s):
            return False
        return self.period_s is None or (now_s - self.from_s) % self.period_s < self.down_s


_MAIN_FIELD: dict[FaultKind, str] = {
    FaultKind.RATE_LIMITED: "retry_after_s",
    FaultKind.UNAVAILABLE: "retry_after_s",
    FaultKind.SLOW_FIRST_TOKEN: "delay_s",
    FaultKind.HUGE_HEADER: "size_bytes",
    FaultKind.CUT: "after_tokens",
    FaultKind.RESET_MID_STREAM: "after_tokens",
    FaultKind.STALL: "after_tokens",
    FaultKind.MALFORMED_CHUNK: "after_tokens",
    FaultKind.BAD_FRAMING: "after_tokens",
    FaultKind.ERROR_EVENT: "after_tokens",
    FaultKind.FILTERED_MID_STREAM: "after_tokens",
}


def parse_fault(text: str) -> Fault:
    """From a header or a request's `user` field: text or a JSON object. Raises ConfigError."""
    rule = parse_rule(text)
    return Fault(**{name: getattr(rule, name) for name in Fault.__struct_fields__})


def parse_rule(text: str) -> Rule:
    """Raises ConfigError that names the text at fault."""
    try:
        if text.startswith("{"):
            return msgspec.json.decode(text, type=Rule)
        return msgspec.convert(_fields_of(text), Rule, strict=False)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"fault {text!r}: {error}") from error


def parse_rules(document: object) -> list[Rule]:
    """From a script: a list of texts and mappings. Raises ConfigError."""
    try:
        items = msgspec.convert(document, list[str | dict[str, object]])
        return [parse_rule(item) if isinstance(item, str) else msgspec.convert(item, Rule) for item in items]
    except msgspec.ValidationError as error:
        raise ConfigError(f"faults: {error}") from error


def _fields_of(text: str) -> dict[str, str]:
    body, at, span = text.partition("@")
    kind, *settings = body.replace(",", ":").split(":")
    fields = {"kind": kind}
    if kind == "flap":
        fields = {"kind": "500", "period_s": "4", "down_s": "2"}  # a fault: load would open no breaker
    for setting in settings:
        name, equals, value = setting.partition("=")
        if equals:
            fields[name] = value
        elif main := _MAIN_FIELD.get(FaultKind(fields["kind"])):
            fields[main] = name
        else:
            raise ValueError(f"{kind} takes no plain value; write NAME=VALUE")
    if at:
        begin, dash, end = span.partition("-")
        fields["from_s"] = begin or "0"
        if end:
            fields["to_s"] = end
        if not dash:
            raise ValueError("a span is written @FROM-TO, with either end left out at will")
    return fields
