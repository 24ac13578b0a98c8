"""Files and batches at the counter: a worker serves `/v1/files` and `/v1/batches`, its parent has the database.

The worker's side (`RemoteFiles`, `RemoteBatches`) says what it wants in a message with a number; the parent's side (`Desk`) does it and
answers with the same number. An answer that does not come in time is StoreError: what was asked may have been done.
"""

import asyncio
from collections.abc import Callable
from typing import assert_never

import msgspec

from spillway.batch.jobs import Batch, FileRow, Purpose
from spillway.batch.ports import Batches, Files, Stored
from spillway.core.clock import Seconds
from spillway.core.errors import BadRequestError, ClashError, StoreError
from spillway.core.ids import BatchId, FileId, TenantId

ANSWER_S: Seconds = 15.0
MOST_WAITING = 1024


class AddFile(msgspec.Struct, frozen=True, tag=True):
    row: FileRow


class FindFile(msgspec.Struct, frozen=True, tag=True):
    tenant: TenantId
    file: FileId


class PageFiles(msgspec.Struct, frozen=True, tag=True):
    tenant: TenantId
    after: FileId | None
    limit: int
    ascending: bool
    purpose: Purpose | None


class DeleteFile(msgspec.Struct, frozen=True, tag=True):
    tenant: TenantId
    file: FileId


class StoredFiles(msgspec.Struct, frozen=True, tag=True):
    tenant: TenantId


class AddBatch(msgspec.Struct, frozen=True, tag=True):
    batch: Batch
    most: int


class FindBatch(msgspec.Struct, frozen=True, tag=True):
    tenant: TenantId
    batch: BatchId


class PageBatches(msgspec.Struct, frozen=True, tag=True):
    tenant: TenantId
    after: BatchId | None
    limit: int


class SaveBatch(msgspec.Struct, frozen=True, tag=True):
    batch: Batch


Wish = AddFile | FindFile | PageFiles | DeleteFile | StoredFiles | AddBatch | FindBatch | PageBatches | SaveBatch


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """Worker to parent."""

    number: int
    wish: Wish


class Done(msgspec.Struct, frozen=True, tag=True):
    """Parent to worker. What was asked for has one of these; `problem`: why it was not done, `kind` says whose it is."""

    number: int
    files: tuple[FileRow, ...] = ()
    batches: tuple[Batch, ...] = ()
    stored: Stored | None = None
    yes: bool = False
    problem: str = ""
    kind: str = ""  # request, clash, store
    param: str | None = None


class Desk:
    """The parent's side."""

    def __init__(self, files: Files, batches: Batches) -> None:
        self._files = files
        self._batches = batches

    async def serve(self, wanted: Wanted, answer: Callable[[Done], None]) -> None:
        try:
            done = await self._do(wanted.number, wanted.wish)
        except BadRequestError as error:
            done = Done(wanted.number, problem=str(error), kind="request", param=error.param)
        except ClashError as error:
            done = Done(wanted.number, problem=str(error), kind="clash")
        except StoreError as error:
            done = Done(wanted.number, problem=str(error), kind="store")
        answer(done)

    async def _do(self, number: int, wish: Wish) -> Done:
        match wish:
            case AddFile():
                await self._files.add(wish.row)
                return Done(number)
            case FindFile():
                return Done(number, files=_one(await self._files.one(wish.tenant, wish.file)))
            case PageFiles():
                rows = await self._files.page(
                    wish.tenant, after=wish.after, limit=wish.limit, ascending=wish.ascending, purpose=wish.purpose
                )
                return Done(number, files=tuple(rows))
            case DeleteFile():
                return Done(number, yes=await self._files.delete(wish.tenant, wish.file))
            case StoredFiles():
                return Done(number, stored=await self._files.stored(wish.tenant))
            case AddBatch():
                await self._batches.add(wish.batch, most=wish.most)
                return Done(number)
            case FindBatch():
                found = await self._batches.one(wish.tenant, wish.batch)
                return Done(number, batches=() if found is None else (found,))
            case PageBatches():
                page = await self._batches.page(wish.tenant, after=wish.after, limit=wish.limit)
                return Done(number, batches=tuple(page))
            case SaveBatch():
                return Done(number, yes=await self._batches.save(wish.batch))
            case _:
                assert_never(wish)


class Counter:
    """The worker's side: sends wishes, and hears what came of them."""

    def __init__(self, send: Callable[[Wanted], None]) -> None:
        self._send = send
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Done]] = {}

    def heard(self, done: Done) -> None:
        waiting = self._waiting.get(done.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(done)

    async def ask(self, wish: Wish) -> Done:
        if len(self._waiting) >= MOST_WAITING:
            raise StoreError("too much is asked of the store")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._send(Wanted(number, wish))
        try:
            async with asyncio.timeout(ANSWER_S):
                done = await answer
        except TimeoutError:
            raise StoreError("the store does not answer") from None
        finally:
            del self._waiting[number]
        if done.kind == "request":
            raise BadRequestError(done.problem, param=done.param)
        if done.kind:
            raise (ClashError if done.kind == "clash" else StoreError)(done.problem)
        return done


class RemoteFiles:
    """`batch.ports.Files` for a worker, as far as its API needs it."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def add(self, row: FileRow) -> None:
        await self._counter.ask(AddFile(row))

    async def one(self, tenant: TenantId, file: FileId) -> FileRow | None:
        return next(iter((await self._counter.ask(FindFile(tenant, file))).files), None)

    async def page(
        self, tenant: TenantId, *, after: FileId | None, limit: int, ascending: bool, purpose: Purpose | None
    ) -> list[FileRow]:
        return list((await self._counter.ask(PageFiles(tenant, after, limit, ascending, purpose))).files)

    async def delete(self, tenant: TenantId, file: FileId) -> bool:
        return (await self._counter.ask(DeleteFile(tenant, file))).yes

    async def stored(self, tenant: TenantId) -> Stored:
        return (await self._counter.ask(StoredFiles(tenant))).stored or Stored(0, 0)


class RemoteBatches:
    """`batch.ports.Batches` for a worker."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    async def add(self, batch: Batch, *, most: int) -> None:
        await self._counter.ask(AddBatch(batch, most))

    async def one(self, tenant: TenantId, batch: BatchId) -> Batch | None:
        return next(iter((await self._counter.ask(FindBatch(tenant, batch))).batches), None)

    async def page(self, tenant: TenantId, *, after: BatchId | None, limit: int) -> list[Batch]:
        return list((await self._counter.ask(PageBatches(tenant, after, limit))).batches)

    async def save(self, batch: Batch) -> bool:
        return (await self._counter.ask(SaveBatch(batch))).yes


def _one(row: FileRow | None) -> tuple[FileRow, ...]:
    return () if row is None else (row,)
