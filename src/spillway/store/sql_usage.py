"""UsageStore on a database."""

import math
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import asdict, replace

from spillway.core.clock import Seconds
from spillway.core.ids import BatchId, KeyId, ModelName, OrganizationId, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.store.bounds import bounded
from spillway.store.database import Connection, Database, Found, Row, Value
from spillway.store.rollups import NANO, HourKey, HourSums, KeptKey, nano_usd, page, page_limit, read_cursor, summed
from spillway.store.rows import Grain, HourPage, HourQuery, Ingested, RecordQuery, UsageScope, Used
from spillway.store.statements import statements

FAR_S = 1e15  # beyond all times
DAY_S = 86_400


class SqlUsage:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("usage")

    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        def work(connection: Connection) -> Ingested:
            once = {record.request: record for record in self._claimed(connection, map(bounded, records))}
            for day in sorted({int(record.finished_at_s // DAY_S) for record in once.values()}):
                connection.execute(self._sql["segment"], {"day": day})
            rows = connection.execute_rows(self._sql["add"], [_values(record) for record in once.values()])
            fresh = [once[request] for (request,) in rows]
            sums = sorted(summed(fresh).items())  # in one order, so that no two hosts wait for each other
            connection.execute_rows(self._sql["add_to_hour"], [_hour_values(key, one) for key, one in sums])
            return Ingested(len(fresh), len(records) - len(fresh))

        return await self._database.write(work, alone=False)

    def _claimed(self, connection: Connection, records: Iterable[UsageRecord]) -> Iterator[UsageRecord]:
        """An item is billed by the first record that says that it ended well; another record of the same request says nothing new."""
        for record in records:
            if not record.item:
                yield record
            elif record.outcome is not Outcome.OK:
                yield replace(record, repeat=True)
            else:
                mine = (record.request, record.finished_at_s)
                values: dict[str, Value] = {"item": record.item, "request": mine[0], "at_s": mine[1]}
                connection.execute(self._sql["claim_item"], values)
                claimed = connection.execute(self._sql["who_claimed"], {"item": record.item}).fetchone()
                if claimed == mine:
                    yield record
                elif claimed is None or claimed[0] != record.request:
                    yield replace(record, repeat=True)

    async def billed(self, batch: BatchId) -> frozenset[str]:
        """`batch.ports.Bills`."""
        values = {"from": f"{batch}/", "until": f"{batch}0"}  # the character after the slash

        def work(connection: Connection) -> frozenset[str]:
            found = connection.execute(self._sql["claimed"], values)
            return frozenset(item.rpartition("/")[2] for (item,) in found)

        return await self._database.read(work)

    async def record(self, request: RequestId) -> UsageRecord | None:
        def work(connection: Connection) -> UsageRecord | None:
            columns = connection.execute(self._sql["record"], {"request": request}).fetchone()
            return None if columns is None else _record(columns)

        return await self._database.read(work)

    async def records(self, query: RecordQuery) -> list[UsageRecord]:
        after_s, after = query.after
        values: dict[str, Value] = {
            "from_s": max(query.from_s, after_s), "until_s": query.until_s, "after_s": after_s, "after": after, "tenant": query.tenant,
            "organization": query.organization, "limit": query.limit,
        }  # fmt: skip
        return await self._database.read(
            lambda connection: [_record(row) for row in connection.execute(self._sql["records"], values)]
        )

    async def hours(self, query: HourQuery) -> HourPage:
        after_hour_s, after_tenant, after_model, after_pool = read_cursor(query.cursor)
        by = "hours_by_pool" if query.grain is Grain.POOL else "hours_by_tenant"
        of = "_of_tenant" if query.tenant is not None else "_of_organization" if query.organization is not None else ""
        sql = self._sql[by + of]
        values = {
            "tenant": query.tenant,
            "organization": query.organization,
            "from_s": max(_hour(query.from_s), after_hour_s),  # a later page does not read what earlier ones showed
            "until_s": _hour(query.until_s),
            "after_hour_s": after_hour_s,
            "after_tenant": after_tenant,
            "after_model": after_model,
            "after_pool": after_pool,
            "limit": page_limit(query) + 1,
        }

        def work(connection: Connection) -> list[tuple[HourKey, HourSums]]:
            return [(columns[:4], (*columns[4:11], 0, columns[11])) for columns in connection.execute(sql, values)]

        return page(await self._database.read(work), query)

    async def used(self, scopes: Sequence[UsageScope]) -> list[Used]:
        def work(connection: Connection) -> list[Used]:
            return [_used(connection.execute(self._sql[_used_by(one)], _scope_values(one))) for one in scopes]

        return await self._database.read(work)

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        def work(connection: Connection) -> int:
            dropped = connection.execute(self._sql["drop_segments"], {"before_s": records_before_s}).fetchone()
            connection.execute(self._sql["forget_items"], {"before_s": records_before_s, "limit": limit})
            records = connection.execute(self._sql["forget_records"], {"before_s": records_before_s, "limit": limit})
            hours = connection.execute(self._sql["forget_hours"], {"before_s": hours_before_s, "limit": limit})
            return records.rowcount + hours.rowcount + (0 if dropped is None else dropped[0])

        return await self._database.write(work)


def _used_by(scope: UsageScope) -> str:
    who = "tenant" if scope.tenant is not None else "organization"
    return f"used_by_{who}" if scope.model is None else f"used_by_{who}_of_model"


def _scope_values(scope: UsageScope) -> dict[str, Value]:
    return {
        "tenant": scope.tenant,
        "organization": scope.organization,
        "model": scope.model,
        "from_s": _hour(scope.from_s),
        "until_s": _hour(scope.until_s),
    }


def _used(found: Found) -> Used:
    row = found.fetchone()
    return Used() if row is None else Used(*row)


def _hour(at_s: Seconds) -> int:
    """Whole, as hours are kept: an index of whole numbers is of no use for others."""
    return math.ceil(max(-FAR_S, min(at_s, FAR_S)))


def _hour_values(key: KeptKey, sums: HourSums) -> dict[str, Value]:
    hour_s, tenant, model, pool, organization = key
    (
        requests,
        ok,
        spilled,
        prompt_tokens,
        cached_tokens,
        completion_tokens,
        cost_nano_usd,
        dispatched,
        repeat_nano_usd,
    ) = sums
    return {
        "hour_s": hour_s, "tenant": tenant, "model": model, "pool": pool, "organization": organization, "requests": requests, "ok": ok,
        "spilled": spilled, "prompt_tokens": prompt_tokens, "cached_tokens": cached_tokens, "completion_tokens": completion_tokens,
        "cost_nano_usd": cost_nano_usd, "dispatched": dispatched, "repeat_nano_usd": repeat_nano_usd,
    }  # fmt: skip


def _values(record: UsageRecord) -> dict[str, Value]:
    values = asdict(record) | {
        "priority": record.priority.value,
        "outcome": record.outcome.value,
        "spilled": int(record.spilled),
        "streamed": int(record.streamed),
        "estimated": int(record.estimated),
        "repeat": int(record.repeat),
        "cost_nano_usd": nano_usd(record),
    }
    del values["cost_usd"]
    return values


def _record(columns: Row) -> UsageRecord:
    (
        request, finished_at_s, tenant, key, model, version, pool, priority, outcome, attempts, spilled, streamed,
        prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_s, tpot_s, duration_s, cost_nano_usd, organization, item, repeat,
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
        item=item,
        repeat=bool(repeat),
    )
