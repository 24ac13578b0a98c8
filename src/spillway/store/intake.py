"""The parent's side of the ledger: takes closed segments, and those of dead workers, into the store, then deletes them.

A segment is deleted only after its transaction; the records' ids make a second reading count nothing. What the store
cannot take stays and is tried again. Damage is moved to `corrupt/`, after what can be read of it was counted.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from pathlib import Path

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.store.frames import Segment, read_segment
from spillway.store.ports import UsageStore

MAX_CORRUPT_FILES = 100
_FIRST_BACKOFF_S = 0.1


class IntakeState(msgspec.Struct):
    """What the intake did, and what waits for it. Counters only grow."""

    ingested: int = 0  # records that were new to the store
    known: int = 0  # records that the store had already
    corrupt: int = 0  # segments moved away
    waiting_bytes: int = 0
    ok: bool = True


class Intake:
    """`run` works until cancelled; `announce` wakes it. `drain` is one pass: at start, and after the last worker ended."""

    def __init__(
        self,
        directory: Path,
        store: UsageStore,
        *,
        log: logging.Logger,
        scan_s: Seconds = 1.0,
        max_backoff_s: Seconds = 5.0,
    ) -> None:
        self.state = IntakeState()
        self._directory = directory
        self._store = store
        self._log = log
        self._scan_s = scan_s
        self._max_backoff_s = max_backoff_s
        self._wake = asyncio.Event()
        self._pass = asyncio.Lock()
        self._swept = False

    def announce(self, name: str) -> None:
        """A worker closed this segment, or died. Nothing is lost if nobody says so: `run` looks every `scan_s`."""
        del name  # a pass takes everything there is
        self._wake.set()

    async def run(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                await self.drain()
                backoff_s = _FIRST_BACKOFF_S
                await self._wait(self._scan_s)
            except (StoreError, OSError) as error:
                if self.state.ok:
                    self._log.warning("usage cannot be stored, it stays in the spool: %s", error)
                self.state.ok = False
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, self._max_backoff_s)

    async def drain(self) -> None:
        """Take everything that no live worker writes to. StoreError: the store is not able; the rest stays."""
        async with self._pass:
            problem: OSError | None = None
            for path in await asyncio.to_thread(self._list):
                try:
                    await self._take(path)
                except OSError as error:  # one file: the others are taken all the same
                    problem = problem or error
            await asyncio.to_thread(self._list)
            self._swept = True
            if problem is not None:
                raise problem
            self.state.ok = True

    async def _wait(self, seconds: Seconds) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    async def _take(self, path: Path) -> None:
        segment = await asyncio.to_thread(_read, path)
        if segment is None:
            return
        if segment.records:
            ingested = await self._store.ingest(segment.records)
            self.state.ingested += ingested.fresh
            self.state.known += ingested.known
        if segment.damaged or (segment.torn and path.suffix == ".closed"):
            self._log.error("a usage segment is damaged: %s, %d records could be read", path.name, len(segment.records))
            self.state.corrupt += 1
            await asyncio.to_thread(self._set_aside, path)
        else:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _list(self) -> list[Path]:
        """Segments in the order of their names, and how much that is."""
        found: list[Path] = []
        size_bytes = 0
        # what a killed worker was just making is swept once, at start: later it could be a live one's
        suffixes = (".closed", ".open") if self._swept else (".closed", ".open", ".new")
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(suffixes):
                    found.append(Path(entry.path))
                    with contextlib.suppress(FileNotFoundError):
                        size_bytes += entry.stat().st_size
        self.state.waiting_bytes = size_bytes
        return sorted(found)

    def _set_aside(self, path: Path) -> None:
        corrupt = self._directory / "corrupt"
        corrupt.mkdir(mode=0o700, exist_ok=True)
        kept = sorted(corrupt.iterdir(), key=lambda old: old.stat().st_mtime)
        for old in kept[: max(0, len(kept) - MAX_CORRUPT_FILES + 1)]:
            self._log.error("too many damaged segments, the oldest is deleted: %s", old.name)
            old.unlink()
        path.rename(corrupt / path.name)


def _read(path: Path) -> Segment | None:
    """None: a live worker writes to it, or it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists():  # its worker closed it between our open and the lock: it has another name now
                return None
            return read_segment(file.read())
    except (FileNotFoundError, BlockingIOError):
        return None
