"""A PostgreSQL database: a few threads, each with a connection of its own.

While it is away everything fails at once: after a failed try to connect nobody tries again for RETRY_S. A connection that breaks is
given up, and what it was doing is StoreError; it may have taken effect, so whoever writes does it so that twice does no harm.
Parameters are put into statements here (`psycopg.ClientCursor`): the same statement serves databases that ask for types and those
that don't.
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Sequence
from typing import LiteralString, cast

import psycopg

from spillway.core.clock import Seconds
from spillway.core.errors import ClashError, StoreError
from spillway.store.database import NOTHING, Connection, Found, Row, T, Values
from spillway.store.statements import migrations
from spillway.store.work_queue import WorkQueue

THREADS = 4
RETRY_S = 0.5
CONNECT_S = 2  # libpq knows no less
STATEMENT_S = 10.0
ALONE_LOCK, SCHEMA_LOCK = 7_710_001, 7_710_002  # advisory locks of this program
_NAME = re.compile(r"(?<![:\w]):([a-z_]\w*)")
_GROUP = re.compile(r"\bVALUES\s*(\([^()]*\))")
_OURS = re.compile(r"/\*postgres (.*?)\*/")
MOST_TRANSLATED = 512  # statements


class PostgresDatabase:
    def __init__(self, url: str, *, deadline_s: Seconds = 15.0, max_waiting: int = 256) -> None:
        """`url`: as libpq reads it, postgresql://USER:PASSWORD@HOST:PORT/NAME."""
        self.opened = 0
        self._url = url
        self._queue = WorkQueue(THREADS, deadline_s=deadline_s, most=max_waiting, translated=(psycopg.Error, OSError))
        self._own = threading.local()
        self._now: Callable[[], Seconds] = lambda: 0.0  # the event loop's clock, once there is one
        self._lock = threading.Lock()
        self._connections = set[psycopg.Connection[Row]]()
        self._failed_at: Seconds | None = None

    async def start(self, *, make: bool = True) -> None:
        self._now = asyncio.get_running_loop().time
        if make:
            self.opened = await self._queue.do(lambda: self._transact(_migrate, SCHEMA_LOCK))
        else:
            self.opened = await self.read(_checked)

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._queue.do(lambda: self._guarded(lambda inner: work(_Connection(inner))))

    async def write(self, work: Callable[[Connection], T], *, alone: bool = True) -> T:
        return await self._queue.do(lambda: self._transact(work, ALONE_LOCK if alone else None))

    async def close(self) -> None:
        await self._queue.close(self._disconnect_all)

    # From here on: in the threads.

    def _transact(self, work: Callable[[Connection], T], lock: int | None) -> T:
        def transaction(inner: psycopg.Connection[Row]) -> T:
            with inner.transaction():
                connection = _Connection(inner)
                if lock is not None:
                    connection.execute("SELECT pg_advisory_xact_lock(:lock)", {"lock": lock})
                return work(connection)

        return self._guarded(transaction)

    def _guarded(self, work: Callable[["psycopg.Connection[Row]"], T]) -> T:
        inner = self._current()
        try:
            return work(inner)
        finally:
            if inner.closed or inner.broken:
                self._drop(inner)

    def _current(self) -> psycopg.Connection[Row]:
        known = cast("psycopg.Connection[Row] | None", getattr(self._own, "connection", None))
        if known is not None and not known.closed:
            return known
        with self._lock:
            failed_at = self._failed_at
        if failed_at is not None and self._now() - failed_at < RETRY_S:
            raise StoreError("the database was not there just now")
        try:
            made = self._connect()
        except (psycopg.Error, OSError) as error:
            with self._lock:
                self._failed_at = self._now()
            raise StoreError(f"the database cannot be reached: {_first_line(error)}") from error
        with self._lock:
            self._failed_at = None
            self._connections.add(made)
        self._own.connection = made
        return made

    def _connect(self) -> psycopg.Connection[Row]:
        made = psycopg.connect(
            self._url,
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
            connect_timeout=CONNECT_S,
            application_name="spillway",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=2,
            tcp_user_timeout=5000,
            options=f"-c statement_timeout={int(STATEMENT_S * 1000)} -c client_encoding=UTF8",
        )
        try:
            if made.execute("SELECT to_regclass('birth') IS NOT NULL").fetchone() == (True,):
                found = made.execute("SELECT number FROM birth").fetchone()
                self.opened = 0 if found is None else int(found[0])
        except BaseException:
            made.close()
            raise
        return made

    def _drop(self, connection: psycopg.Connection[Row]) -> None:
        with contextlib.suppress(psycopg.Error, OSError):
            connection.close()
        with self._lock:
            self._connections.discard(connection)
        self._own.connection = None

    def _disconnect_all(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            with contextlib.suppress(psycopg.Error, OSError):
                connection.close()


class _Connection:
    """`store.database.Connection`."""

    def __init__(self, inner: psycopg.Connection[Row]) -> None:
        self._inner = inner

    def execute(self, sql: str, values: Values = NOTHING, /) -> Found:
        return self._run(_translated(sql), values)

    def execute_rows(self, sql: str, rows: Sequence[Values], /) -> list[Row]:
        if not rows:
            return []
        group = _GROUP.search(sql)
        if group is None:
            raise ValueError("the statement has no VALUES")
        cursor = cast("psycopg.ClientCursor[Row]", self._inner.cursor())
        template = cast("LiteralString", _translated(group[1]))
        groups = ",".join(cursor.mogrify(template, dict(values)) for values in rows)
        whole = sql[: group.start(1)] + groups + sql[group.end(1) :]
        found = self._run(whole, None)
        return list(found) if found.description is not None else []

    def _run(self, text: str, values: Values | None) -> psycopg.Cursor[Row]:
        try:
            return self._inner.execute(cast("LiteralString", text), None if values is None else dict(values))
        except psycopg.IntegrityError as error:
            raise ClashError(_first_line(error)) from error


def _translated(sql: str) -> str:
    """`:name` as psycopg writes it; what stands in `/*postgres … */` counts."""
    return _NAME.sub(r"%(\1)s", _OURS.sub(r"\1", sql).replace("%", "%%"))


def _migrate(connection: Connection) -> int:
    """A number that another database does not have."""
    steps = migrations("postgres")
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY, name TEXT NOT NULL)")
    found = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    version = 0 if found is None else int(found[0])
    if version > len(steps):
        raise StoreError(f"the database has schema {version}, this Spillway knows {len(steps)}: it is too old for it")
    for step in steps[version:]:
        for statement in step.statements:
            connection.execute(statement)
        values = {"version": step.number, "name": step.name}
        connection.execute("INSERT INTO schema_version (version, name) VALUES (:version, :name)", values)
    found = connection.execute("SELECT number FROM birth").fetchone()
    return 0 if found is None else int(found[0])


def _checked(connection: Connection) -> int:
    """As `_migrate`, of a database that somebody else has brought up to date."""
    known = connection.execute("SELECT to_regclass('schema_version') IS NOT NULL").fetchone()
    found = connection.execute("SELECT max(version) FROM schema_version").fetchone() if known == (True,) else None
    if found != (len(migrations("postgres")),):
        raise StoreError("the database is not one of this version")
    birth = connection.execute("SELECT number FROM birth").fetchone()
    return 0 if birth is None else int(birth[0])


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
