"""The crew: the workers of a parent, each in a slot with a listening socket of its own. A slot is filled again when its worker dies."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from spillway.app.member import Member
from spillway.app.messages import Drain, FromWorker, ToWorker
from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
STABLE_S = 10.0  # a worker that lived this long is replaced at once
START_S = 20.0  # longest time from the start of a worker to its `Serving`
SILENT_S = 10.0  # a worker tells something four times a second; after this it hangs
WATCH_S = 1.0
KILL_AFTER_S = 5.0  # beyond the time that a drain was given


class Retired(Protocol):
    """Told of each worker that ended; `died`: by itself."""

    def __call__(self, worker: str, *, died: bool) -> None: ...


class Crew:
    """Runs inside `tasks`. `begin(slot)` makes a worker's first messages."""

    def __init__(
        self,
        listeners: list[socket.socket],
        tasks: asyncio.TaskGroup,
        begin: Callable[[int], Iterable[ToWorker]],
        heard: Callable[[Member, FromWorker], None],
        retired: Retired,
        log: logging.Logger,
    ) -> None:
        self._listeners = listeners
        self._tasks = tasks
        self._begin = begin
        self._heard = heard
        self._retired = retired
        self._log = log
        self._slots: list[Member | None] = [None] * len(listeners)
        self._alive: set[Member] = set()  # those in slots, a successor that does not serve yet, and those that drain
        self._filling = [asyncio.Lock() for _ in listeners]  # who puts a worker into a slot
        self._restarting = asyncio.Lock()
        self._failures = [0] * len(listeners)
        self._count = 0
        self._stopping = False

    def send(self, message: ToWorker) -> None:
        for member in self._alive:
            member.send(message)

    async def start(self) -> None:
        """Returns when every worker accepts connections; SpillwayError when one does not."""
        for slot in range(len(self._slots)):
            self._slots[slot] = await self._started(slot)
        for member in list(self._alive):
            if not await member.serves(START_S):
                raise SpillwayError(f"a worker did not start within {START_S:.0f} s, or ended before it served")

    async def restart(self, drain_s: Seconds) -> None:
        """Rolling restart: each worker's successor accepts on the same socket before the worker drains. One after the other.

        Given up at the first successor that does not serve; the workers that run stay.
        """
        async with self._restarting:
            for slot in range(len(self._slots)):
                if self._stopping or not await self._succeed(slot, drain_s):
                    return
        self._log.info("the workers were restarted")

    async def stop(self, drain_s: Seconds) -> None:
        """All workers finish what runs, then exit."""
        self._stopping = True
        self.send(Drain(drain_s))
        await asyncio.gather(*(member.stop(drain_s + KILL_AFTER_S) for member in self._alive))

    async def watch(self) -> None:
        """Endless: a worker that hangs would keep its share of the connections; it is killed, and so replaced."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(WATCH_S)
            now = loop.time()
            stalled = now - looked_at > 2 * WATCH_S  # it was us who did not listen
            looked_at = now
            for member in self._alive:
                if stalled and member.heard_at is not None:
                    member.heard_at = now
                elif member.heard_at is not None and now - member.heard_at > SILENT_S:
                    self._log.error("a worker says nothing any more, it is killed", extra={"worker": member.name})
                    member.kill()

    async def _succeed(self, slot: int, drain_s: Seconds) -> bool:
        """Puts a new worker in the place of one; False where that does not work."""
        async with self._filling[slot]:
            old = self._slots[slot]
            try:
                successor = await self._started(slot)
            except OSError as error:
                self._log.error("no worker can be started, the rolling restart is given up: %s", error)
                return False
            if not await successor.serves(START_S):
                self._log.error("a new worker does not serve, the rolling restart is given up")
                await successor.stop(0.0)
                return False
            if successor not in self._alive:  # it served and ended
                self._log.error("a new worker ended at once, the rolling restart is given up")
                return False
            self._slots[slot] = successor
        if old is not None:
            old.send(Drain(drain_s))
            await old.stop(drain_s + KILL_AFTER_S)
        return True

    async def _started(self, slot: int) -> Member:
        """A new worker, which is not in its slot yet. OSError where the system gives no process."""
        self._count += 1
        member = Member(f"w{slot}-{self._count}", self._listeners[slot], self._heard, self._log)
        await member.start(self._begin(slot))
        self._alive.add(member)  # nothing was sent to the others since its first messages
        if self._stopping:
            member.send(Drain(0.0))
        self._tasks.create_task(self._follow(slot, member))
        return member

    async def _follow(self, slot: int, member: Member) -> None:
        started_at = asyncio.get_running_loop().time()
        status = await member.ended()
        self._alive.discard(member)
        died = (
            not self._stopping and self._slots[slot] is member
        )  # else a successor is in its place, or it never served
        self._retired(member.name, died=died)
        if not died:
            return
        self._log.error(
            "a worker ended by itself, another one is started", extra={"worker": member.name, "status": status}
        )
        if asyncio.get_running_loop().time() - started_at >= STABLE_S:
            self._failures[slot] = 0
        else:
            await self._back_off(slot)
        await self._replace(slot, member)

    async def _replace(self, slot: int, dead: Member) -> None:
        """Fills the slot of one that died, unless a rolling restart has done so."""
        while True:
            async with self._filling[slot]:
                if self._stopping or self._slots[slot] is not dead:
                    return
                try:
                    self._slots[slot] = await self._started(slot)
                    return
                except OSError as error:
                    self._log.error("no worker can be started: %s", error)
            await self._back_off(slot)

    async def _back_off(self, slot: int) -> None:
        await asyncio.sleep(min(FIRST_BACKOFF_S * 2 ** self._failures[slot], MAX_BACKOFF_S))
        self._failures[slot] = min(self._failures[slot] + 1, 10)
