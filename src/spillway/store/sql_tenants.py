"""TenantStore and OrganizationStore on a database."""

from spillway.core.errors import ClashError
from spillway.core.ids import OrganizationId, TenantId
from spillway.store.columns import organization_row, organization_values, tenant_row, tenant_values
from spillway.store.database import Connection, Database
from spillway.store.rows import MAX_PAGE_ROWS, Audit, OrganizationRow, Subject, TenantRow
from spillway.store.sql_trail import note, tell
from spillway.store.statements import statements

_SQL = statements("tenants")
_REVOKE_KEYS = statements("keys")["revoke_of_tenant"]


class SqlTenants:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, row: TenantRow, audit: Audit) -> None:
        def work(connection: Connection) -> None:
            try:
                connection.execute(_SQL["put"], tenant_values(row))
            except ClashError as error:
                raise ClashError(f"there is no organization {row.organization}") from error
            note(connection, audit)
            tell(connection, Subject.TENANT, row.id)

        await self._database.write(work)

    async def row(self, tenant: TenantId) -> TenantRow | None:
        values = {"id": tenant}
        columns = await self._database.read(lambda connection: connection.execute(_SQL["row"], values).fetchone())
        return None if columns is None else tenant_row(columns)

    async def rows(
        self, *, organization: OrganizationId | None = None, after: TenantId | None = None, limit: int = 200
    ) -> list[TenantRow]:
        sql = _SQL["page" if organization is None else "page_of_organization"]
        values = {"organization": organization, "after": after or "", "limit": max(1, min(limit, MAX_PAGE_ROWS))}
        return await self._database.read(
            lambda connection: [tenant_row(columns) for columns in connection.execute(sql, values)]
        )

    async def delete(self, tenant: TenantId, audit: Audit) -> bool:
        def work(connection: Connection) -> bool:
            if connection.execute(_SQL["delete"], {"id": tenant}).rowcount == 0:
                return False
            connection.execute(_REVOKE_KEYS, {"tenant": tenant, "at_s": audit.at_s})
            note(connection, audit)
            tell(connection, Subject.TENANT, tenant)
            return True

        return await self._database.write(work)


class SqlOrganizations:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, row: OrganizationRow, audit: Audit) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_SQL["put_organization"], organization_values(row))
            note(connection, audit)
            tell(connection, Subject.ORGANIZATION, row.id)

        await self._database.write(work)

    async def row(self, organization: OrganizationId) -> OrganizationRow | None:
        values = {"id": organization}
        columns = await self._database.read(
            lambda connection: connection.execute(_SQL["organization"], values).fetchone()
        )
        return None if columns is None else organization_row(columns)

    async def rows(self, *, after: OrganizationId | None = None, limit: int = 200) -> list[OrganizationRow]:
        values = {"after": after or "", "limit": max(1, min(limit, MAX_PAGE_ROWS))}
        sql = _SQL["page_of_organizations"]
        return await self._database.read(
            lambda connection: [organization_row(columns) for columns in connection.execute(sql, values)]
        )

    async def delete(self, organization: OrganizationId, audit: Audit) -> bool:
        def work(connection: Connection) -> bool:
            try:
                known = connection.execute(_SQL["delete_organization"], {"id": organization}).rowcount > 0
            except ClashError as error:
                raise ClashError(f"organization {organization} still has tenants") from error
            if known:
                note(connection, audit)
                tell(connection, Subject.ORGANIZATION, organization)
            return known

        return await self._database.write(work)
