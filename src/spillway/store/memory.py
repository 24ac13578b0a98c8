"""The stores' twins in memory, for tests. Held to the same contract suite as the database."""

from collections.abc import Sequence

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.core.ids import KeyId, RequestId, TenantId
from spillway.core.usage import UsageRecord
from spillway.store.bounds import bounded
from spillway.store.rollups import NANO, HourKey, HourSums, added, nano_usd, page, page_limit, read_cursor, summed
from spillway.store.rows import MAX_PAGE_ROWS, Grain, HourPage, HourQuery, Ingested, KeyRow, Revision


class MemoryKeys:
    def __init__(self) -> None:
        self._rows: dict[KeyId, KeyRow] = {}
        self._changes = 0

    async def add(self, row: KeyRow) -> None:
        if row.id in self._rows or any(known.digest == row.digest for known in self._rows.values()):
            raise StoreError(f"key {row.id} is there already")
        self._put(row)

    async def rows(
        self, *, tenant: TenantId | None = None, after: KeyId | None = None, limit: int = 200
    ) -> list[KeyRow]:
        wanted = [
            row
            for key, row in sorted(self._rows.items())
            if key > (after or "") and (tenant is None or row.tenant == tenant)
        ]
        return wanted[: max(1, min(limit, MAX_PAGE_ROWS))]

    async def live(self, now_s: Seconds) -> list[KeyRow]:
        return [row for _, row in sorted(self._rows.items()) if row.is_live(now_s)]

    async def revoke(self, key: KeyId, at_s: Seconds) -> bool:
        row = self._rows.get(key)
        if row is not None and row.revoked_at_s is None:
            self._put(msgspec.structs.replace(row, revoked_at_s=at_s))
        return row is not None

    async def revision(self) -> Revision:
        return Revision(1, self._changes)

    def _put(self, row: KeyRow) -> None:
        self._rows[row.id] = row
        self._changes += 1


class MemoryUsage:
    def __init__(self) -> None:
        self._records: dict[RequestId, UsageRecord] = {}
        self._hours: dict[HourKey, HourSums] = {}

    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        fresh: dict[RequestId, UsageRecord] = {}
        for record in map(bounded, records):
            if record.request not in self._records:
                fresh.setdefault(record.request, msgspec.structs.replace(record, cost_usd=nano_usd(record) / NANO))
        self._records.update(fresh)
        for key, sums in summed(fresh.values()).items():
            self._hours[key] = added(self._hours.get(key, (0, 0, 0, 0, 0, 0, 0)), sums)
        return Ingested(len(fresh), len(records) - len(fresh))

    async def record(self, request: RequestId) -> UsageRecord | None:
        return self._records.get(request)

    async def hours(self, query: HourQuery) -> HourPage:
        after = read_cursor(query.cursor)
        sums: dict[HourKey, HourSums] = {}
        for key, one in self._hours.items():
            if query.from_s <= key[0] < query.until_s and query.tenant in (None, key[1]):
                shown = key if query.grain is Grain.POOL else (key[0], key[1], "", "")
                sums[shown] = added(sums.get(shown, (0, 0, 0, 0, 0, 0, 0)), one)
        found = sorted((key, one) for key, one in sums.items() if key > after)
        return page(found[: page_limit(query) + 1], query)

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        old = sorted((r.finished_at_s, r.request) for r in self._records.values() if r.finished_at_s < records_before_s)
        for _, request in old[:limit]:
            del self._records[request]
        hours = sorted(key for key in self._hours if key[0] < hours_before_s)
        for key in hours[:limit]:
            del self._hours[key]
        return min(len(old), limit) + min(len(hours), limit)
