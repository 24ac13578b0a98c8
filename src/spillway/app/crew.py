"""The crew: the workers of a parent, each in a slot with a listening socket of its own. A slot is filled again when its worker dies."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Protocol

from spillway.app.member import Member
from spillway.app.messages import Drain, Told, ToWorker
from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
STABLE_S = 10.0  # a worker that lived this long is replaced at once
START_S = 20.0  # longest time from the start of a worker to its `Serving`
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
        told: Callable[[Member, Told], None],
        closed_segment: Callable[[str], None],
        retired: Retired,
        log: logging.Logger,
    ) -> None:
        self._listeners = listeners
        self._tasks = tasks
        self._begin = begin
        self._told = told
        self._closed_segment = closed_segment
        self._retired = retired
        self._log = log
        self._slots: list[Member | None] = [None] * len(listeners)
        self._failures = [0] * len(listeners)
        self._count = 0
        self._stopping = False

    @property
    def members(self) -> list[Member]:
        return [member for member in self._slots if member is not None]

    def send(self, message: ToWorker) -> None:
        for member in self.members:
            member.send(message)

    async def start(self) -> None:
        """Returns when every worker accepts connections; SpillwayError when one does not in time."""
        for slot in range(len(self._slots)):
            await self._fill(slot)
        await self._all_serving(self.members)

    async def restart(self, drain_s: Seconds) -> None:
        """Rolling restart: each worker's successor accepts on the same socket before the worker drains. One after the other."""
        for slot, old in enumerate(list(self._slots)):
            successor = await self._fill(slot)
            await self._all_serving([successor])
            if old is not None:
                old.send(Drain(drain_s))
                await old.stop(drain_s + KILL_AFTER_S)

    async def stop(self, drain_s: Seconds) -> None:
        """All workers finish what runs, then exit."""
        self._stopping = True
        members = self.members
        self.send(Drain(drain_s))
        await asyncio.gather(*(member.stop(drain_s + KILL_AFTER_S) for member in members))

    async def _fill(self, slot: int) -> Member:
        self._count += 1
        member = Member(f"w{slot}-{self._count}", self._listeners[slot], self._told, self._closed_segment, self._log)
        await member.start(self._begin(slot))
        self._slots[slot] = member
        self._tasks.create_task(self._follow(slot, member))
        return member

    async def _follow(self, slot: int, member: Member) -> None:
        started_at = asyncio.get_running_loop().time()
        status = await member.ended()
        died = not self._stopping and self._slots[slot] is member  # else a rolling restart put a successor here
        self._retired(member.name, died=died)
        if not died:
            return
        self._log.error(
            "a worker ended by itself, another one is started", extra={"worker": member.name, "status": status}
        )
        if asyncio.get_running_loop().time() - started_at >= STABLE_S:
            self._failures[slot] = 0
        else:
            await asyncio.sleep(min(FIRST_BACKOFF_S * 2 ** self._failures[slot], MAX_BACKOFF_S))
            self._failures[slot] = min(self._failures[slot] + 1, 10)
        if not self._stopping:
            await self._fill(slot)

    async def _all_serving(self, members: list[Member]) -> None:
        try:
            async with asyncio.timeout(START_S):
                for member in members:
                    await member.serving.wait()
        except TimeoutError:
            raise SpillwayError(f"a worker did not start within {START_S:.0f} s") from None
