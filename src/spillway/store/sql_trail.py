"""What every write leaves behind in its transaction: who did it, and what gateways must forget. On a database."""

from msgspec.structs import asdict

from spillway.core.errors import ConfigError
from spillway.core.ids import OrganizationId
from spillway.store.database import Connection, Database, Row
from spillway.store.rows import MAX_PAGE_ROWS, Audit, AuditRow, Change, Revision, Subject
from spillway.store.statements import statements

_SQL = statements("trail")
_LAST = 1 << 62


def note(connection: Connection, audit: Audit) -> None:
    connection.execute(
        _SQL["note"],
        asdict(audit),
    )


def tell(connection: Connection, subject: Subject, name: str, digest: bytes = b"") -> None:
    connection.execute(_SQL["tell"], {"subject": subject.value, "id": name, "digest": digest})


class SqlAudit:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def rows(
        self,
        *,
        organization: OrganizationId | None = None,
        target: str | None = None,
        before: int | None = None,
        limit: int = 200,
    ) -> list[AuditRow]:
        values = {
            "organization": organization,
            "target": target,
            "before": _LAST if before is None else max(0, min(before, _LAST)),
            "limit": max(1, min(limit, MAX_PAGE_ROWS)),
        }
        return await self._database.read(
            lambda connection: [_audit_row(columns) for columns in connection.execute(_SQL["audits"], values)]
        )

    async def note(self, audit: Audit) -> None:
        await self._database.write(lambda connection: note(connection, audit))


class SqlChanges:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self) -> Revision:
        def work(connection: Connection) -> Revision:
            found = connection.execute(_SQL["latest"]).fetchone()
            return Revision(self._database.opened, 0 if found is None else found[0])

        return await self._database.read(work)

    async def since(self, number: int, limit: int = 1000) -> list[Change]:
        values = {"number": number, "limit": limit}
        return await self._database.read(
            lambda connection: [
                Change(count, Subject(subject), name, digest)
                for count, subject, name, digest in connection.execute(_SQL["since"], values)
            ]
        )

    async def forget(self, *, keep: int = 10_000) -> None:
        await self._database.write(lambda connection: connection.execute(_SQL["forget"], {"keep": max(1, keep)}))


async def check_seal(database: Database, fingerprint: bytes) -> None:
    """The first seal that a database sees is the one that its keys are made with; ConfigError for another one."""

    def work(connection: Connection) -> bytes:
        connection.execute(_SQL["first_seal"], {"fingerprint": fingerprint})
        found = connection.execute(_SQL["seal"]).fetchone()
        return b"" if found is None else bytes(found[0])

    if await database.write(work) != fingerprint:
        raise ConfigError("the key secret of this home is not the one that the keys in this database were made with")


def _audit_row(columns: Row) -> AuditRow:
    number, at_s, actor, action, target, organization, before, after = columns
    whose = None if organization is None else OrganizationId(organization)
    return AuditRow(number, Audit(at_s, actor, action, target, whose, before, after))
