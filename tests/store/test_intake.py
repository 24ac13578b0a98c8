"""From the spool into the store: everything, once, whatever dies or fails on the way."""

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from tests.store.conftest import MakeRecord

from spillway.core.errors import StoreError
from spillway.core.ids import RequestId
from spillway.core.usage import UsageRecord
from spillway.store import intake as intake_module
from spillway.store.frames import write_frame
from spillway.store.intake import Intake
from spillway.store.memory_usage import MemoryUsage
from spillway.store.opening import Stores
from spillway.store.ports import UsageStore
from spillway.store.rows import HourQuery, Ingested
from spillway.store.settings import Settings, SpoolSettings
from spillway.store.spool import Spool
from spillway.testing.waiting import eventually

RECORDS_A_TURN = 5  # of the writer's loop
EVER = HourQuery(from_s=0, until_s=1e12)


async def counted(store: UsageStore) -> int:
    """Requests in the sums, which would show what was counted twice."""
    return sum(row.requests for row in (await store.hours(EVER)).rows)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def segment(spool: Path, name: str, records: Sequence[UsageRecord], junk: bytes = b"") -> Path:
    spool.mkdir(exist_ok=True)
    path = spool / name
    path.write_bytes(write_frame(records) + junk)
    return path


class FailingUsage(MemoryUsage):
    """Refuses as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = True
        self.asked = 0

    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        self.asked += 1
        if self.failing:
            raise StoreError("away")
        return await super().ingest(records)


def test_closed_segments_and_those_of_the_dead_are_taken_live_ones_are_not(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger
) -> None:
    async def scenario() -> None:
        store = MemoryUsage()
        loop = asyncio.get_running_loop()
        live = Spool(tmp_path, worker="w9", timers=loop, settings=SpoolSettings(segment_s=60.0), closed=lambda _: None)
        live.put(make_record("req_live"))
        live.flush()
        segment(tmp_path, "w1-00000001.closed", [make_record("req_1")])
        segment(tmp_path, "w2-00000001.open", [make_record("req_2")], junk=b"\x80\x00\x00\x00torn")
        (tmp_path / "w3-00000001.new").touch()
        intake = Intake(tmp_path, store, log=log)
        await intake.drain()
        assert await counted(store) == 2
        assert names(tmp_path) == ["w9-00000001.open"]
        assert intake.state.waiting_bytes > 0
        assert intake.state.ok
        assert live.close() == 0
        await intake.drain()
        assert await counted(store) == 3
        assert intake.state == msgspec.structs.replace(intake.state, ingested=3, known=0, corrupt=0, waiting_bytes=0)
        assert live.unsettled() == 0

    asyncio.run(scenario())


def test_a_segment_that_comes_again_counts_nothing(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger
) -> None:
    async def scenario() -> None:
        store = MemoryUsage()
        intake = Intake(tmp_path, store, log=log)
        for _ in range(2):
            segment(tmp_path, "w1-00000001.closed", [make_record("req_1"), make_record("req_2")])
            await intake.drain()
        assert await counted(store) == 2
        assert (intake.state.ingested, intake.state.known) == (2, 2)

    asyncio.run(scenario())


def test_damage_is_set_aside_after_what_can_be_read_of_it_was_counted(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        store = MemoryUsage()
        intake = Intake(tmp_path, store, log=log)
        path = segment(tmp_path, "w1-00000001.closed", [make_record("req_1")])
        content = path.read_bytes() + bytes(write_frame([make_record("req_2")]))[:-1] + b"?"
        path.write_bytes(content + write_frame([make_record("req_3")]))
        segment(tmp_path, "w1-00000002.closed", [make_record("req_4")], junk=b"torn")
        await intake.drain()
        assert await counted(store) == 3
        assert intake.state.corrupt == 2
        assert sorted(path.name for path in (tmp_path / "corrupt").iterdir()) == [
            "w1-00000001.closed",
            "w1-00000002.closed",
        ]
        assert "w1-00000001.closed, 2 records" in caplog.text

    asyncio.run(scenario())


def test_damaged_segments_are_kept_in_a_bounded_number(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger
) -> None:
    async def scenario() -> None:
        intake = Intake(tmp_path, MemoryUsage(), log=log)
        for number in range(intake_module.MAX_CORRUPT_FILES + 3):
            segment(tmp_path, f"w1-{number:08x}.closed", [make_record(f"req_{number}")], junk=b"torn")
        await intake.drain()
        assert len(list((tmp_path / "corrupt").iterdir())) == intake_module.MAX_CORRUPT_FILES

    asyncio.run(scenario())


def test_what_the_store_cannot_take_stays_and_is_tried_again(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        store = FailingUsage()
        segment(tmp_path, "w1-00000001.closed", [make_record("req_1")])
        intake = Intake(tmp_path, store, log=log, scan_s=0.01, max_backoff_s=0.02)
        task = asyncio.create_task(intake.run())
        try:
            await eventually(lambda: store.asked >= 3)
            assert not intake.state.ok
            assert names(tmp_path) == ["w1-00000001.closed"]
            store.failing = False
            await eventually(lambda: intake.state.ingested == 1)
            await eventually(lambda: intake.state.ok)
            segment(tmp_path, "w1-00000002.closed", [make_record("req_2")])
            intake.announce("w1-00000002.closed")
            await eventually(lambda: intake.state.ingested == 2)
        finally:
            task.cancel()
        assert caplog.text.count("cannot be stored") == 1

    asyncio.run(scenario())


def test_a_file_that_cannot_be_read_does_not_hold_up_the_others(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger
) -> None:
    async def scenario() -> None:
        store = MemoryUsage()
        (tmp_path / "a-00000001.closed").mkdir(parents=True)
        segment(tmp_path, "b-00000001.closed", [make_record("req_1")])
        intake = Intake(tmp_path, store, log=log)
        with pytest.raises(OSError, match="directory"):
            await intake.drain()
        assert await counted(store) == 1

    asyncio.run(scenario())


def test_a_database_that_is_locked_then_replaced_gets_every_record_once(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger
) -> None:
    database, spool = tmp_path / "spillway.db", tmp_path / "spool"

    async def scenario() -> None:
        async with Stores(Settings(busy_timeout_s=0.02), tmp_path) as stores:
            intake = Intake(spool, stores.usage, log=log)
            other = sqlite3.connect(database, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            segment(spool, "w1-00000001.closed", [make_record("req_1")])
            with pytest.raises(StoreError):
                await intake.drain()
            other.execute("ROLLBACK")
            other.close()
            await intake.drain()
            assert await counted(stores.usage) == 1
            segment(spool, "w1-00000002.closed", [make_record("req_2")])
            database.rename(tmp_path / "away")
            with pytest.raises(StoreError):
                await intake.drain()
            assert names(spool) == ["w1-00000002.closed"]
            (tmp_path / "away").rename(database)
            await intake.drain()
            assert await counted(stores.usage) == 2

    asyncio.run(scenario())


def test_half_a_transaction_is_no_transaction(tmp_path: Path, make_record: MakeRecord, log: logging.Logger) -> None:
    """A record that violates the schema takes the whole segment with it; nothing of it is counted."""

    async def scenario() -> None:
        async with Stores(Settings(), tmp_path) as stores:
            with pytest.raises(StoreError):
                await stores.usage.ingest([make_record("req_1"), make_record("req_2", tenant=None)])
            assert await counted(stores.usage) == 0

    asyncio.run(scenario())


@pytest.mark.server
@pytest.mark.parametrize("lines", [130, 700, 2500])
def test_a_killed_writer_loses_at_most_one_slice_and_nothing_counts_twice(
    tmp_path: Path, lines: int, log: logging.Logger
) -> None:
    spool, copies = tmp_path / "spool", tmp_path / "copies"

    async def scenario() -> None:
        printed = await write_until_killed(spool, lines)
        shutil.copytree(spool, copies)
        async with Stores(Settings(), tmp_path) as stores:
            intake = Intake(spool, stores.usage, log=log)
            await intake.drain()
            kept = intake.state.ingested
            assert names(spool) == []
            assert intake.state.corrupt == 0
            # what is kept is a prefix: its last record and not the next one
            assert kept > 0
            assert await stores.usage.record(RequestId(f"w1-{kept - 1}")) is not None
            assert await stores.usage.record(RequestId(f"w1-{kept}")) is None
            for copy in copies.iterdir():
                shutil.copy(copy, spool / copy.name)
            await intake.drain()
            assert (intake.state.ingested, intake.state.known) == (kept, kept)
            assert await counted(stores.usage) == kept
        if kept < len(printed):
            slowest_turn = max(later - sooner for sooner, later in zip(printed, printed[RECORDS_A_TURN:], strict=False))
            assert printed[-1] - printed[kept] <= 0.05 + slowest_turn

    asyncio.run(scenario())


async def write_until_killed(spool: Path, lines: int) -> list[float]:
    """When each record was put, as far as the writer came before SIGKILL."""
    writer = Path(__file__).with_name("spool_writer.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(writer), str(spool), "w1", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    printed: list[float] = []
    try:
        async with asyncio.timeout(30):
            while len(printed) < lines:
                printed.append(float((await process.stdout.readline()).split()[1]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        rest = await process.stdout.read()
        await process.wait()
    return printed + [float(line.split()[1]) for line in rest.splitlines() if line.count(b" ") == 1]


@pytest.mark.server
def test_a_killed_parent_counts_nothing_twice_and_forgets_nothing(
    tmp_path: Path, make_record: MakeRecord, log: logging.Logger
) -> None:
    spool = tmp_path / "spool"
    for number in range(300):
        segment(spool, f"w1-{number:08x}.closed", [make_record(f"req_{number}_{place}") for place in range(40)])

    async def scenario() -> None:
        for left in (250, 150, 50):
            await take_until_killed(tmp_path, left)
        assert len(names(spool)) <= 50
        async with Stores(Settings(), tmp_path) as stores:
            intake = Intake(spool, stores.usage, log=log)
            await intake.drain()
            assert names(spool) == []
            assert await counted(stores.usage) == 300 * 40
            count = await stores.database.read(
                lambda connection: connection.execute("SELECT count(*) FROM usage").fetchone()
            )
            assert count == (300 * 40,)

    asyncio.run(scenario())


async def take_until_killed(home: Path, left: int) -> None:
    """Let a process take segments until no more than `left` are left, then kill it in whatever it does."""
    taker = Path(__file__).with_name("spool_taker.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(taker), str(home), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            await process.stdout.readline()
        await eventually(lambda: len(names(home / "spool")) <= left, deadline_s=30)
    finally:
        process.kill()
        await process.wait()
