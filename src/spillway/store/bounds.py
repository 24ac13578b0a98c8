"""What a record may hold so that every step of its way can carry it. Only records from a broken upstream need this."""

import msgspec

from spillway.core.usage import UsageRecord

MAX_TOKENS = 1 << 40
MAX_COST_USD = 1e6
MAX_SECONDS = 1e9


def bounded(record: UsageRecord) -> UsageRecord:
    """The record with its numbers cut to what 64 bits and sums over many records can hold; NaN counts as 0."""
    if (
        0 <= record.prompt_tokens <= MAX_TOKENS
        and 0 <= record.completion_tokens <= MAX_TOKENS
        and 0 <= (record.cached_tokens or 0) <= MAX_TOKENS
        and 0 <= record.cost_usd <= MAX_COST_USD  # not so for NaN
        and 0 <= record.duration_s <= MAX_SECONDS
        and 0 <= (record.ttft_s or 0) <= MAX_SECONDS
        and 0 <= (record.tpot_s or 0) <= MAX_SECONDS
    ):
        return record
    return msgspec.structs.replace(
        record,
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
    return max(0.0, min(number, most)) if number == number else 0.0
