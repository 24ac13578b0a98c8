"""Settings of logs and traces. `config` composes them."""

import enum
from typing import Annotated

import msgspec

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class LogLevel(enum.StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class TraceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Spans go to `otlp_url` (OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces) when it is given; needs the extra `otel`.

    `share` of the requests without a trace of their own get one. `follow`: a caller's `sampled` flag is obeyed.
    At most `queue` spans wait to be sent; more are dropped.
    """

    otlp_url: str | None = None
    otlp_headers: dict[str, str] = {}
    share: _Share = 0.01
    follow: bool = True
    queue: Annotated[int, msgspec.Meta(ge=1)] = 2048


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`access_log_share`: which share of the requests gets a log line of its own, 0 to 1."""

    log_level: LogLevel = LogLevel.INFO
    access_log_share: _Share = 0.0
    trace: TraceSettings = TraceSettings()
