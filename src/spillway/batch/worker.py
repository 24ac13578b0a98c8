"""A batch worker: leases shards, computes their lines, commits results; and steers batches. Any number may work on one store."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from spillway.batch.jobs import Lease
from spillway.batch.ports import Batches, Bills, Objects, OldFiles, Sender, Work
from spillway.batch.row import Row
from spillway.batch.settings import Settings
from spillway.batch.shard_run import LostLeaseError, ShardRun
from spillway.batch.steering import Steering
from spillway.batch.window import Window
from spillway.core.clock import Clock
from spillway.core.errors import StoreError
from spillway.core.ids import ModelName
from spillway.core.rng import Rng

AHEAD = 2
"""Lines in hand for each place at the gateway: enough that the end of a shard leaves no place empty."""

log = logging.getLogger(__name__)


class BatchWorker:
    """`await run(stopping)` works until the event is set, then gives back what is not finished."""

    def __init__(
        self,
        name: str,
        work: Work,
        batches: Batches,
        files: OldFiles,
        objects: Objects,
        bills: Bills,
        sender: Sender,
        settings: Settings,
        models: Callable[[], Mapping[str, ModelName]],
        clock: Clock,
        rng: Rng,
        continues: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`name`: of no other worker. `models`: the public names that there are now, and the models they stand for; `continues`: those that may come in slices."""
        self.window = Window(settings.in_flight)
        self._name = name
        self._work = work
        self._objects = objects
        self._settings = settings
        self._clock = clock
        self._row = Row(sender, self.window, settings, clock, rng, continues)
        self._steering = Steering(name, work, batches, files, objects, bills, settings, models, clock)
        self._runs: dict[asyncio.Task[None], ShardRun] = {}
        self._run_ended = asyncio.Event()

    async def run(self, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            endless = [
                tasks.create_task(work)
                for work in (self._steering.run(), self._steering.clean(), self._lease(tasks), self._renew())
            ]
            await stopping.wait()
            for task in (*endless, *self._runs):
                task.cancel()

    async def _lease(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            self._run_ended.clear()
            runs, lease = self._runs.values(), None
            if sum(run.left for run in runs) < AHEAD * self._settings.in_flight and not any(run.alone for run in runs):
                lease = await self._next()
            if lease is None:
                await self._wait()
                continue
            run = ShardRun(lease, self._work, self._objects, self._row, self._settings)
            task = tasks.create_task(self._follow(run))
            self._runs[task] = run
            task.add_done_callback(self._ended)

    async def _next(self) -> Lease | None:
        now_s = self._clock.wall()
        try:
            return await self._work.lease_shard(self._name, now_s, now_s + self._settings.lease_s)
        except StoreError as error:
            log.warning("no shard can be leased now: %s", error)
            return None

    async def _wait(self) -> None:
        """Until a run has ended, or for a moment."""
        try:
            async with asyncio.timeout(self._settings.poll_s):
                await self._run_ended.wait()
        except TimeoutError:
            pass

    async def _follow(self, run: ShardRun) -> None:
        try:
            while run.alone and len(self._runs) > 1:
                await self._wait()
            await run.run()
        except LostLeaseError:
            log.info("a shard was given on", extra={"batch": run.lease.batch.id, "shard": run.lease.shard.number})
        except StoreError as error:
            log.warning("a shard is given back: %s", error, extra={"batch": run.lease.batch.id})
            await self._release(run.lease)
        except asyncio.CancelledError:
            await self._release(run.lease)
            raise
        except (
            Exception
        ):  # a mistake of ours must not end what else runs: the shard counts a stall, and somebody tries again
            log.exception("a shard could not be worked on", extra={"batch": run.lease.batch.id})

    async def _release(self, lease: Lease) -> None:
        try:
            await self._work.release_shard(lease)
        except StoreError:
            log.info("a shard comes back when its lease ends", extra={"batch": lease.batch.id})

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            runs = list(self._runs.items())
            if not runs:
                continue
            try:
                kept = await self._work.renew_shards(
                    [run.lease for _, run in runs], self._clock.wall() + self._settings.lease_s
                )
            except StoreError as error:
                log.warning("leases cannot be renewed now: %s", error)
                continue
            for (task, run), held in zip(runs, kept, strict=True):
                if not held and run.left and task in self._runs:
                    task.cancel()  # its batch is over, or somebody else works on it: what it would bring counts nothing

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._runs.pop(task, None)
        self._run_ended.set()
