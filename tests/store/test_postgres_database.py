"""What is PostgreSQL's own: many hosts at once, and being away."""

import asyncio
import time
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import pytest
from tests.needs import needs_postgres
from tests.store.conftest import HOUR_S, MakeRecord
from tests.store.shelf import minted

from spillway.core.errors import StoreError
from spillway.store.opening import Stores
from spillway.store.postgres_database import PostgresDatabase
from spillway.store.rows import Audit, HourQuery, RecordQuery
from spillway.store.settings import Settings
from spillway.store.statements import migrations
from spillway.testing.postgres import PostgresServer

pytestmark = [pytest.mark.server, needs_postgres]

EVER = HourQuery(from_s=0, until_s=1e12)
AUDIT = Audit(1.0, "cli", "key.create", "key", None, None, None)


def stores(url: str, tmp_path: Path) -> Stores:
    return Stores(Settings(url=url), tmp_path)


def test_many_hosts_may_start_at_once(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.database()

    async def start() -> int:
        async with stores(url, tmp_path) as opened:
            return (await opened.changes.latest()).opened

    async def scenario() -> None:
        assert len(set(await asyncio.gather(*(start() for _ in range(6))))) == 1

    asyncio.run(scenario())


def test_changes_of_many_writers_are_numbered_in_the_order_of_their_commits(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """Whoever reads up to a number has seen all below it."""
    url = postgres.database()

    async def scenario() -> None:
        async with stores(url, tmp_path) as one, stores(url, tmp_path) as other:
            seen: list[int] = []

            async def write(shop: Stores, numbers: range) -> None:
                for number in numbers:
                    await shop.keys.add(minted(number)[0], AUDIT)

            async def follow() -> None:
                while len(seen) < 60:
                    seen.extend(change.number for change in await other.changes.since(seen[-1] if seen else 0))

            await asyncio.gather(
                write(one, range(20)), write(other, range(20, 40)), write(one, range(40, 60)), follow()
            )
            assert seen == list(range(1, 61))

    asyncio.run(scenario())


def test_a_record_that_two_hosts_bring_counts_once(
    postgres: PostgresServer, tmp_path: Path, make_record: MakeRecord
) -> None:
    url = postgres.database()
    records = [make_record(f"req_{number}", tenant=f"t{number % 5}") for number in range(200)]

    async def scenario() -> None:
        async with stores(url, tmp_path) as one, stores(url, tmp_path) as other:
            brought = await asyncio.gather(
                *(shop.usage.ingest(part) for part in (records[:120], records[60:]) for shop in (one, other))
            )
            assert sum(taken.fresh for taken in brought) == 200

    asyncio.run(scenario())


def test_while_it_is_away_everything_fails_at_once_and_goes_on_afterwards(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    with PostgresServer() as server:
        url = server.database()

        async def scenario() -> None:
            async with stores(url, tmp_path) as shop:
                await shop.usage.ingest([make_record("req_1")])
                server.kill()
                begin = time.perf_counter()
                for _ in range(20):
                    with pytest.raises(StoreError):
                        await shop.usage.ingest([make_record("req_2")])
                assert time.perf_counter() - begin < 5.0
                server.start()

                async def there() -> bool:
                    try:
                        await shop.usage.ingest([make_record("req_2")])
                    except StoreError:
                        return False
                    return True

                async with asyncio.timeout(10.0):
                    while not await there():
                        await asyncio.sleep(0.05)
                (row,) = (await shop.usage.hours(EVER)).rows
                assert row.requests == 2

        asyncio.run(scenario())


def test_one_that_does_not_answer_costs_the_deadline_and_no_more(tmp_path: Path, make_record: MakeRecord) -> None:
    with PostgresServer() as server:
        url = server.database()

        async def scenario() -> None:
            database = PostgresDatabase(url, deadline_s=0.5)
            await database.start()
            server.pause()
            with pytest.raises(StoreError, match="within"):
                await database.read(lambda connection: list(connection.execute("SELECT 1")))
            server.resume()
            assert await database.read(lambda connection: list(connection.execute("SELECT 1"))) == [(1,)]
            await database.close()

        asyncio.run(scenario())


def test_a_place_where_there_is_none_says_so_without_the_password(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreError, match="cannot be reached") as found:
            async with stores("postgresql://someone:hunter2@127.0.0.1:9/none", tmp_path):
                pass
        assert "hunter2" not in str(found.value)

    asyncio.run(scenario())


def test_records_lie_in_segments_of_a_day_that_are_dropped_whole(
    postgres: PostgresServer, tmp_path: Path, make_record: MakeRecord
) -> None:
    day_s = 86_400
    records = [make_record(f"req_{number}", finished_at_s=HOUR_S + 60.0 + day_s * number) for number in range(4)]

    async def scenario() -> None:
        async with stores(postgres.database(), tmp_path) as shop:
            await shop.usage.ingest(records)
            assert (await shop.usage.ingest(records)).fresh == 0
            assert await segments(shop) == 4
            gone = await shop.usage.forget(records_before_s=HOUR_S + 2 * day_s, hours_before_s=0.0)
            assert gone == 2
            assert await segments(shop) == 2
            assert [await shop.usage.record(one.request) for one in records] == [None, None, *records[2:]]
            assert sum(row.requests for row in (await shop.usage.hours(EVER)).rows) == 4

    asyncio.run(scenario())


async def segments(shop: Stores) -> int:
    found = await shop.database.read(
        lambda connection: list(
            connection.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage'::regclass")
        )
    )
    return int(found[0][0])


def test_records_of_an_earlier_schema_are_moved_into_segments(
    postgres: PostgresServer, tmp_path: Path, make_record: MakeRecord
) -> None:
    url = postgres.database()
    earlier = migrations("postgres")[:2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE schema_version (version BIGINT PRIMARY KEY, name TEXT NOT NULL)")
        for step in earlier:
            connection.execute(cast("LiteralString", step.statements[0]))
            connection.execute("INSERT INTO schema_version VALUES (%s, %s)", (step.number, step.name))
        connection.execute(
            """INSERT INTO usage SELECT 'req_' || n, %s + n * 40000.0, 't', 'k', 'm', 'v', 'p', 'interactive', 'ok', 1, 0, 1, 10, NULL, 5, 0,
               0.1, 0.01, 0.5, 1000, '' FROM generate_series(0, 9) AS n""",
            (HOUR_S,),
        )

    async def scenario() -> None:
        async with stores(url, tmp_path) as shop:
            found = await shop.usage.records(RecordQuery(0, 1e12))
            assert [record.request for record in found] == [f"req_{number}" for number in range(10)]
            assert await segments(shop) == 5
            assert (await shop.usage.ingest(found)).fresh == 0

    asyncio.run(scenario())
