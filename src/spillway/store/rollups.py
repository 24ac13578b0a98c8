"""Sums per hour, and the pages that show them. Shared by the database and its twin in memory."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Annotated

import msgspec

from spillway.core.errors import BadRequestError
from spillway.core.ids import ModelName, PoolName, TenantId
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.store.rows import MAX_PAGE_ROWS, NO_POOL, Grain, HourPage, HourQuery, HourRow

HOUR_S = 3600
NANO = 1_000_000_000

HourKey = tuple[int, str, str, str]
"""Begin of the hour, tenant, model, pool; in a roll-up per tenant the last two are empty."""

KeptKey = tuple[int, str, str, str, str]
"""As they are kept: begin of the hour, tenant, model, pool, organization."""

HourSums = tuple[int, int, int, int, int, int, int, int, int]
"""requests, ok, spilled, prompt, cached, completion tokens, cost in nano-dollars, dispatched requests; cost of repeats in nano-dollars."""

NONE: HourSums = (0, 0, 0, 0, 0, 0, 0, 0, 0)

_Cursor = tuple[Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)], str, str, str]

START: HourKey = (-1, "", "", "")
"""Before every key."""


def hour_key(record: UsageRecord) -> KeptKey:
    hour_s = int(record.finished_at_s // HOUR_S) * HOUR_S
    return (hour_s, record.tenant, record.model, record.pool or NO_POOL, record.organization)


def nano_usd(record: UsageRecord) -> int:
    return round(record.cost_usd * NANO)


def summed(records: Iterable[UsageRecord]) -> dict[KeptKey, HourSums]:
    sums: dict[KeptKey, HourSums] = {}
    for record in records:
        key = hour_key(record)
        sums[key] = added(sums.get(key, NONE), _sums_of(record))
    return sums


def added(left: HourSums, right: HourSums) -> HourSums:
    return (
        left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3],
        left[4] + right[4], left[5] + right[5], left[6] + right[6], left[7] + right[7], left[8] + right[8],
    )  # fmt: skip


def _sums_of(record: UsageRecord) -> HourSums:
    if record.repeat:
        return (0, 0, 0, 0, 0, 0, 0, 0, nano_usd(record))
    return (
        1, int(record.outcome is Outcome.OK), int(record.spilled), record.prompt_tokens, record.cached_tokens or 0,
        record.completion_tokens, nano_usd(record), int(record.attempts > 0), 0,
    )  # fmt: skip


def page_limit(query: HourQuery) -> int:
    return max(1, min(query.limit, MAX_PAGE_ROWS))


def page(found: list[tuple[HourKey, HourSums]], query: HourQuery) -> HourPage:
    """`found` in order of keys, one more than the limit where there are more."""
    limit = page_limit(query)
    shown = found[:limit]
    following = write_cursor(shown[-1][0]) if len(found) > limit else None
    return HourPage(tuple(_row(key, sums, query.grain) for key, sums in shown), following)


def _row(key: HourKey, sums: HourSums, grain: Grain) -> HourRow:
    hour_s, tenant, model, pool = key
    requests, ok, spilled, prompt_tokens, cached_tokens, completion_tokens, cost_nano_usd, _, repeat_nano_usd = sums
    return HourRow(
        hour_s=hour_s,
        tenant=TenantId(tenant),
        model=ModelName(model) if grain is Grain.POOL else None,
        pool=PoolName(pool) if grain is Grain.POOL and pool else None,
        requests=requests,
        ok=ok,
        spilled=spilled,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        cost_usd=cost_nano_usd / NANO,
        repeat_cost_usd=repeat_nano_usd / NANO,
    )


def write_cursor(key: HourKey) -> str:
    return urlsafe_b64encode(msgspec.msgpack.encode(key)).decode().rstrip("=")


def read_cursor(text: str | None) -> HourKey:
    """Where a page starts. A cursor that was not written by `write_cursor` is BadRequestError."""
    if text is None:
        return START
    try:
        return msgspec.msgpack.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Cursor)
    except (msgspec.DecodeError, UnicodeError, ValueError, binascii.Error) as error:
        raise BadRequestError("this cursor was not made here", param="cursor") from error
