"""Twins in memory of files, batches and their work. Held to the same contract suite as the databases."""

from collections.abc import Sequence
from typing import Any

import msgspec

from spillway.batch.jobs import Batch, FileRow, Group, Lease, Purpose, Shard, State, Sums
from spillway.batch.ports import Stored
from spillway.batch.states import OVER
from spillway.core.clock import Seconds
from spillway.core.errors import BadRequestError, ClashError
from spillway.core.ids import BatchId, FileId, TenantId

URGENT_S = 3600.0


class _Shard:
    def __init__(self, batch: BatchId, shard: Shard) -> None:
        self.batch = batch
        self.shard = shard
        self.state = "open"
        self.token = 0
        self.until_s: Seconds = 0.0
        self.stalls = 0
        self.suspect: int | None = None
        self.tries = 0
        self.sums = Sums()
        self.groups: dict[str, Group] = {}


class MemoryBatches:
    """`files`, `batches` and `work` of one memory, as `store.opening.Stores` has them."""

    def __init__(self) -> None:
        self.rows: dict[FileId, FileRow] = {}
        self.jobs: dict[BatchId, Batch] = {}
        self.leases: dict[BatchId, Seconds] = {}
        self.shards: dict[tuple[BatchId, int], _Shard] = {}
        self.files = MemoryFiles(self)
        self.batches = MemoryJobs(self)
        self.work = MemoryWork(self)

    def shown(self, job: Batch) -> Batch:
        if job.state in OVER:
            return job
        return msgspec.structs.replace(job, sums=_total([one.sums for one in self.of(job.id)]))

    def of(self, batch: BatchId) -> list[_Shard]:
        return [self.shards[key] for key in sorted(self.shards) if key[0] == batch]

    def replace(self, batch: Batch, *, release: bool) -> bool:
        held = self.jobs.get(batch.id)
        if held is None or held.revision != batch.revision:
            return False
        self.jobs[batch.id] = msgspec.structs.replace(batch, revision=batch.revision + 1)
        if release:
            self.leases[batch.id] = 0.0
        return True

    def reads(self, file: FileId) -> bool:
        return any(job.input_file == file and job.state not in OVER for job in self.jobs.values())


class MemoryFiles:
    """`batch.ports.Files` and `OldFiles`."""

    def __init__(self, memory: MemoryBatches) -> None:
        self._memory = memory

    async def add(self, row: FileRow) -> None:
        if row.id in self._memory.rows:
            raise ClashError("it is there")
        self._memory.rows[row.id] = row

    async def one(self, tenant: TenantId, file: FileId) -> FileRow | None:
        row = self._memory.rows.get(file)
        return row if row is not None and row.tenant == tenant else None

    async def page(
        self, tenant: TenantId, *, after: FileId | None, limit: int, ascending: bool, purpose: Purpose | None
    ) -> list[FileRow]:
        mine = [row for row in self._memory.rows.values() if row.tenant == tenant]
        rows = sorted(mine, key=lambda row: (row.created_at_s, row.id), reverse=not ascending)
        return [row for row in _behind(rows, after) if purpose in (None, row.purpose)][:limit]

    async def delete(self, tenant: TenantId, file: FileId) -> bool:
        if await self.one(tenant, file) is None:
            return False
        if self._memory.reads(file):
            raise ClashError("a batch reads it")
        del self._memory.rows[file]
        return True

    async def stored(self, tenant: TenantId) -> Stored:
        sizes = [row.size_bytes for row in self._memory.rows.values() if row.tenant == tenant]
        return Stored(len(sizes), sum(sizes))

    async def expired(self, now_s: Seconds, limit: int = 100) -> list[FileRow]:
        rows = self._memory.rows.values()
        old = [r for r in rows if r.expires_at_s is not None and r.expires_at_s <= now_s]
        return [row for row in old if not self._memory.reads(row.id)][:limit]


class MemoryJobs:
    """`batch.ports.Batches`."""

    def __init__(self, memory: MemoryBatches) -> None:
        self._memory = memory

    async def add(self, batch: Batch, *, most: int) -> None:
        if await self._memory.files.one(batch.tenant, batch.input_file) is None:
            raise ClashError("no such file")
        running = [job for job in self._memory.jobs.values() if job.tenant == batch.tenant and job.state not in OVER]
        if len(running) >= most:
            raise ClashError("too many")
        self._memory.jobs[batch.id] = batch

    async def one(self, tenant: TenantId, batch: BatchId) -> Batch | None:
        job = self._memory.jobs.get(batch)
        return self._memory.shown(job) if job is not None and job.tenant == tenant else None

    async def page(self, tenant: TenantId, *, after: BatchId | None, limit: int) -> list[Batch]:
        mine = [job for job in self._memory.jobs.values() if job.tenant == tenant]
        jobs = sorted(mine, key=lambda job: (job.created_at_s, job.id), reverse=True)
        return [self._memory.shown(job) for job in _behind(jobs, after)][:limit]

    async def save(self, batch: Batch) -> bool:
        return self._memory.replace(batch, release=True)


