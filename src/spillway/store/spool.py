"""The worker's side of the ledger: usage records go to files that the parent reads into the store.

A slice of records is one `os.write`, so that a killed process loses at most what came in the last `slice_s`; the page
cache outlives the process, hence no fsync. Segments go through three names in `HOME/spool`:

    WORKER-0000002a.new     being made; nobody reads it
    WORKER-0000002a.open    written by a live worker, which holds a lock on it; unlocked: its worker is dead
    WORKER-0000002a.closed  complete; the parent reads it into the store and deletes it

Full means that requests must not be admitted: the segments that the parent has not taken are near `max_bytes`, or the
disk refuses. What still runs may end meanwhile; its records are written while there is room, then kept in memory up to
`buffer_records`, and only beyond that lost, and counted. The spool tries again by itself.
"""

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from spillway.core.clock import Seconds, Timer, Timers
from spillway.core.usage import UsageRecord
from spillway.store.bounds import bounded
from spillway.store.frames import MAX_FRAME_BYTES, write_frame
from spillway.store.settings import SpoolSettings

_BACKLOG_SEGMENTS = 8
"""With so many segments waiting for the parent, time alone closes no more: their number stays bounded."""

_SLICES_AT_ONCE = 8
"""So much is written without giving the loop a breath: about 1 ms."""


class _Segment:
    __slots__ = ("path", "records", "size_bytes")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self.records = 0


