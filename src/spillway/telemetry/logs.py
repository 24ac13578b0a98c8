"""Structured logs: one JSON object a line, on stderr, by the standard library's logging.

`log.warning("text %s", value, extra={"request": …})`: what is in `extra` becomes fields. A kind of message is its
text before formatting; each kind may come `burst` times at once and `per_s` times a second after that, so that a storm
of errors cannot fill a disk. What was held back is counted in the next line of its kind.

No prompt, completion or secret: callers log ids and numbers, and of an exception only its type and places are
written, its text only where it is one of ours (SpillwayError promises a clean text) or the system's. Of what libraries
log only the first line is kept: the lines after it show values.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TextIO

import msgspec

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import SpillwayError
from spillway.telemetry.settings import LogLevel

ROOT = "spillway"
ACCESS = "access"
"""Child of ROOT for one line a request: how many there are is the operator's choice, they are not held back."""

_MAX_KINDS = 512
_MAX_TEXT_CHARACTERS = 4096
_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "suppressed"}


def configure(clock: Clock, *, level: LogLevel = LogLevel.INFO, stream: TextIO | None = None) -> logging.Logger:
    """The logger of this process. Called once by `app`; a second call replaces what the first set up."""
    log = logging.getLogger(ROOT)
    output = logging.StreamHandler(sys.stderr if stream is None else stream)
    output.setFormatter(JsonLines())
    output.addFilter(Throttle(clock.monotonic))
    log.handlers = [output]
    log.propagate = False
    log.setLevel(_LEVELS[level])
    libraries = logging.getLogger()
    libraries.handlers = [output]
    libraries.setLevel(logging.WARNING)
    return log


class JsonLines(logging.Formatter):
    """{"time", "level", "logger", "message", …extra, "error"}; texts longer than 4096 characters are cut."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record)[:_MAX_TEXT_CHARACTERS],
        }
        for name, value in vars(record).items():
            if name not in _OWN_FIELDS:
                line[name] = _plain(value)
        suppressed = getattr(record, "suppressed", 0)
        if suppressed:
            line["suppressed"] = suppressed
        if record.exc_info is not None and record.exc_info[1] is not None:
            line["error"] = _described(record.exc_info[1])
        try:
            return msgspec.json.encode(line).decode()
        except UnicodeEncodeError:  # half a surrogate pair, as in a file name that is not UTF-8
            return json.dumps(line)


class Throttle(logging.Filter):
    """A token bucket for each kind of message; kinds beyond the first 512 share one."""

    def __init__(self, monotonic: Callable[[], Seconds], *, per_s: float = 1.0, burst: int = 20) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._per_s = per_s
        self._burst = burst
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == f"{ROOT}.{ACCESS}":
            return True
        kind = (record.name, str(record.msg))
        now = self._monotonic()
        bucket = self._buckets.get(kind)
        if bucket is None:
            if len(self._buckets) >= _MAX_KINDS:
                kind = ("", "")
            bucket = self._buckets.setdefault(kind, _Bucket(self._burst, now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.tokens < 1:
            bucket.suppressed += 1
            return False
        bucket.tokens -= 1
        record.suppressed, bucket.suppressed = bucket.suppressed, 0
        return True


class _Bucket:
    __slots__ = ("at", "suppressed", "tokens")

    def __init__(self, tokens: float, at: Seconds) -> None:
        self.tokens = tokens
        self.at = at
        self.suppressed = 0


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    return text if record.name.partition(".")[0] == ROOT else text.partition("\n")[0]


def _plain(value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)[:_MAX_TEXT_CHARACTERS]


def _described(error: BaseException) -> dict[str, object]:
    described: dict[str, object] = {"type": type(error).__name__, "at": _places(error.__traceback__)}
    if isinstance(error, SpillwayError | OSError):
        described["text"] = str(error)[:_MAX_TEXT_CHARACTERS]
    cause = error.__cause__ if error.__cause__ is not None else error.__context__
    if cause is not None and cause is not error:
        described["after"] = {"type": type(cause).__name__, "at": _places(cause.__traceback__)}
    return described


def _places(trace: TracebackType | None) -> list[str]:
    """The last frames as `file:line function`: no source line, no value."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-12:]]