class MemoryWork:
    """`batch.ports.Work`."""

    def __init__(self, memory: MemoryBatches) -> None:
        self._memory = memory

    async def lease_batch(self, worker: str, now_s: Seconds, until_s: Seconds) -> Batch | None:
        memory = self._memory
        for job in sorted(memory.jobs.values(), key=lambda job: job.created_at_s):
            if memory.leases.get(job.id, 0.0) <= now_s and self._wants_a_step(job, now_s):
                memory.leases[job.id] = until_s
                memory.jobs[job.id] = msgspec.structs.replace(job, revision=job.revision + 1)
                return memory.jobs[job.id]
        return None

    def _wants_a_step(self, job: Batch, now_s: Seconds) -> bool:
        if job.state in (State.VALIDATING, State.FINALIZING, State.CANCELLING):
            return True
        unfinished = any(one.state == "open" for one in self._memory.of(job.id))
        return job.state is State.IN_PROGRESS and (job.expires_at_s <= now_s or not unfinished)

    async def renew_batch(self, batch: Batch, until_s: Seconds) -> bool:
        held = self._memory.jobs.get(batch.id)
        if held is None or held.revision != batch.revision:
            return False
        self._memory.leases[batch.id] = until_s
        return True

    async def save(
        self, batch: Batch, *, shards: Sequence[Shard] = (), files: Sequence[FileRow] = (), release: bool = True
    ) -> Batch | None:
        if not self._memory.replace(batch, release=release):
            return None
        self._memory.shards |= {(batch.id, shard.number): _Shard(batch.id, shard) for shard in shards}
        self._memory.rows |= {file.id: file for file in files}
        return self._memory.jobs[batch.id]

    async def close_shards(self, batch: BatchId) -> None:
        for one in self._memory.of(batch):
            if one.state == "open":
                one.state, one.token = "closed", one.token + 1

    async def lease_shard(self, worker: str, now_s: Seconds, until_s: Seconds) -> Lease | None:
        memory = self._memory
        taken: dict[TenantId, int] = {}
        waiting: list[tuple[Any, _Shard]] = []
        for one in memory.shards.values():
            job = memory.jobs[one.batch]
            if one.state == "open" and one.until_s > now_s:
                taken[job.tenant] = taken.get(job.tenant, 0) + 1
        for one in memory.shards.values():
            job = memory.jobs[one.batch]
            open_now = one.state == "open" and one.until_s <= now_s
            if open_now and job.state is State.IN_PROGRESS and job.expires_at_s > now_s:
                urgency = min(job.expires_at_s, now_s + URGENT_S)
                waiting.append(((urgency, taken.get(job.tenant, 0), job.created_at_s, job.id, one.shard.number), one))
        if not waiting:
            return None
        _, one = min(waiting, key=lambda entry: entry[0])
        one.token, one.stalls, one.until_s = one.token + 1, one.stalls + 1, until_s
        return Lease(memory.jobs[one.batch], one.shard, one.token, one.stalls, one.suspect, one.tries)

    async def renew_shards(self, leases: Sequence[Lease], until_s: Seconds) -> list[bool]:
        held = [self._held(lease) for lease in leases]
        for one in held:
            if one is not None:
                one.until_s = until_s
        return [one is not None for one in held]

    async def release_shard(self, lease: Lease) -> None:
        one = self._held(lease)
        if one is not None:
            one.until_s, one.stalls, one.suspect, one.tries = 0.0, one.stalls - 1, None, 0

    async def suspect(self, lease: Lease, line: int) -> int:
        one = self._held(lease)
        if one is None:
            return 0
        one.tries = one.tries + 1 if one.suspect == line else 1
        one.suspect = line
        return one.tries

    async def commit(self, lease: Lease, group: Group, sums: Sums) -> bool:
        one = self._held(lease)
        if one is None:
            return False
        if group.object in one.groups:
            raise ClashError("it is committed")
        one.groups[group.object] = group
        one.sums = _total([one.sums, sums])
        one.stalls, one.suspect, one.tries = 0, None, 0
        if one.sums.finished >= one.shard.lines:
            one.state = "done"
        return True

    async def groups(self, batch: BatchId, shard: int | None = None) -> list[Group]:
        shards = [one for one in self._memory.of(batch) if shard in (None, one.shard.number)]
        return [one.groups[name] for one in shards for name in sorted(one.groups)]

    async def shards(self, batch: BatchId) -> list[Shard]:
        return [one.shard for one in self._memory.of(batch)]

    async def forget(self, batch: BatchId) -> None:
        for one in self._memory.of(batch):
            del self._memory.shards[batch, one.shard.number]

    async def over(self, before_s: Seconds, limit: int = 100) -> list[BatchId]:
        ended = [(job.entered[job.state], job.id) for job in self._memory.jobs.values() if job.state in OVER]
        return [batch for at_s, batch in sorted(ended) if at_s < before_s][:limit]

    async def delete(self, batch: BatchId) -> None:
        await self.forget(batch)
        self._memory.jobs.pop(batch, None)

    def _held(self, lease: Lease) -> _Shard | None:
        one = self._memory.shards.get((lease.batch.id, lease.shard.number))
        return one if one is not None and one.token == lease.token and one.state == "open" else None


def _total(parts: list[Sums]) -> Sums:
    rows = [msgspec.structs.astuple(part) for part in parts]
    return Sums(*map(sum, zip(*rows, strict=True))) if rows else Sums()


def _behind(rows: list[Any], after: str | None) -> list[Any]:
    if after is None:
        return rows
    places = [index for index, row in enumerate(rows) if row.id == after]
    if not places:
        raise BadRequestError("there is no such thing", param="after")
    return rows[places[0] + 1 :]
