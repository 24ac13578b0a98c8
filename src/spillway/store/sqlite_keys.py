"""KeyStore on SQLite."""

import sqlite3
from collections.abc import Sequence

from spillway.core.errors import StoreError
from spillway.core.ids import KeyId, OrganizationId, TenantId
from spillway.store.columns import identity, key_columns, key_row
from spillway.store.database import Database
from spillway.store.rows import MAX_PAGE_ROWS, Audit, Identity, KeyRow, Subject
from spillway.store.sqlite_trail import note, tell
from spillway.store.statements import statements

_SQL = statements("keys")
_MEET_TENANT = statements("tenants")["meet"]


class SqliteKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: KeyRow, audit: Audit) -> None:
        def work(connection: sqlite3.Connection) -> None:
            _add(connection, row)
            note(connection, audit)

        await self._database.write(work)

    async def rows(
        self,
        *,
        tenant: TenantId | None = None,
        organization: OrganizationId | None = None,
        after: KeyId | None = None,
        limit: int = 200,
    ) -> list[KeyRow]:
        of = "_of_organization" if organization is not None else "" if tenant is None else "_of_tenant"
        values = {
            "tenant": tenant,
            "organization": organization,
            "after": after or "",
            "limit": max(1, min(limit, MAX_PAGE_ROWS)),
        }
        return await self._database.read(
            lambda connection: [key_row(columns) for columns in connection.execute(_SQL[f"page{of}"], values)]
        )

    async def row(self, key: KeyId) -> KeyRow | None:
        columns = await self._database.read(lambda connection: connection.execute(_SQL["row"], {"id": key}).fetchone())
        return None if columns is None else key_row(columns)

    async def change(self, row: KeyRow, audit: Audit) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            known = _change(connection, row)
            if known:
                note(connection, audit)
            return known

        return await self._database.write(work)

    async def rotate(self, old: KeyRow, new: KeyRow, audit: Audit) -> bool:
        def work(connection: sqlite3.Connection) -> bool:
            known = _change(connection, old)
            if known:
                _add(connection, new)
                note(connection, audit)
            return known

        return await self._database.write(work)

    async def identities(self, digests: Sequence[bytes]) -> list[Identity]:
        statement = _SQL["identities"].replace(":digests", ",".join("?" * len(digests)))
        return await self._database.read(
            lambda connection: [identity(columns) for columns in connection.execute(statement, list(digests))]
        )


def _add(connection: sqlite3.Connection, row: KeyRow) -> None:
    connection.execute(_MEET_TENANT, {"id": row.tenant, "created_at_s": row.created_at_s})
    try:
        connection.execute(_SQL["add"], key_columns(row))
    except sqlite3.IntegrityError as error:
        raise StoreError(f"key {row.id} is there already") from error
    tell(connection, Subject.KEY, row.id, row.digest)


def _change(connection: sqlite3.Connection, row: KeyRow) -> bool:
    before = connection.execute(_SQL["row"], {"id": row.id}).fetchone()
    if before is None:
        return False
    (
        key, _, tenant, name, models, highest_priority, _, expires_at_s, revoked_at_s, _, policy, networks, successor,
    ) = key_columns(row)  # fmt: skip
    values = {
        "id": key, "tenant": tenant, "name": name, "models": models, "highest_priority": highest_priority,
        "expires_at_s": expires_at_s, "revoked_at_s": revoked_at_s, "policy": policy, "networks": networks, "successor": successor,
    }  # fmt: skip
    connection.execute(_SQL["change"], values)
    tell(connection, Subject.KEY, row.id, key_row(before).digest)
    return True
