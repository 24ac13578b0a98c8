"""The usage store's twin in memory, for tests. Held to the same contract suite as the database."""

from collections.abc import Sequence

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import BatchId, RequestId
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.store.bounds import bounded
from spillway.store.rollups import (
    NANO,
    NONE,
    HourKey,
    HourSums,
    KeptKey,
    added,
    nano_usd,
    page,
    page_limit,
    read_cursor,
    summed,
)
from spillway.store.rows import Grain, HourPage, HourQuery, Ingested, RecordQuery, UsageScope, Used


class MemoryUsage:
    def __init__(self) -> None:
        self._records: dict[RequestId, UsageRecord] = {}
        self._hours: dict[KeptKey, HourSums] = {}
        self._items: dict[str, tuple[RequestId, Seconds]] = {}

    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        fresh: dict[RequestId, UsageRecord] = {}
        for record in map(bounded, records):
            kept = self._claimed(record) if record.request not in self._records else None
            if kept is not None:
                fresh.setdefault(record.request, msgspec.structs.replace(kept, cost_usd=nano_usd(kept) / NANO))
        self._records.update(fresh)
        for key, sums in summed(fresh.values()).items():
            self._hours[key] = added(self._hours.get(key, NONE), sums)
        return Ingested(len(fresh), len(records) - len(fresh))

    def _claimed(self, record: UsageRecord) -> UsageRecord | None:
        """As `SqlUsage._claimed`, of one."""
        mine = (record.request, record.finished_at_s)
        if not record.item:
            return record
        if record.outcome is Outcome.OK:
            claimed = self._items.setdefault(record.item, mine)
            if claimed[0] == record.request:
                return record if claimed == mine else None
        return msgspec.structs.replace(record, repeat=True)

    async def billed(self, batch: BatchId) -> frozenset[str]:
        return frozenset(item.rpartition("/")[2] for item in self._items if item.startswith(f"{batch}/"))

    async def record(self, request: RequestId) -> UsageRecord | None:
        return self._records.get(request)

    async def records(self, query: RecordQuery) -> list[UsageRecord]:
        wanted = [
            record
            for record in self._records.values()
            if query.from_s <= record.finished_at_s < query.until_s
            and (record.finished_at_s, record.request) > query.after
            and query.tenant in (None, record.tenant)
            and query.organization in (None, record.organization)
        ]
        return sorted(wanted, key=lambda record: (record.finished_at_s, record.request))[: query.limit]

    async def hours(self, query: HourQuery) -> HourPage:
        after = read_cursor(query.cursor)
        sums: dict[HourKey, HourSums] = {}
        for key, one in self._hours.items():
            theirs = query.tenant in (None, key[1]) and query.organization in (None, key[4])
            if query.from_s <= key[0] < query.until_s and theirs:
                shown = key[:4] if query.grain is Grain.POOL else (key[0], key[1], "", "")
                sums[shown] = added(sums.get(shown, NONE), one)
        found = sorted((key, one) for key, one in sums.items() if key > after)
        return page(found[: page_limit(query) + 1], query)

    async def used(self, scopes: Sequence[UsageScope]) -> list[Used]:
        return [self._used(scope) for scope in scopes]

    def _used(self, scope: UsageScope) -> Used:
        found = NONE
        for (hour_s, tenant, model, _, organization), sums in self._hours.items():
            theirs = tenant == scope.tenant if scope.tenant is not None else organization == scope.organization
            if scope.from_s <= hour_s < scope.until_s and theirs and scope.model in (None, model):
                found = added(found, sums)
        return Used(requests=found[7], tokens=found[3] + found[5], nano_usd=found[6])

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        old = sorted((r.finished_at_s, r.request) for r in self._records.values() if r.finished_at_s < records_before_s)
        for _, request in old[:limit]:
            del self._records[request]
        hours = sorted(key for key in self._hours if key[0] < hours_before_s)
        for key in hours[:limit]:
            del self._hours[key]
        return min(len(old), limit) + min(len(hours), limit)
