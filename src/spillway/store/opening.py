"""Makes the stores that a URL names."""

from pathlib import Path
from types import TracebackType

from spillway.core.errors import ConfigError
from spillway.store.budgets import Budgets
from spillway.store.database import Database
from spillway.store.settings import Settings
from spillway.store.sqlite_keys import SqliteKeys
from spillway.store.sqlite_tenants import SqliteOrganizations, SqliteTenants
from spillway.store.sqlite_trail import SqliteAudit, SqliteChanges, check_seal
from spillway.store.sqlite_usage import SqliteUsage


def sqlite_path(url: str, home: Path) -> Path:
    """The file of `sqlite:PATH`; a relative path lies in `home`. Anything else is ConfigError."""
    kind, _, path = url.partition(":")
    if kind != "sqlite":
        raise ConfigError("this kind of store is not supported yet; sqlite:PATH is")
    if not path or path.startswith("//"):
        raise ConfigError("expected sqlite:PATH, such as sqlite:spillway.db")
    return home / path


class Stores:
    """`async with Stores(settings, home) as stores:` opens the database and closes it."""

    def __init__(self, settings: Settings, home: Path) -> None:
        self.database = Database(sqlite_path(settings.url, home), busy_timeout_s=settings.busy_timeout_s)
        self.keys = SqliteKeys(self.database)
        self.tenants = SqliteTenants(self.database)
        self.organizations = SqliteOrganizations(self.database)
        self.audit = SqliteAudit(self.database)
        self.changes = SqliteChanges(self.database)
        self.usage = SqliteUsage(self.database)
        self.budgets = Budgets(self.usage)

    async def check_seal(self, fingerprint: bytes) -> None:
        """ConfigError where this database's keys were made with another seal."""
        await check_seal(self.database, fingerprint)

    async def __aenter__(self) -> "Stores":
        try:
            await self.database.start()
        except BaseException:
            await self.database.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.database.close()
