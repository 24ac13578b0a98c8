"""TokenStore and AnswerStore on a database."""

from msgspec.structs import asdict

from spillway.core.clock import Seconds
from spillway.core.errors import ClashError
from spillway.core.ids import OrganizationId, TokenId
from spillway.core.role import Role
from spillway.store.database import Connection, Database, Row
from spillway.store.rows import MAX_PAGE_ROWS, Answered, Audit, TokenRow
from spillway.store.sql_trail import note
from spillway.store.statements import statements

_SQL = statements("tokens")


class SqlTokens:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: TokenRow, audit: Audit) -> None:
        def work(connection: Connection) -> None:
            try:
                connection.execute(_SQL["add"], asdict(row) | {"role": row.role.value})
            except ClashError as error:
                raise ClashError(f"token {row.id} is there already") from error
            note(connection, audit)

        await self._database.write(work)

    async def row(self, token: TokenId) -> TokenRow | None:
        return await self._one("row", {"id": token})

    async def with_digest(self, digest: bytes) -> TokenRow | None:
        return await self._one("with_digest", {"digest": digest})

    async def rows(
        self, *, organization: OrganizationId | None = None, after: TokenId | None = None, limit: int = 200
    ) -> list[TokenRow]:
        values = {"organization": organization, "after": after or "", "limit": max(1, min(limit, MAX_PAGE_ROWS))}
        return await self._database.read(
            lambda connection: [_token_row(row) for row in connection.execute(_SQL["page"], values)]
        )

    async def revoke(self, token: TokenId, audit: Audit) -> bool:
        def work(connection: Connection) -> bool:
            known = connection.execute(_SQL["revoke"], {"id": token, "at_s": audit.at_s}).rowcount > 0
            if known:
                note(connection, audit)
            return known

        return await self._database.write(work)

    async def _one(self, statement: str, values: dict[str, str | bytes]) -> TokenRow | None:
        row = await self._database.read(lambda connection: connection.execute(_SQL[statement], values).fetchone())
        return None if row is None else _token_row(row)


class SqlAnswers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, name: str, fingerprint: bytes, at_s: Seconds, *, stale_s: Seconds) -> Answered | None:
        values = {"id": name, "fingerprint": fingerprint, "at_s": at_s, "stale_s": stale_s}

        def work(connection: Connection) -> Answered | None:
            if connection.execute(_SQL["begin"], values).fetchone() is not None:
                return None
            if connection.execute(_SQL["begin_again"], values).fetchone() is not None:
                return None
            row = connection.execute(_SQL["answered"], {"id": name}).fetchone()
            return None if row is None else Answered(bytes(row[0]), row[1], None if row[2] is None else bytes(row[2]))

        return await self._database.write(work)

    async def finish(self, name: str, status: int, body: bytes) -> None:
        values = {"id": name, "status": status, "body": body}
        await self._database.write(lambda connection: connection.execute(_SQL["finish"], values))

    async def give_up(self, name: str) -> None:
        await self._database.write(lambda connection: connection.execute(_SQL["give_up"], {"id": name}))

    async def forget(self, before_s: Seconds) -> None:
        await self._database.write(lambda connection: connection.execute(_SQL["forget"], {"before_s": before_s}))


def _token_row(row: Row) -> TokenRow:
    token, digest, name, role, organization, created_at_s, expires_at_s, revoked_at_s, last4 = row
    return TokenRow(
        id=TokenId(token),
        digest=bytes(digest),
        name=name,
        role=Role(role),
        organization=None if organization is None else OrganizationId(organization),
        created_at_s=created_at_s,
        expires_at_s=expires_at_s,
        revoked_at_s=revoked_at_s,
        last4=last4,
    )
