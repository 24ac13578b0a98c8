"""KeyStore on a database."""

from collections.abc import Sequence

from spillway.core.errors import ClashError
from spillway.core.ids import KeyId, OrganizationId, TenantId
from spillway.store.columns import identity, key_row, key_values
from spillway.store.database import Connection, Database
from spillway.store.rows import MAX_PAGE_ROWS, Audit, Identity, KeyRow, Subject
from spillway.store.sql_trail import note, tell
from spillway.store.statements import statements

_SQL = statements("keys")
_MEET_TENANT = statements("tenants")["meet"]


class SqlKeys:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: KeyRow, audit: Audit) -> None:
        def work(connection: Connection) -> None:
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

    async def change(self, was: KeyRow, row: KeyRow, audit: Audit) -> bool:
        def work(connection: Connection) -> bool:
            known = _change(connection, was, row)
            if known:
                note(connection, audit)
            return known

        return await self._database.write(work)

    async def rotate(self, was: KeyRow, old: KeyRow, new: KeyRow, audit: Audit) -> bool:
        def work(connection: Connection) -> bool:
            known = _change(connection, was, old)
            if known:
                _add(connection, new)
                note(connection, audit)
            return known

        return await self._database.write(work)

    async def identities(self, digests: Sequence[bytes]) -> list[Identity]:
        if not digests:
            return []
        values = {f"digest_{number}": digest for number, digest in enumerate(digests)}
        statement = _SQL["identities"].replace(":digests", ",".join(f":{name}" for name in values))
        return await self._database.read(
            lambda connection: [identity(columns) for columns in connection.execute(statement, values)]
        )


def _add(connection: Connection, row: KeyRow) -> None:
    connection.execute(_MEET_TENANT, {"id": row.tenant, "created_at_s": row.created_at_s})
    try:
        connection.execute(_SQL["add"], key_values(row))
    except ClashError as error:
        raise ClashError(f"key {row.id} is there already") from error
    tell(connection, Subject.KEY, row.id, row.digest)


def _change(connection: Connection, was: KeyRow, row: KeyRow) -> bool:
    found = connection.execute(_SQL["row"], {"id": row.id}).fetchone()
    if found is None:
        return False
    if key_row(found) != was:
        raise ClashError(f"key {row.id} was changed meanwhile")
    connection.execute(_SQL["change"], key_values(row))
    tell(connection, Subject.KEY, row.id, was.digest)
    return True
