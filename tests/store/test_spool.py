"""The spool in virtual time: slices, segments, bounds, and what happens when the disk refuses."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest
from tests.store.conftest import MakeRecord

from spillway.core.usage import UsageRecord
from spillway.gateway.ports import UsageSink
from spillway.store.frames import MAX_FRAME_BYTES, read_segment
from spillway.store.settings import SpoolSettings
from spillway.store.spool import Spool
from spillway.testing.clock import ManualTimers


class Bench:
    """A spool, its time, and what it announced."""

    def __init__(self, directory: Path, **changes: object) -> None:
        self.directory = directory
        self.timers = ManualTimers()
        self.closed: list[str] = []
        self.settings = msgspec.structs.replace(SpoolSettings(), **changes)
        self.spool = Spool(
            directory, worker="w1", timers=self.timers, settings=self.settings, closed=self.closed.append
        )

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir()) if self.directory.exists() else []

    def written(self) -> list[UsageRecord]:
        return [
            record
            for path in sorted(self.directory.iterdir(), key=lambda path: path.stem)
            for record in read_segment(path.read_bytes()).records
        ]

    def take(self) -> list[UsageRecord]:
        """Be the parent: read what is closed, delete it."""
        taken: list[UsageRecord] = []
        for path in sorted(self.directory.glob("*.closed")):
            taken += read_segment(path.read_bytes()).records
            path.unlink()
        return taken


@pytest.fixture
def records(make_record: MakeRecord) -> list[UsageRecord]:
    return [make_record(f"req_{number}") for number in range(1000)]


def test_a_slice_is_written_after_its_time_in_one_frame(tmp_path: Path, records: list[UsageRecord]) -> None:
    bench = Bench(tmp_path / "spool")
    sink: UsageSink = bench.spool
    sink.put(records[0])
    bench.timers.advance(0.03)
    sink.put(records[1])
    assert bench.files() == []
    bench.timers.advance(0.021)
    assert bench.files() == ["w1-00000001.open"]
    assert bench.written() == records[:2]
    assert bench.spool.unsettled() == 2


def test_a_full_slice_is_written_at_once(tmp_path: Path, records: list[UsageRecord]) -> None:
    bench = Bench(tmp_path / "spool")
    for record in records[:130]:
        bench.spool.put(record)
    assert bench.written() == records[:128]
    bench.timers.advance(0.05)
    assert bench.written() == records[:130]


def test_a_segment_is_closed_by_age_announced_and_nothing_is_made_while_idle(
    tmp_path: Path, records: list[UsageRecord]
) -> None:
    bench = Bench(tmp_path / "spool")
    bench.spool.put(records[0])
    bench.timers.advance(0.051)
    bench.timers.advance(1.0)
    assert bench.closed == ["w1-00000001.closed"]
    assert bench.files() == bench.closed
    bench.timers.advance(60.0)
    assert bench.files() == bench.closed
    assert bench.take() == records[:1]
    assert bench.spool.unsettled() == 0


def test_a_segment_is_closed_by_size(tmp_path: Path, records: list[UsageRecord]) -> None:
    bench = Bench(tmp_path / "spool", segment_bytes=20_000, slice_records=10)
    for record in records[:300]:
        bench.spool.put(record)
    assert len(bench.closed) >= 3
    assert all(path.stat().st_size < 30_000 for path in bench.directory.iterdir())
    assert bench.written() == records[:300]


def test_the_number_of_segments_stays_bounded_while_nobody_takes_them(tmp_path: Path, make_record: MakeRecord) -> None:
    bench = Bench(tmp_path / "spool")
    for number in range(100):
        bench.spool.put(make_record(f"req_{number}"))
        bench.timers.advance(2.0)
    assert len(bench.files()) == 9
    assert len(bench.take()) == 8
    bench.timers.advance(2.0)
    assert len(bench.take()) == 92
    assert bench.files() == []


def test_full_before_the_bound_and_free_again_when_the_parent_took_it(tmp_path: Path, make_record: MakeRecord) -> None:
    bench = Bench(tmp_path / "spool", max_bytes=50_000, segment_bytes=5_000, slice_records=4)
    put: list[UsageRecord] = []
    while not bench.spool.full:
        put.append(make_record(f"req_{len(put)}"))
        bench.spool.put(put[-1])
        assert len(put) < 1000
    assert 44_000 <= bench.spool.size_bytes() <= 50_000
    for _ in range(200):  # what still runs ends: more than there is room for
        put.append(make_record(f"req_{len(put)}"))
        bench.spool.put(put[-1])
        bench.timers.advance(0.01)
    assert sum(path.stat().st_size for path in bench.directory.iterdir()) <= 50_000
    assert bench.spool.full
    assert bench.spool.problem
    taken: list[UsageRecord] = []
    for _ in range(10):
        taken += bench.take()
        bench.timers.advance(2.0)
    assert not bench.spool.full
    assert taken + bench.take() == put
    assert bench.spool.lost == 0


def test_beyond_the_buffer_records_are_lost_and_counted(tmp_path: Path, records: list[UsageRecord]) -> None:
    (tmp_path / "spool").write_text("not a directory")
    bench = Bench(tmp_path / "spool", buffer_records=100)
    for record in records[:150]:
        bench.spool.put(record)
    bench.timers.advance(1.0)
    assert bench.spool.full
    assert bench.spool.lost == 50
    (tmp_path / "spool").unlink()
    bench.timers.advance(1.0)
    assert not bench.spool.full
    bench.spool.close()
    assert bench.written() == records[:100]


def test_a_record_that_cannot_be_written_does_not_hold_up_the_others(tmp_path: Path, make_record: MakeRecord) -> None:
    bench = Bench(tmp_path / "spool")
    bench.spool.put(make_record("req_0"))
    bench.spool.put(make_record("req_1", prompt_tokens=1 << 70))
    bench.spool.put(make_record("req_2", tenant="\ud800"))
    bench.spool.put(make_record("req_3"))
    bench.timers.advance(0.1)
    assert [(record.request, record.prompt_tokens) for record in bench.written()] == [
        ("req_0", 100),
        ("req_1", 1 << 40),
        ("req_3", 100),
    ]
    assert bench.spool.lost == 1
    assert not bench.spool.full


def test_no_frame_is_larger_than_its_reader_takes(tmp_path: Path, make_record: MakeRecord) -> None:
    bench = Bench(tmp_path / "spool")
    large = [make_record(f"req_{number}", tenant="t" * (1 << 20)) for number in range(20)]
    for record in (*large, make_record("req_too_large", tenant="t" * MAX_FRAME_BYTES), make_record("req_last")):
        bench.spool.put(record)
    assert bench.spool.close() == 1
    assert [record.request for record in bench.take()] == [*(record.request for record in large), "req_last"]


def test_close_leaves_everything_to_the_parent(tmp_path: Path, records: list[UsageRecord]) -> None:
    bench = Bench(tmp_path / "spool")
    for record in records:
        bench.spool.put(record)
    assert bench.spool.close() == 0
    assert bench.take() == records
    bench.timers.advance(10.0)
    assert bench.files() == []


def test_a_spool_directory_that_is_deleted_is_noticed_and_made_anew(tmp_path: Path, records: list[UsageRecord]) -> None:
    bench = Bench(tmp_path / "spool")
    bench.spool.put(records[0])
    bench.timers.advance(0.1)
    for path in bench.directory.iterdir():
        path.unlink()
    bench.directory.rmdir()
    bench.timers.advance(2.0)
    assert bench.spool.lost == 1
    bench.spool.put(records[1])
    bench.timers.advance(2.0)
    assert not bench.spool.full
    assert bench.take() == [records[1]]


@contextlib.contextmanager
def file_size_limit(limit_bytes: int) -> Generator[None]:
    """The kernel refuses to let a file grow beyond this, and takes a part of the write that crosses it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_write_that_the_disk_takes_in_part_leaves_no_torn_frame(tmp_path: Path, records: list[UsageRecord]) -> None:
    bench = Bench(tmp_path / "spool", slice_records=10)
    with file_size_limit(30_000):
        for record in records[:200]:
            bench.spool.put(record)
        bench.timers.advance(0.5)
        assert bench.spool.full
        good = read_segment((bench.directory / "w1-00000001.open").read_bytes())
        assert not good.torn
        assert good.records == records[: len(good.records)]
    bench.timers.advance(5.0)
    assert not bench.spool.full
    bench.spool.close()
    assert bench.written() == records[:200]
    assert bench.spool.lost == 0


@contextlib.contextmanager
def small_disk(directory: Path, size_kib: int) -> Generator[bool]:
    """A file system that is really full soon, where this process may mount one."""
    directory.mkdir()
    mounted = False
    if os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", str(directory)]
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.server
def test_a_disk_that_is_full_makes_the_spool_full_and_space_mends_it(
    tmp_path: Path, records: list[UsageRecord]
) -> None:
    with small_disk(tmp_path / "disk", 64) as mounted:
        # where no disk can be mounted, the spool's own bound refuses in its place
        max_bytes = 1 << 28 if mounted else 64 << 10
        bench = Bench(tmp_path / "disk", slice_records=10, segment_bytes=16_000, max_bytes=max_bytes)
        for record in records:
            bench.spool.put(record)
            bench.timers.advance(0.001)
        assert bench.spool.full
        assert not mounted or any(word in bench.spool.problem for word in ("disk is full", "No space"))
        taken: list[UsageRecord] = []
        for _ in range(40):
            taken += bench.take()
            bench.timers.advance(1.0)
        assert not bench.spool.full
        assert bench.spool.close() == 0
        assert taken + bench.take() == records
