"""What a hosted provider says is left of its limits, from response headers in the `x-ratelimit-*` form."""

import re
from collections.abc import Iterable

import msgspec

from spillway.core.clock import Seconds

MOST_DIGITS = 15
_REMAINING_REQUESTS = b"x-ratelimit-remaining-requests"
_REMAINING_TOKENS = b"x-ratelimit-remaining-tokens"
_RESETS = (b"x-ratelimit-reset-requests", b"x-ratelimit-reset-tokens")
_PREFIX = b"x-ratelimit-re"
_PART = re.compile(rb"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|us|ns|d|h|m|s)")
_BARE = re.compile(rb"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_SECONDS = {b"d": 86400.0, b"h": 3600.0, b"m": 60.0, b"s": 1.0, b"ms": 1e-3, b"us": 1e-6, b"ns": 1e-9}


class Quota(msgspec.Struct, frozen=True):
    """`reset_s`: until the first of the two quotas is full again: by then asking anew makes sense. None: not told."""

    requests: int | None = None
    tokens: int | None = None
    reset_s: Seconds | None = None


def read(headers: Iterable[tuple[bytes, bytes]]) -> Quota | None:
    """None where nothing is said of what remains. Names in lower case; values that cannot be read are passed over."""
    requests: int | None = None
    tokens: int | None = None
    reset_s: Seconds | None = None
    for name, value in headers:
        if not name.startswith(_PREFIX):
            continue
        if name == _REMAINING_REQUESTS:
            requests = _count(value)
        elif name == _REMAINING_TOKENS:
            tokens = _count(value)
        elif name in _RESETS:
            after_s = duration_s(value)
            if after_s is not None:
                reset_s = after_s if reset_s is None else min(reset_s, after_s)
    return None if requests is None and tokens is None else Quota(requests, tokens, reset_s)


def duration_s(text: bytes) -> Seconds | None:
    """Seconds of "6m0s", "1s", "20ms", "1h30m" or a bare number of seconds; None for anything else."""
    if _BARE.fullmatch(text):
        return float(text)
    total_s, at = 0.0, 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            return None
        total_s += float(part[1]) * _SECONDS[part[2]]
        at = part.end()
    return total_s if text else None


def _count(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= MOST_DIGITS else None
