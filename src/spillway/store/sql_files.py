"""`batch.ports.Files` on a database."""

import math

from spillway.batch.jobs import FileRow, Purpose
from spillway.batch.ports import Stored
from spillway.core.clock import Seconds
from spillway.core.errors import BadRequestError, ClashError
from spillway.core.ids import FileId, OrganizationId, TenantId
from spillway.store.database import Connection, Database, Row, Value
from spillway.store.statements import statements

_SQL = statements("files")


class SqlFiles:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: FileRow) -> None:
        await self._database.write(lambda connection: connection.execute(_SQL["add"], file_values(row)), alone=False)

    async def one(self, tenant: TenantId, file: FileId) -> FileRow | None:
        return await self._database.read(lambda connection: _one(connection, tenant, file))

    async def page(
        self, tenant: TenantId, *, after: FileId | None, limit: int, ascending: bool, purpose: Purpose | None
    ) -> list[FileRow]:
        def work(connection: Connection) -> list[FileRow]:
            begin = (-math.inf if ascending else math.inf, "")
            if after is not None:
                last = _one(connection, tenant, after)
                if last is None:
                    raise BadRequestError(f"There is no file {after}.", param="after")
                begin = (last.created_at_s, last.id)
            values: dict[str, Value] = {
                "tenant": tenant, "after_s": begin[0], "after": begin[1], "limit": limit,
                "purpose": None if purpose is None else purpose.value,
            }  # fmt: skip
            return [
                _row(columns) for columns in connection.execute(_SQL["page_up" if ascending else "page_down"], values)
            ]

        return await self._database.read(work)

    async def delete(self, tenant: TenantId, file: FileId) -> bool:
        def work(connection: Connection) -> bool:
            if connection.execute(_SQL["is_read"], {"id": file}).fetchone() is not None and _one(
                connection, tenant, file
            ):
                raise ClashError(f"A batch that is not over reads the file {file}.")
            return connection.execute(_SQL["delete"], {"id": file, "tenant": tenant}).rowcount > 0

        return await self._database.write(work)

    async def stored(self, tenant: TenantId) -> Stored:
        found = await self._database.read(
            lambda connection: connection.execute(_SQL["stored"], {"tenant": tenant}).fetchone()
        )
        return Stored(0, 0) if found is None else Stored(*found)

    async def expired(self, now_s: Seconds, limit: int = 100) -> list[FileRow]:
        values = {"now_s": now_s, "limit": limit}
        return await self._database.read(
            lambda connection: [_row(columns) for columns in connection.execute(_SQL["expired"], values)]
        )


def put_file(connection: Connection, row: FileRow) -> None:
    """Of a batch that writes it again after its worker died."""
    connection.execute(_SQL["put"], file_values(row))


def file_values(row: FileRow) -> dict[str, Value]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "organization": row.organization,
        "purpose": row.purpose.value,
        "filename": row.filename,
        "size_bytes": row.size_bytes,
        "created_at_s": row.created_at_s,
        "expires_at_s": row.expires_at_s,
    }


def _one(connection: Connection, tenant: TenantId, file: FileId) -> FileRow | None:
    columns = connection.execute(_SQL["one"], {"id": file, "tenant": tenant}).fetchone()
    return None if columns is None else _row(columns)


def _row(columns: Row) -> FileRow:
    file, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s = columns
    return FileRow(
        id=FileId(file),
        tenant=TenantId(tenant),
        organization=OrganizationId(organization),
        purpose=Purpose(purpose),
        filename=filename,
        size_bytes=size_bytes,
        created_at_s=created_at_s,
        expires_at_s=expires_at_s,
    )
