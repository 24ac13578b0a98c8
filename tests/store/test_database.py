"""The database under bad circumstances: locked, deleted, replaced, full, old, new. StoreError, and never a wrong answer."""

import asyncio
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from tests.store.conftest import MakeRecord

from spillway.core.errors import StoreError
from spillway.core.ids import RequestId
from spillway.store.database import Connection
from spillway.store.opening import Stores
from spillway.store.rows import Ingested
from spillway.store.settings import Settings
from spillway.store.sqlite_database import SqliteDatabase
from spillway.store.statements import migrations

QUICK = Settings(busy_timeout_s=0.05)


def schema_of(path: Path) -> set[tuple[str, str]]:
    connection = sqlite3.connect(path)
    try:
        return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    finally:
        connection.close()


def migrated(path: Path) -> None:
    async def scenario() -> None:
        database = SqliteDatabase(path)
        try:
            await database.start()
        finally:
            await database.close()

    asyncio.run(scenario())


def test_the_file_is_private_and_in_wal_mode(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Stores(QUICK, tmp_path / "home") as stores:
            pragmas = [await stores.database.read(lambda c, p=p: next(iter(c.execute(p)))[0]) for p in (
                "PRAGMA journal_mode", "PRAGMA synchronous", "PRAGMA busy_timeout",
            )]  # fmt: skip
            assert pragmas == ["wal", 1, 50]

    asyncio.run(scenario())
    assert stat.S_IMODE((tmp_path / "home" / "spillway.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("version", range(len(migrations("sqlite"))))
def test_every_older_schema_becomes_the_newest(tmp_path: Path, version: int) -> None:
    fresh, old = tmp_path / "fresh.db", tmp_path / "old.db"
    migrated(fresh)
    connection = sqlite3.connect(old)
    if version:
        connection.execute("CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL)")
    for step in migrations("sqlite")[:version]:
        for statement in step.statements:
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version VALUES (?, ?)", (step.number, step.name))
    connection.commit()
    connection.close()
    migrated(old)
    ours = {(name, sql.replace("IF NOT EXISTS ", "")) for name, sql in schema_of(old)}
    assert ours == {(name, sql.replace("IF NOT EXISTS ", "")) for name, sql in schema_of(fresh)}
    migrated(old)  # and it stays so


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "spillway.db"
    migrated(path)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_version VALUES (9999, 'later')")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="schema 9999"):
        migrated(path)


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "spillway.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        migrated(tmp_path / "spillway.db")


def test_locked_by_another_process_is_an_error_and_passes(tmp_path: Path, make_record: MakeRecord) -> None:
    async def scenario() -> None:
        async with Stores(QUICK, tmp_path) as stores:
            other = sqlite3.connect(tmp_path / "spillway.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await stores.usage.ingest([make_record("req_1")])
            assert await stores.usage.record(RequestId("req_1")) is None  # reading goes on in WAL mode
            other.execute("ROLLBACK")
            other.close()
            assert await stores.usage.ingest([make_record("req_1")]) == Ingested(1, 0)

    asyncio.run(scenario())


def test_a_deleted_database_is_an_error_and_is_not_made_anew(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "spillway.db"

    async def scenario() -> None:
        async with Stores(QUICK, tmp_path) as stores:
            await stores.usage.ingest([make_record("req_1")])
            path.rename(tmp_path / "away")
            for _ in range(2):
                with pytest.raises(StoreError):
                    await stores.usage.ingest([make_record("req_2")])
                with pytest.raises(StoreError):
                    await stores.keys.rows()
            assert not path.exists()
            (tmp_path / "away").rename(path)
            assert await stores.usage.ingest([make_record("req_2")]) == Ingested(1, 0)
            assert await stores.usage.record(RequestId("req_1")) is not None

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"", b"no database" * 1000])
def test_a_database_replaced_by_something_else_is_an_error(
    tmp_path: Path, make_record: MakeRecord, content: bytes
) -> None:
    path = tmp_path / "spillway.db"

    async def scenario() -> None:
        async with Stores(QUICK, tmp_path) as stores:
            (tmp_path / "other").write_bytes(content)
            (tmp_path / "other").rename(path)
            for _ in range(2):
                with pytest.raises(StoreError):
                    await stores.usage.ingest([make_record("req_1")])

    asyncio.run(scenario())


def test_a_backup_put_in_its_place_is_used_as_it_was(tmp_path: Path, make_record: MakeRecord) -> None:
    """What was written since is not smuggled in by the log of the file that went away."""
    path, backup = tmp_path / "spillway.db", tmp_path / "backup.db"

    async def scenario() -> None:
        async with Stores(QUICK, tmp_path) as stores:
            await stores.usage.ingest([make_record("req_1")])
            await stores.database.read(lambda connection: list(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")))
            shutil.copy(path, backup)
            before = await stores.changes.latest()
            await stores.usage.ingest([make_record("req_2")])
            backup.rename(path)
            assert await stores.changes.latest() != before  # so that the keys are read again
            assert await stores.usage.record(RequestId("req_1")) is not None
            assert await stores.usage.record(RequestId("req_2")) is None
            assert await stores.usage.ingest([make_record("req_2")]) == Ingested(1, 0)
            assert await stores.database.read(
                lambda connection: connection.execute("PRAGMA integrity_check").fetchone()
            ) == ("ok",)

    asyncio.run(scenario())


def test_a_transaction_into_a_file_that_went_away_meanwhile_does_not_count_as_done(tmp_path: Path) -> None:
    path = tmp_path / "spillway.db"

    async def scenario() -> None:
        async with Stores(QUICK, tmp_path) as stores:
            with pytest.raises(StoreError, match="deleted or replaced"):
                await stores.database.write(lambda _: path.unlink())

    asyncio.run(scenario())


def test_too_much_waiting_is_refused_and_a_slow_answer_has_a_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        database = SqliteDatabase(tmp_path / "spillway.db", max_waiting=2, deadline_s=5.0)
        await database.start()
        loop = asyncio.get_running_loop()
        gate = asyncio.Event()

        def hold(_: Connection) -> None:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(5)

        held = asyncio.create_task(database.read(hold))
        queued = asyncio.create_task(database.read(hold))
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="busy"):
            await database.read(hold)
        gate.set()
        await asyncio.gather(held, queued)
        await database.read(hold)
        await database.close()
        with pytest.raises(StoreError, match="closed"):
            await database.read(hold)

        slow = SqliteDatabase(tmp_path / "spillway.db", deadline_s=1.0)
        with pytest.raises(StoreError, match="never started"):
            await slow.read(hold)
        await slow.start()
        gate.clear()
        with pytest.raises(StoreError, match="does not answer"):
            await slow.read(hold)
        gate.set()
        await slow.close()

    asyncio.run(scenario())
