"""A leased shard on its way: its unfinished lines are computed, and committed in groups as they finish.

A line is finished when its group is committed. Where a shard has brought nothing in several leases, one of its lines may be what
ends the workers: then each is computed alone, and said to be before it is.
"""

import asyncio
import logging

from spillway.batch.groups import encoded, sums_of
from spillway.batch.intake import lines_of
from spillway.batch.jobs import Lease, Result, object_of
from spillway.batch.ports import Objects, Work
from spillway.batch.row import POISON, Row, unanswered
from spillway.batch.settings import Settings
from spillway.core.errors import ClashError, SpillwayError, StoreError
from spillway.wire.batch_lines import Line, read_line

CAREFUL_AFTER = 3  # leases in a row without a committed group
MOST_TRIES = 3  # of a line alone
_BACK_S = 0.5

log = logging.getLogger(__name__)


class LostLeaseError(SpillwayError):
    """The shard is somebody else's by now, or its batch is over."""


class ShardRun:
    """`left`: lines that are not finished, known once it runs. `alone`: nothing else may run beside it, for it may end its worker."""

    def __init__(self, lease: Lease, work: Work, objects: Objects, row: Row, settings: Settings) -> None:
        self.lease = lease
        self.left = lease.shard.lines
        self.alone = lease.stalls > CAREFUL_AFTER
        self._work = work
        self._objects = objects
        self._row = row
        self._settings = settings
        self._ready: list[Result] = []
        self._stirred = asyncio.Event()
        self._groups = 0

    async def run(self) -> None:
        """Returns when every line is finished. LostLeaseError, StoreError."""
        lines = await self._unfinished()
        self.left = len(lines)
        if self.alone:
            await self._one_by_one(lines)
        else:
            await self._together(lines)

    async def _unfinished(self) -> list[tuple[int, Line]]:
        """What comes next to each other begins alike, of the same model: engines remember beginnings."""
        batch, shard = self.lease.batch, self.lease.shard
        data = await self._objects.range(object_of(batch.input_file), shard.offset, shard.size_bytes)
        if data is None:
            raise StoreError(f"the input file of batch {batch.id} is gone")
        done = {line for group in await self._work.groups(batch.id, shard.number) for line in group.lines}
        lines = [(number, text) for number, text in enumerate(lines_of(data), shard.first) if number not in done]
        read = [(number, read_line(text, batch.endpoint)) for number, text in lines]
        return sorted(read, key=lambda one: (one[1].model, one[1].body))

    async def _together(self, lines: list[tuple[int, Line]]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for number, line in lines:
                    tasks.create_task(self._compute(number, line))
                while self.left:
                    await self._commit_next()
        except* LostLeaseError as group:
            raise LostLeaseError(str(group.exceptions[0])) from None

    async def _compute(self, number: int, line: Line) -> None:
        result = await self._row.compute(self.lease.batch, number, line)
        self._ready.append(result)  # not before: it is another list by now
        self._stirred.set()

    async def _commit_next(self) -> None:
        """Waits for a result, then a little for more."""
        await self._stirred.wait()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.group_s
        while len(self._ready) < min(self._settings.group_lines, self.left) and loop.time() < until:
            self._stirred.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._stirred.wait()
            except TimeoutError:
                break
        results, self._ready = self._ready[: self._settings.group_lines], self._ready[self._settings.group_lines :]
        if not self._ready:
            self._stirred.clear()
        await self._commit(results)

    async def _one_by_one(self, lines: list[tuple[int, Line]]) -> None:
        for number, line in lines:
            tries = await self._work.suspect(self.lease, number)
            if tries == 0:
                raise LostLeaseError("the lease was lost")
            if tries > MOST_TRIES:
                log.error("a line ends its worker each time", extra={"batch": self.lease.batch.id, "line": number})
                result = unanswered(number, line, *POISON)
            else:
                result = await self._row.compute(self.lease.batch, number, line)
            await self._commit([result])

    async def _commit(self, results: list[Result]) -> None:
        """Until it works, or the lease is lost: what was computed is worth more than what the store's absence costs."""
        group, data = encoded(self.lease, self._groups, results)
        self._groups += 1
        while True:
            try:
                await self._objects.put(group.object, data)
                committed = await self._work.commit(self.lease, group, sums_of(results))
                break
            except ClashError:  # an earlier try took effect without an answer
                committed = False
                break
            except StoreError as error:
                log.warning("results cannot be committed now: %s", error, extra={"batch": self.lease.batch.id})
                await asyncio.sleep(_BACK_S)
        if not committed and not await self._is_committed(group.object):
            await self._objects.delete([group.object])
            raise LostLeaseError("the lease was lost")
        self.left -= len(results)

    async def _is_committed(self, name: str) -> bool:
        lease = self.lease
        return any(group.object == name for group in await self._work.groups(lease.batch.id, lease.shard.number))
