"""What a record may hold so that every step of its way can carry it. Only records from a broken upstream need this."""

import math

import msgspec

from spillway.core.usage import UsageRecord

MAX_TOKENS = 1 << 40
MAX_COST_USD = 1e6
MAX_SECONDS = 1e9


def bounded(record: UsageRecord) -> UsageRecord:
    """The record with its numbers cut to what 64 bits and sums over many records can hold; NaN counts as 0."""
    return msgspec.structs.replace(
        record,
        attempts=_whole(record.attempts),
        prompt_tokens=_whole(record.prompt_tokens),
        cached_tokens=None if record.cached_tokens is None else _whole(record.cached_tokens),
        completion_tokens=_whole(record.completion_tokens),
        ttft_s=None if record.ttft_s is None else _real(record.ttft_s, MAX_SECONDS),
        tpot_s=None if record.tpot_s is None else _real(record.tpot_s, MAX_SECONDS),
        duration_s=_real(record.duration_s, MAX_SECONDS),
        cost_usd=_real(record.cost_usd, MAX_COST_USD),
    )


def _whole(number: int) -> int:
    return max(0, min(number, MAX_TOKENS))


def _real(number: float, most: float) -> float:
    return 0.0 if math.isnan(number) else max(0.0, min(number, most))
