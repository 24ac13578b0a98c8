"""One SQLite database, one connection, one thread of its own; the event loop only waits for it.

The file may be deleted or replaced under us, and SQLite would go on writing to a file that nobody can find any more:
before and after each piece of work the file at the path must be the one that was opened. If it is another one, it is
opened anew; it must then hold our schema. An empty one is made only by `start`: a database that has gone away must not
come back as one without keys.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from spillway.core.clock import Seconds
from spillway.core.errors import ClashError, StoreError
from spillway.store.database import NOTHING, Connection, Found, Row, T, Values
from spillway.store.statements import Migration, migrations
from spillway.store.work_queue import WorkQueue

_FileId = tuple[int, int]


class _Connection:
    """`store.database.Connection`."""

    def __init__(self, inner: sqlite3.Connection) -> None:
        self._inner = inner

    def execute(self, sql: str, values: Values = NOTHING, /) -> Found:
        try:
            return self._inner.execute(sql, values) if values else self._inner.execute(sql)
        except sqlite3.IntegrityError as error:
            raise ClashError(str(error)) from error

    def execute_rows(self, sql: str, rows: Sequence[Values], /) -> list[Row]:
        return [row for values in rows for row in self.execute(sql, values)]


class SqliteDatabase:
    """`read` and `write` hand work to the thread. At most `max_waiting` pieces wait; more are refused with StoreError.

    A piece that has not answered after `deadline_s` is StoreError too; it may still take effect.
    """

    def __init__(
        self, path: Path, *, busy_timeout_s: Seconds = 2.0, deadline_s: Seconds = 15.0, max_waiting: int = 256
    ) -> None:
        self.path = path
        self.opened = 0  # how many times the file was opened: counts replacements
        self._busy_timeout_s = busy_timeout_s
        self._queue = WorkQueue(1, deadline_s=deadline_s, most=max_waiting, translated=(sqlite3.Error, OSError))
        self._connection: sqlite3.Connection | None = None
        self._file: _FileId | None = None
        self._log_path = path.with_name(f"{path.name}-wal")
        self._log_file: _FileId | None = None

    async def start(self, *, make: bool = True) -> None:
        """Open, make the file where there is none, and bring the schema up to date."""
        await self._queue.do(self._create if make else self._replace)

    async def write(self, work: Callable[[Connection], T], *, alone: bool = True) -> T:
        """Run `work` in one transaction that takes the write lock at once: it is always alone."""
        del alone
        return await self._queue.do(lambda: self._transact(work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        return await self._queue.do(lambda: self._guarded(work))

    async def close(self) -> None:
        """What still waits is done first."""
        await self._queue.close(self._disconnect)

    # From here on: in the thread.

    def _create(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # made by us, not by SQLite: it would be readable by others
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            _migrate(self._connect(), migrations("sqlite"))
        except BaseException:
            self._disconnect()
            raise

    def _transact(self, work: Callable[[Connection], T]) -> T:
        def transaction(connection: Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk may have rolled back already
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._guarded(transaction)

    def _guarded(self, work: Callable[[Connection], T]) -> T:
        result = work(_Connection(self._current()))
        if _file_id(self.path) != self._file:
            raise StoreError(f"{self.path.name} was deleted or replaced while it was being used")
        return result

    def _current(self) -> sqlite3.Connection:
        file = _file_id(self.path)
        if self._connection is not None and file == self._file:
            return self._connection
        if self.opened == 0:
            raise StoreError("the database was never started")
        if file is None:
            # the connection stays: the file may come back, and until then its number is nobody else's
            raise StoreError(f"{self.path.name} is gone")
        return self._replace()

    def _replace(self) -> sqlite3.Connection:
        """Another file has taken the place of the one that was open; or it is opened first, and somebody else makes it."""
        self._disconnect()
        self._set_old_log_aside()
        connection = self._connect()
        try:
            if _version(connection) != len(migrations("sqlite")):
                raise StoreError(f"{self.path.name} is not a database of this version")
        except BaseException:
            self._disconnect()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        file = _file_id(self.path)
        # mode=rw: never make a file that has gone away in the meantime
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=self._busy_timeout_s, isolation_level=None
        )
        try:
            connection.create_function("usage_segment", 1, _no_segments)  # its records lie in one table
            connection.create_function("usage_drop_segments", 1, _no_segments)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # makes the write-ahead log
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        self._file = file
        self._log_file = _file_id(self._log_path)
        self.opened += 1
        return connection

    def _set_old_log_aside(self) -> None:
        """The write-ahead log of the file that went away would be replayed into the one that took its place."""
        if self._log_file is not None and _file_id(self._log_path) == self._log_file:
            self._log_path.replace(self._log_path.with_name(f"{self._log_path.name}.old"))
            self.path.with_name(f"{self.path.name}-shm").unlink(missing_ok=True)
        self._log_file = None

    def _disconnect(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # its file may be gone
                connection.close()


def _no_segments(_: float) -> int:
    return 0


def _file_id(path: Path) -> _FileId | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _version(connection: sqlite3.Connection) -> int:
    """0 for an empty database."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone()
    if known is None:
        return 0
    (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    return int(version or 0)


def _migrate(connection: sqlite3.Connection, steps: list[Migration]) -> None:
    """All steps in one transaction: another process sees the old schema or the new one."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(steps):
            raise StoreError(
                f"the database has schema {version}, this Spillway knows {len(steps)}: it is too old for it"
            )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL)"
        )
        for step in steps[version:]:
            for statement in step.statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_version (version, name) VALUES (?, ?)", (step.number, step.name))
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
