"""What every store promises of files, batches and their work: the same suite on SQLite, PostgreSQL and their twin in memory."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from tests.needs import needs_postgres

from spillway.batch.jobs import Batch, FileRow, Group, Lease, Purpose, Shard, State, Sums
from spillway.batch.ports import Batches, Work
from spillway.batch.states import moved
from spillway.core.errors import BadRequestError, ClashError
from spillway.core.ids import BatchId, FileId, KeyId, OrganizationId, TenantId
from spillway.store.opening import Stores
from spillway.store.settings import Settings
from spillway.testing.memory_batches import MemoryBatches

ACME, ZETA = TenantId("acme"), TenantId("zeta")
Scenario = Callable[["Shelves"], Coroutine[Any, Any, None]]
Play = Callable[[Scenario], None]


class Shelves(Protocol):
    """What `Stores` and its twin have."""

    @property
    def files(self) -> Any: ...
    @property
    def batches(self) -> Batches: ...
    @property
    def work(self) -> Work: ...


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=[pytest.mark.server, needs_postgres])])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Play:
    url = request.getfixturevalue("postgres").database() if request.param == "postgres" else Settings().url

    def run(scenario: Scenario) -> None:
        async def opened() -> None:
            if request.param == "memory":
                await scenario(MemoryBatches())
                return
            async with Stores(Settings(url=url), tmp_path) as stores:
                await scenario(stores)

        asyncio.run(opened())

    return run


def file(number: int, **changes: Any) -> FileRow:
    row = FileRow(FileId(f"file-{number}"), ACME, OrganizationId(""), Purpose.BATCH, "in.jsonl", 100, 1000.0 + number)
    return msgspec.structs.replace(row, **changes)


def batch(number: int, **changes: Any) -> Batch:
    made = Batch(
        id=BatchId(f"batch_{number}"), tenant=ACME, organization=OrganizationId(""), key=KeyId("key"), endpoint="/v1/embeddings",
        input_file=FileId("file-1"), window="24h", window_s=86_400.0, created_at_s=1000.0 + number, expires_at_s=90_000.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def shards(count: int, lines: int = 10) -> list[Shard]:
    return [Shard(number, number * lines, lines, number * 100, 100) for number in range(count)]


async def begun(stores: Shelves, number: int, count: int, now_s: float = 2000.0, **changes: Any) -> Batch:
    """A batch with shards that wait."""
    if await stores.files.one(changes.get("tenant", ACME), FileId(f"file-{number}")) is None:
        await stores.files.add(file(number, tenant=changes.get("tenant", ACME)))
    await stores.batches.add(batch(number, input_file=FileId(f"file-{number}"), **changes), most=100)
    held = await stores.work.lease_batch("w", now_s, now_s + 10)
    assert held is not None
    ready = msgspec.structs.replace(moved(held, State.IN_PROGRESS, now_s), total=count * 10)
    saved = await stores.work.save(ready, shards=shards(count))
    assert saved is not None
    return saved


def group(lease: Lease, *lines: int) -> Group:
    return Group(lease.shard.number, f"{lease.shard.number}-{lease.token}-{lines[0]}", "sum", lines)


def sums(count: int) -> Sums:
    return Sums(completed=count, prompt_tokens=3 * count, completion_tokens=2 * count, cost_nano_usd=5 * count)


def test_files_belong_to_their_tenant(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        files = stores.files
        rows = [file(1), file(2, purpose=Purpose.EVALS), file(3, tenant=ZETA), file(4, expires_at_s=5000.0)]
        for row in rows:
            await files.add(row)
        assert await files.one(ACME, FileId("file-4")) == rows[3]
        assert await files.one(ZETA, FileId("file-4")) is None
        everything: Any = {"after": None, "limit": 10, "ascending": True, "purpose": None}
        assert await files.page(ACME, **everything) == [rows[0], rows[1], rows[3]]
        assert await files.page(ACME, **(everything | {"ascending": False, "limit": 2})) == [rows[3], rows[1]]
        assert await files.page(ACME, **(everything | {"after": FileId("file-2")})) == [rows[3]]
        assert await files.page(ACME, **(everything | {"purpose": Purpose.EVALS})) == [rows[1]]
        with pytest.raises(BadRequestError):
            await files.page(ACME, **(everything | {"after": FileId("file-3")}))
        assert (await files.stored(ACME)).size_bytes == 300
        assert [row.id for row in await files.expired(5000.0)] == ["file-4"]
        assert not await files.delete(ZETA, FileId("file-4"))
        assert await files.delete(ACME, FileId("file-4"))
        assert not await files.delete(ACME, FileId("file-4"))
        with pytest.raises(ClashError):
            await files.add(rows[0])

    play(scenario)


def test_a_file_stays_while_a_batch_reads_it(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        await stores.files.add(file(1, expires_at_s=1500.0))
        await stores.batches.add(batch(1), most=1)
        with pytest.raises(ClashError):
            await stores.files.delete(ACME, FileId("file-1"))
        assert await stores.files.expired(9e9) == []
        with pytest.raises(ClashError):  # one is not over
            await stores.batches.add(batch(2), most=1)
        with pytest.raises(ClashError):
            await stores.batches.add(batch(3, input_file=FileId("file-none")), most=9)
        assert await stores.batches.save(moved(batch(1), State.FAILED, 3000.0))
        assert await stores.files.delete(ACME, FileId("file-1"))
        assert await stores.work.over(3001.0) == ["batch_1"]
        assert await stores.work.over(3000.0) == []

    play(scenario)


def test_a_batch_is_stepped_by_one_and_an_old_revision_changes_nothing(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        await stores.files.add(file(1))
        await stores.batches.add(batch(1), most=9)
        first = await stores.work.lease_batch("a", 2000.0, 2010.0)
        assert first is not None
        assert await stores.work.lease_batch("b", 2009.0, 2019.0) is None
        assert await stores.work.renew_batch(first, 2012.0)
        assert await stores.work.lease_batch("b", 2011.0, 2021.0) is None
        second = await stores.work.lease_batch("b", 2012.0, 2022.0)
        assert second is not None
        assert second.revision == first.revision + 1
        assert not await stores.work.renew_batch(first, 3000.0)
        assert await stores.work.save(moved(first, State.FAILED, 2013.0), shards=shards(2)) is None
        assert await stores.work.shards(first.id) == []
        cancelling = await stores.batches.one(ACME, first.id)
        assert cancelling is not None
        assert await stores.batches.save(moved(cancelling, State.CANCELLING, 2014.0))  # its tenant needs no lease
        assert await stores.work.save(moved(second, State.IN_PROGRESS, 2015.0), shards=shards(2)) is None
        third = await stores.work.lease_batch("b", 2015.0, 2025.0)  # at once: the step that ran has lost
        assert third is not None
        assert third.state is State.CANCELLING

    play(scenario)


def test_a_shard_is_one_worker_s_and_a_late_commit_changes_nothing(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        work = stores.work
        await begun(stores, 1, 2)
        first, second = [await work.lease_shard("a", 2000.0, 2010.0) for _ in range(2)]
        assert first is not None
        assert second is not None
        assert await work.lease_shard("b", 2009.0, 2019.0) is None
        assert await work.commit(first, group(first, 0, 1, 2), sums(3))
        assert await work.renew_shards([second, first], 2020.0) == [True, True]
        stolen = await work.lease_shard("b", 2020.0, 2030.0)  # a slept
        assert stolen is not None
        assert (stolen.shard, stolen.token, stolen.stalls) == (first.shard, first.token + 1, 1)
        assert not await work.commit(first, group(first, 3, 4), sums(2))
        assert await work.renew_shards([first, second], 2040.0) == [False, True]
        assert await work.suspect(first, 3) == 0
        await work.release_shard(first)
        with pytest.raises(ClashError):  # the same group again
            await work.commit(stolen, msgspec.structs.replace(group(first, 0, 1, 2)), sums(3))
        now = await stores.batches.one(ACME, first.batch.id)
        assert now is not None
        assert now.sums == sums(3)
        assert [one.lines for one in await work.groups(first.batch.id, 0)] == [(0, 1, 2)]
        assert await work.commit(stolen, group(stolen, 3, 4, 5, 6, 7, 8, 9), sums(7))
        assert not await work.commit(stolen, group(stolen, 99), sums(1))  # it is done

    play(scenario)


def test_stalls_and_suspects_are_counted_until_something_is_committed(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        work = stores.work
        await begun(stores, 1, 1)
        for stalls in (1, 2, 3):
            lease = await work.lease_shard("a", 2000.0 + 10 * stalls, 2005.0 + 10 * stalls)
            assert lease is not None
            assert lease.stalls == stalls
        assert [await work.suspect(lease, line) for line in (4, 4, 5)] == [1, 2, 1]
        again = await work.lease_shard("b", 2100.0, 2105.0)
        assert again is not None
        assert (again.stalls, again.suspect, again.suspect_tries) == (4, 5, 1)
        await work.release_shard(again)
        given = await work.lease_shard("c", 2101.0, 2105.0)
        assert given is not None
        assert (given.stalls, given.suspect) == (4, None)
        assert await work.commit(given, group(given, 0), sums(1))
        last = await work.lease_shard("d", 2200.0, 2205.0)
        assert last is not None
        assert last.stalls == 1

    play(scenario)


def test_tenants_take_turns_and_the_nearest_end_goes_first(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        await begun(stores, 1, 3)
        await begun(stores, 2, 2, tenant=ZETA)
        await begun(stores, 3, 1, expires_at_s=4000.0)
        order = [await stores.work.lease_shard("a", 2100.0, 2110.0) for _ in range(6)]
        assert [lease and lease.batch.id for lease in order] == [
            "batch_3", "batch_2", "batch_1", "batch_2", "batch_1", "batch_1",
        ]  # fmt: skip
        assert await stores.work.lease_shard("a", 4000.0, 4010.0) is not None  # the others' leases are over
        assert all(
            lease is None or lease.batch.id != "batch_3"
            for lease in [await stores.work.lease_shard("a", 4000.0, 4010.0) for _ in range(7)]
        )  # its time is over

    play(scenario)


def test_an_expired_or_finished_batch_waits_for_a_step(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        running = await begun(stores, 1, 1, expires_at_s=5000.0)
        assert await stores.work.lease_batch("a", 4999.0, 5009.0) is None
        lease = await stores.work.lease_shard("a", 4990.0, 5000.0)
        assert lease is not None
        due = await stores.work.lease_batch("a", 5000.0, 5010.0)
        assert due is not None
        await stores.work.close_shards(running.id)
        assert not await stores.work.commit(lease, group(lease, 0), sums(1))
        over = await stores.work.save(moved(due, State.EXPIRED, 5001.0), files=[file(7), file(7)])
        assert over is not None
        assert await stores.files.one(ACME, FileId("file-7")) is not None
        await stores.work.forget(running.id)
        assert await stores.work.shards(running.id) == []
        await stores.work.delete(running.id)
        assert await stores.batches.one(ACME, running.id) is None

    play(scenario)


def test_workers_that_lease_at_once_get_different_shards(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        await begun(stores, 1, 40)
        leases = await asyncio.gather(*(stores.work.lease_shard(f"w{n}", 2000.0, 2010.0) for n in range(30)))
        numbers = [lease.shard.number for lease in leases if lease is not None]
        assert len(numbers) == len(set(numbers))
        while (lease := await stores.work.lease_shard("rest", 2000.0, 2010.0)) is not None:
            numbers.append(lease.shard.number)
        assert sorted(numbers) == list(range(40))

    play(scenario)


def test_pages_of_batches(play: Play) -> None:
    async def scenario(stores: Shelves) -> None:
        await stores.files.add(file(1))
        for number in range(5):
            await stores.batches.add(batch(number), most=9)
        page = await stores.batches.page(ACME, after=None, limit=2)
        assert [one.id for one in page] == ["batch_4", "batch_3"]
        assert [one.id for one in await stores.batches.page(ACME, after=page[-1].id, limit=9)] == [
            "batch_2", "batch_1", "batch_0",
        ]  # fmt: skip
        assert await stores.batches.page(ZETA, after=None, limit=9) == []
        with pytest.raises(BadRequestError):
            await stores.batches.page(ZETA, after=page[-1].id, limit=9)

    play(scenario)
