"""KeyStore on SQLite."""

import sqlite3

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.core.ids import KeyId, ModelName, TenantId
from spillway.core.priority import Priority
from spillway.store.database import Database
from spillway.store.rows import MAX_PAGE_ROWS, KeyRow, Revision
from spillway.store.statements import statements

_Columns = tuple[str, bytes, str, str, str | None, str, float, float | None, float | None, str]


class SqliteKeys:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = statements("keys")

    async def add(self, row: KeyRow) -> None:
        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(self._sql["add"], _columns(row))
            except sqlite3.IntegrityError as error:
                raise StoreError(f"key {row.id} is there already") from error

        await self._database.write(work)

    async def rows(
        self, *, tenant: TenantId | None = None, after: KeyId | None = None, limit: int = 200
    ) -> list[KeyRow]:
        sql = self._sql["page" if tenant is None else "page_of_tenant"]
        values = {"tenant": tenant, "after": after or "", "limit": max(1, min(limit, MAX_PAGE_ROWS))}
        return await self._database.read(
            lambda connection: [_row(columns) for columns in connection.execute(sql, values)]
        )

    async def live(self, now_s: Seconds) -> list[KeyRow]:
        sql = self._sql["live"]
        return await self._database.read(
            lambda connection: [_row(columns) for columns in connection.execute(sql, {"now_s": now_s})]
        )

    async def revoke(self, key: KeyId, at_s: Seconds) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            connection.execute(self._sql["revoke"], {"id": key, "at_s": at_s})
            return connection.execute(self._sql["exists"], {"id": key}).fetchone() is not None

        return await self._database.write(work)

    async def revision(self) -> Revision:
        def work(connection: sqlite3.Connection) -> Revision:
            (changes,) = connection.execute(self._sql["changes"]).fetchone()
            return Revision(self._database.opened, changes)

        return await self._database.read(work)


def _columns(row: KeyRow) -> _Columns:
    models = None if row.models is None else msgspec.json.encode(sorted(row.models)).decode()
    return (
        row.id, row.digest, row.tenant, row.name, models, row.highest_priority.value,
        row.created_at_s, row.expires_at_s, row.revoked_at_s, row.last4,
    )  # fmt: skip


def _row(columns: _Columns) -> KeyRow:
    key, digest, tenant, name, models, priority, created_at_s, expires_at_s, revoked_at_s, last4 = columns
    return KeyRow(
        id=KeyId(key),
        digest=digest,
        tenant=TenantId(tenant),
        name=name,
        models=None if models is None else msgspec.json.decode(models, type=frozenset[ModelName]),
        highest_priority=Priority(priority),
        created_at_s=created_at_s,
        expires_at_s=expires_at_s,
        revoked_at_s=revoked_at_s,
        last4=last4,
    )
