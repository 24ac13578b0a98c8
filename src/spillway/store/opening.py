"""Makes the stores that a URL names."""

from pathlib import Path
from types import TracebackType

from spillway.core.errors import ConfigError
from spillway.store.budgets import Budgets
from spillway.store.database import Database
from spillway.store.postgres_database import PostgresDatabase
from spillway.store.settings import Settings
from spillway.store.sql_batches import SqlBatches, SqlWork
from spillway.store.sql_files import SqlFiles
from spillway.store.sql_keys import SqlKeys
from spillway.store.sql_tenants import SqlOrganizations, SqlTenants
from spillway.store.sql_tokens import SqlAnswers, SqlTokens
from spillway.store.sql_trail import SqlAudit, SqlChanges, check_seal
from spillway.store.sql_usage import SqlUsage
from spillway.store.sqlite_database import SqliteDatabase


def sqlite_path(url: str, home: Path) -> Path | None:
    """The file of `sqlite:PATH`; a relative path lies in `home`. None: it is PostgreSQL's. Anything else is ConfigError, which does
    not show the URL: it may hold a password."""
    kind, _, path = url.partition(":")
    if kind in ("postgresql", "postgres"):
        if not path.startswith("//") or len(path) < 3 or not url.isprintable():
            raise ConfigError("expected postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE")
        return None
    if kind != "sqlite" or not path or path.startswith("//"):
        raise ConfigError("expected sqlite:PATH, such as sqlite:spillway.db, or postgresql://HOST/DATABASE")
    return home / path


def _database(settings: Settings, home: Path) -> Database:
    path = sqlite_path(settings.url, home)
    if path is None:
        return PostgresDatabase(settings.url)
    return SqliteDatabase(path, busy_timeout_s=settings.busy_timeout_s)


class Stores:
    """`async with Stores(settings, home) as stores:` opens the database and closes it."""

    def __init__(self, settings: Settings, home: Path, *, make: bool = True) -> None:
        """`make` False: the database must be there, as it should be."""
        self._make = make
        self.database = _database(settings, home)
        self.keys = SqlKeys(self.database)
        self.tenants = SqlTenants(self.database)
        self.organizations = SqlOrganizations(self.database)
        self.tokens = SqlTokens(self.database)
        self.answers = SqlAnswers(self.database)
        self.audit = SqlAudit(self.database)
        self.changes = SqlChanges(self.database)
        self.usage = SqlUsage(self.database)
        self.budgets = Budgets(self.usage)
        self.files = SqlFiles(self.database)
        self.batches = SqlBatches(self.database)
        self.work = SqlWork(self.database)

    async def check_seal(self, fingerprint: bytes) -> None:
        """ConfigError where this database's keys were made with another seal."""
        await check_seal(self.database, fingerprint)

    async def __aenter__(self) -> "Stores":
        try:
            await self.database.start(make=self._make)
        except BaseException:
            await self.database.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.database.close()
