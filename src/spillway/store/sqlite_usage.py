"""UsageStore on SQLite."""

import sqlite3
from collections.abc import Sequence

from msgspec.structs import asdict

from spillway.core.clock import Seconds
from spillway.core.ids import KeyId, ModelName, OrganizationId, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.store.bounds import bounded
from spillway.store.database import Database
from spillway.store.rollups import NANO, HourKey, HourSums, nano_usd, page, page_limit, read_cursor, summed
from spillway.store.rows import Grain, HourPage, HourQuery, Ingested, UsageScope, Used
from spillway.store.statements import statements

_Columns = tuple[
    str, float, str, str, str, str | None, str | None, str, str, int, int, int, int, int | None, int, int,
    float | None, float | None, float, int, str,
]  # fmt: skip


class SqliteUsage:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("usage")

    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        def work(connection: sqlite3.Connection) -> Ingested:
            add = self._sql["add"]
            # row by row: only the rows that are new go into the sums
            fresh = [
                record for record in map(bounded, records) if connection.execute(add, _columns(record)).rowcount == 1
            ]
            connection.executemany(self._sql["add_to_hour"], [key + sums for key, sums in summed(fresh).items()])
            return Ingested(len(fresh), len(records) - len(fresh))

        return await self._database.write(work)

    async def record(self, request: RequestId) -> UsageRecord | None:
        def work(connection: sqlite3.Connection) -> UsageRecord | None:
            columns = connection.execute(self._sql["record"], {"request": request}).fetchone()
            return None if columns is None else _record(columns)

        return await self._database.read(work)

    async def hours(self, query: HourQuery) -> HourPage:
        after_hour_s, after_tenant, after_model, after_pool = read_cursor(query.cursor)
        by = "hours_by_pool" if query.grain is Grain.POOL else "hours_by_tenant"
        of = "_of_tenant" if query.tenant is not None else "_of_organization" if query.organization is not None else ""
        sql = self._sql[by + of]
        values = {
            "tenant": query.tenant,
            "organization": query.organization,
            "from_s": max(
                query.from_s, after_hour_s
            ),  # so that a later page does not read what the earlier ones showed
            "until_s": query.until_s,
            "after_hour_s": after_hour_s,
            "after_tenant": after_tenant,
            "after_model": after_model,
            "after_pool": after_pool,
            "limit": page_limit(query) + 1,
        }

        def work(connection: sqlite3.Connection) -> list[tuple[HourKey, HourSums]]:
            return [(columns[:4], (*columns[4:], 0)) for columns in connection.execute(sql, values)]

        return page(await self._database.read(work), query)

    async def used(self, scopes: Sequence[UsageScope]) -> list[Used]:
        def work(connection: sqlite3.Connection) -> list[Used]:
            return [Used(*connection.execute(self._sql[_used_by(one)], asdict(one)).fetchone()) for one in scopes]

        return await self._database.read(work)

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        def work(connection: sqlite3.Connection) -> int:
            records = connection.execute(self._sql["forget_records"], {"before_s": records_before_s, "limit": limit})
            hours = connection.execute(self._sql["forget_hours"], {"before_s": hours_before_s, "limit": limit})
            return records.rowcount + hours.rowcount

        return await self._database.write(work)


def _used_by(scope: UsageScope) -> str:
    who = "tenant" if scope.tenant is not None else "organization"
    return f"used_by_{who}" if scope.model is None else f"used_by_{who}_of_model"


def _columns(record: UsageRecord) -> _Columns:
    return (
        record.request, record.finished_at_s, record.tenant, record.key, record.model, record.version, record.pool,
        record.priority.value, record.outcome.value, record.attempts, record.spilled, record.streamed,
        record.prompt_tokens, record.cached_tokens, record.completion_tokens, record.estimated,
        record.ttft_s, record.tpot_s, record.duration_s, nano_usd(record), record.organization,
    )  # fmt: skip


def _record(columns: _Columns) -> UsageRecord:
    (
        request, finished_at_s, tenant, key, model, version, pool, priority, outcome, attempts, spilled, streamed,
        prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_s, tpot_s, duration_s, cost_nano_usd, organization,
    ) = columns  # fmt: skip
    return UsageRecord(
        request=RequestId(request),
        finished_at_s=finished_at_s,
        tenant=TenantId(tenant),
        key=KeyId(key),
        model=ModelName(model),
        version=None if version is None else VersionName(version),
        pool=None if pool is None else PoolName(pool),
        priority=Priority(priority),
        outcome=Outcome(outcome),
        attempts=attempts,
        spilled=bool(spilled),
        streamed=bool(streamed),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        estimated=bool(estimated),
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        duration_s=duration_s,
        cost_usd=cost_nano_usd / NANO,
        organization=OrganizationId(organization),
    )