class Spool:
    """gateway.ports.UsageSink. `worker` is unique among all workers that ever used this directory."""

    __slots__ = (
        "_backlog", "_backlog_bytes", "_backlog_records", "_buffer", "_closed", "_descriptor", "_directory", "_flush_timer", "_rotate_timer", "_segment", "_sequence",
        "_settings", "_timers", "_worker", "full", "lost", "problem",
    )  # fmt: skip

    def __init__(
        self,
        directory: Path,
        *,
        worker: str,
        timers: Timers,
        settings: SpoolSettings,
        closed: Callable[[str], None],
    ) -> None:
        """`closed` is told the name of each segment that is ready for the parent."""
        self.full = False
        self.lost = 0  # records that could be neither written nor kept
        self.problem = ""  # why it is full, for logs
        self._directory = directory
        self._worker = worker
        self._timers = timers
        self._settings = settings
        self._closed = closed
        self._buffer: list[UsageRecord] = []
        self._segment: _Segment | None = None
        self._descriptor = -1
        self._sequence = 0
        self._backlog: deque[_Segment] = deque()  # closed, and not taken by the parent when last looked
        self._backlog_bytes = 0
        self._backlog_records = 0
        self._flush_timer: Timer | None = None
        self._rotate_timer: Timer | None = None

    def put(self, record: UsageRecord) -> None:
        buffer = self._buffer
        if len(buffer) >= self._settings.buffer_records:
            self.lost += 1
            return
        buffer.append(record)
        if self._flush_timer is None:
            self._flush_timer = self._after(self._settings.slice_s, self._flush_on_time)
        elif len(buffer) >= self._settings.slice_records and not self.full:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered, if the disk takes it: a few slices at once, the rest a moment later."""
        self._stop_flush_timer()
        try:
            for _ in range(_SLICES_AT_ONCE):
                if not self._buffer:
                    break
                self._write_slice()
            self._rotate_if_large()
            self._settle_backlog()
            self._judge_room()
        except OSError as error:
            self._fail(error)
        if self._flush_timer is None and self._buffer:
            self._flush_timer = self._after(self._settings.slice_s, self._flush_on_time)

    def unsettled(self) -> int:
        """Records that the store does not have yet, as far as this worker knows."""
        self._settle_backlog()
        current = self._segment.records if self._segment is not None else 0
        return len(self._buffer) + current + self._backlog_records

    def size_bytes(self) -> int:
        current = self._segment.size_bytes if self._segment is not None else 0
        return current + self._backlog_bytes

    def close(self) -> int:
        """Write and close everything. How many records could not be written and are lost with this process."""
        try:
            while self._buffer:
                self._write_slice()
        except OSError as error:
            self.problem = error.strerror or str(error)
        self._stop_flush_timer()
        with contextlib.suppress(OSError):  # it stays `.open` without a lock: the parent reads it as a dead worker's
            self._rotate()
        self._abandon()
        return len(self._buffer) + self.lost

    def _flush_on_time(self) -> None:
        self._flush_timer = None
        self.flush()

    def _stop_flush_timer(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None

    def _after(self, delay_s: Seconds, callback: Callable[[], object]) -> Timer:
        return self._timers.call_at(self._timers.time() + delay_s, callback)

    def _judge_room(self) -> None:
        self.full = self.size_bytes() >= self._settings.max_bytes * 9 // 10
        self.problem = "the store does not take what is spooled" if self.full else ""
        if self.full:
            self._try_later()

    def _fail(self, error: OSError) -> None:
        self.full = True
        self.problem = error.strerror or str(error)
        self._try_later()

    def _try_later(self) -> None:
        if self._flush_timer is None:
            self._flush_timer = self._after(self._settings.retry_s, self._flush_on_time)

    def _write_slice(self) -> None:
        part = self._buffer[: self._settings.slice_records]
        taken = count = len(part)
        try:
            frame = write_frame(part)
        except (OverflowError, ValueError):
            frame, taken, count = _frame_of_what_fits(part)
        if count:
            self._write(frame, count)
        del self._buffer[:taken]
        self.lost += taken - count

    def _write(self, frame: bytes, records: int) -> None:
        """The frame, whole or not at all."""
        if self.size_bytes() + len(frame) > self._settings.max_bytes:
            self._settle_backlog()
            if self.size_bytes() + len(frame) > self._settings.max_bytes:
                raise OSError("the spool has reached max_bytes")
        segment = self._segment if self._segment is not None else self._begin()
        try:
            written = os.write(self._descriptor, frame)
            if written < len(frame):
                os.ftruncate(self._descriptor, segment.size_bytes)
                raise OSError("the disk is full: it took only a part")
        except OSError:
            if os.fstat(self._descriptor).st_size != segment.size_bytes:
                self._give_up_segment()  # its torn end must stay an end
            raise
        segment.size_bytes += len(frame)
        segment.records += records

    def _begin(self) -> _Segment:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sequence += 1
        path = self._directory / f"{self._worker}-{self._sequence:08x}.new"
        opened = path.with_suffix(".open")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before anyone may look into it
            path.rename(opened)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self._segment = segment = _Segment(opened)
        self._rotate_timer = self._after(self._settings.segment_s, self._rotate_on_time)
        return segment

    def _rotate_if_large(self) -> None:
        if self._segment is not None and self._segment.size_bytes >= self._settings.segment_bytes:
            self._rotate()

    def _rotate_on_time(self) -> None:
        self._rotate_timer = None
        try:
            self._settle_backlog()
            if len(self._backlog) < _BACKLOG_SEGMENTS:
                self._rotate()
        except OSError as error:
            self._fail(error)
        if self._segment is not None:
            self._rotate_timer = self._after(self._settings.segment_s, self._rotate_on_time)

    def _rotate(self) -> None:
        """Close the current segment under its final name and tell the parent."""
        segment = self._segment
        if segment is None:
            return
        if segment.size_bytes == 0:
            segment.path.unlink(missing_ok=True)
            self._abandon()
            return
        closed = segment.path.with_suffix(".closed")
        try:
            segment.path.rename(closed)  # while the lock is held: nobody takes it for a dead worker's
        except FileNotFoundError:  # somebody deleted it under us
            self.lost += segment.records
            self._abandon()
            raise
        segment.path = closed
        self._abandon()
        self._await_parent(segment)
        self._closed(closed.name)

    def _give_up_segment(self) -> None:
        """Leave it to the parent, which finds it without a lock, as if this worker had died."""
        if self._segment is not None:
            self._await_parent(self._segment)
        self._abandon()

    def _abandon(self) -> None:
        if self._rotate_timer is not None:
            self._rotate_timer.cancel()
            self._rotate_timer = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._segment = None

    def _await_parent(self, segment: _Segment) -> None:
        self._backlog.append(segment)
        self._backlog_bytes += segment.size_bytes
        self._backlog_records += segment.records

    def _settle_backlog(self) -> None:
        """The parent deletes what it has taken; oldest first, so that one look at the oldest is mostly enough."""
        while self._backlog and not self._backlog[0].path.exists():
            settled = self._backlog.popleft()
            self._backlog_bytes -= settled.size_bytes
            self._backlog_records -= settled.records


def _frame_of_what_fits(records: list[UsageRecord]) -> tuple[bytes, int, int]:
    """The frame of the first records, as many as it can hold; how many were looked at, and how many of these it has.
    Numbers are cut to their bounds; a record that still cannot be written is left out."""
    fitting: list[UsageRecord] = []
    taken = size_bytes = 0
    for record in map(bounded, records):
        with contextlib.suppress(OverflowError, ValueError):
            size_bytes += len(write_frame([record]))
            if size_bytes > MAX_FRAME_BYTES:
                break
            fitting.append(record)
        taken += 1
    return write_frame(fitting), taken, len(fitting)
