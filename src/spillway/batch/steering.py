"""What a batch needs beside its lines: to be checked and cut into shards, to be finished, expired or cancelled. Each step is leased, and
doing it twice changes nothing: a step that is saved with an old revision has not happened."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import msgspec

from spillway.batch.intake import Checked, Intake, check
from spillway.batch.jobs import Batch, Mistake, State, folder_of, object_of
from spillway.batch.output import EXPIRED, total_of, write_output
from spillway.batch.ports import Batches, Bills, Objects, OldFiles, Work
from spillway.batch.settings import Settings
from spillway.batch.states import moved
from spillway.core.clock import Clock
from spillway.core.errors import StoreError
from spillway.core.ids import BatchId, ModelName

CLEAN_S = 60.0

log = logging.getLogger(__name__)


class Steering:
    """`await run()` works until cancelled. `models`: the public names that there are now, and the models they stand for."""

    def __init__(
        self,
        worker: str,
        work: Work,
        batches: Batches,
        files: OldFiles,
        objects: Objects,
        bills: Bills,
        settings: Settings,
        models: Callable[[], Mapping[str, ModelName]],
        clock: Clock,
    ) -> None:
        self._worker = worker
        self._work = work
        self._batches = batches
        self._files = files
        self._objects = objects
        self._bills = bills
        self._settings = settings
        self._models = models
        self._clock = clock

    async def run(self) -> None:
        while True:
            try:
                if await self.step():
                    continue
            except StoreError as error:
                log.warning("batches cannot be steered now: %s", error)
            except Exception:  # of one batch: others wait too, and this one comes again when its lease ends
                log.exception("a batch could not be steered")
            await asyncio.sleep(self._settings.poll_s)

    async def clean(self) -> None:
        """Endless: files whose time is over go, and batches that were over long ago."""
        while True:
            try:
                await self.clean_once()
            except StoreError as error:
                log.warning("old files and batches stay for now: %s", error)
            await asyncio.sleep(CLEAN_S)

    async def clean_once(self) -> None:
        now_s = self._clock.wall()
        for file in await self._files.expired(now_s):
            if await self._files.delete(file.tenant, file.id):
                await self._objects.delete([object_of(file.id)])
        for batch in await self._work.over(now_s - self._settings.keep_s):
            await self._drop_results(batch)
            await self._work.delete(batch)

    async def step(self) -> bool:
        """One step of one batch. False: none waits for one."""
        now_s, lease_s = self._clock.wall(), self._settings.lease_s
        batch = await self._work.lease_batch(self._worker, now_s, now_s + lease_s)
        if batch is None:
            return False
        renewing = asyncio.create_task(self._renew(batch))
        try:
            await self._act(batch)
        finally:
            renewing.cancel()
        return True

    async def _renew(self, batch: Batch) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            try:
                await self._work.renew_batch(batch, self._clock.wall() + self._settings.lease_s)
            except StoreError:
                continue  # what is saved will say whether it still is ours

    async def _act(self, batch: Batch) -> None:
        if batch.state is State.VALIDATING:
            await self._validate(batch)
        elif batch.state is State.CANCELLING:
            await self._finish(batch, State.CANCELLED, None)
        elif batch.state is State.FINALIZING:
            await self._finish(batch, State.COMPLETED, None)
        elif await self._is_unfinished(batch):
            await self._finish(batch, State.EXPIRED, EXPIRED)
        else:
            finalizing = await self._work.save(moved(batch, State.FINALIZING, self._clock.wall()), release=False)
            if finalizing is not None:
                await self._finish(finalizing, State.COMPLETED, None)

    async def _validate(self, batch: Batch) -> None:
        intake = Intake(batch.endpoint, self._settings, self._models())
        try:
            checked = await check(self._objects.stream(object_of(batch.input_file)), intake)
        except FileNotFoundError:
            gone = Mistake("input_file_gone", "The input file is not there any more.")
            checked = Checked(0, (), (gone,), ())
        now_s = self._clock.wall()
        if checked.mistakes:
            failed = msgspec.structs.replace(moved(batch, State.FAILED, now_s), mistakes=checked.mistakes)
            await self._work.save(failed)
            return
        begun = moved(batch, State.IN_PROGRESS, now_s)
        await self._work.save(
            msgspec.structs.replace(begun, total=checked.lines, models=checked.models[:100]), shards=checked.shards
        )

    async def _is_unfinished(self, batch: Batch) -> bool:
        now = await self._batches.one(batch.tenant, batch.id)
        return now is not None and now.sums.finished < batch.total

    async def _finish(self, batch: Batch, to: State, rest: tuple[str, str] | None) -> None:
        """From here on nothing more can be committed; what was is delivered."""
        await self._work.close_shards(batch.id)
        now = await self._batches.one(batch.tenant, batch.id)
        if now is None or now.revision != batch.revision:
            return
        billed = await self._bills.billed(batch.id)
        written = await write_output(batch, self._work, self._objects, self._clock.wall(), rest=rest, billed=billed)
        names = self._models()
        await self._bills.ingest(
            [msgspec.structs.replace(bill, model=names.get(bill.model, bill.model)) for bill in written.unbilled]
        )
        over = msgspec.structs.replace(
            moved(batch, to, self._clock.wall()),
            sums=total_of(now.sums, written),
            output_file=None if written.output is None else written.output.id,
            error_file=None if written.errors is None else written.errors.id,
        )
        if await self._work.save(over, files=written.files) is not None:
            log.info("a batch is over", extra={"batch": batch.id, "state": to.value, "lines": batch.total})
            await self._drop_results(batch.id)

    async def _drop_results(self, batch: BatchId) -> None:
        """Of one that is over: its files have them. What is left here by a worker that dies now goes with the batch."""
        await self._work.forget(batch)
        await self._objects.delete(await self._objects.names(folder_of(batch)))
