"""What offline work needs from the floors above it. Every call may raise StoreError: it cannot be done now, ask again later."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from spillway.batch.jobs import Batch, FileRow, Group, Lease, Purpose, Shard, Sums
from spillway.core.clock import Seconds
from spillway.core.ids import BatchId, FileId, KeyId, TenantId
from spillway.core.usage import UsageRecord


class Stored(msgspec.Struct, frozen=True):
    """How much a tenant keeps."""

    files: int
    size_bytes: int


class Files(Protocol):
    """Files of tenants. Another tenant's file is not there."""

    async def add(self, row: FileRow) -> None: ...
    async def one(self, tenant: TenantId, file: FileId) -> FileRow | None: ...
    async def page(
        self, tenant: TenantId, *, after: FileId | None, limit: int, ascending: bool, purpose: Purpose | None
    ) -> list[FileRow]:
        """By the time they were made. BadRequestError where `after` is not there."""
        ...

    async def delete(self, tenant: TenantId, file: FileId) -> bool:
        """False: there is none. ClashError while a batch that is not over reads it."""
        ...

    async def stored(self, tenant: TenantId) -> Stored: ...


class OldFiles(Protocol):
    """Files whose time is over."""

    async def delete(self, tenant: TenantId, file: FileId) -> bool: ...
    async def expired(self, now_s: Seconds, limit: int = 100) -> list[FileRow]:
        """Those whose time is over and that no batch reads."""
        ...


class Batches(Protocol):
    """Batches as their tenants see them. `sums` is live."""

    async def add(self, batch: Batch, *, most: int) -> None:
        """ClashError where its input file is not there any more, or `most` batches of its tenant are not over."""
        ...

    async def one(self, tenant: TenantId, batch: BatchId) -> Batch | None: ...
    async def page(self, tenant: TenantId, *, after: BatchId | None, limit: int) -> list[Batch]:
        """Newest first. BadRequestError where `after` is not there."""
        ...

    async def save(self, batch: Batch) -> bool:
        """Puts it in the place of the one with its revision. False: that one has changed."""
        ...


class Work(Protocol):
    """The work of batches, as workers take and finish it."""

    async def lease_batch(self, worker: str, now_s: Seconds, until_s: Seconds) -> Batch | None:
        """One that waits for a step other than computing lines: to be validated, finished, expired or cancelled."""
        ...

    async def renew_batch(self, batch: Batch, until_s: Seconds) -> bool: ...
    async def save(
        self, batch: Batch, *, shards: Sequence[Shard] = (), files: Sequence[FileRow] = (), release: bool = True
    ) -> Batch | None:
        """As `Batches.save`, together with its shards and files. The batch with its new revision; None: it has changed meanwhile."""
        ...

    async def close_shards(self, batch: BatchId) -> None:
        """Nothing more can be committed to them."""
        ...

    async def lease_shard(self, worker: str, now_s: Seconds, until_s: Seconds) -> Lease | None:
        """One with unfinished lines that nobody works on. Tenants take turns; batches whose end is near go first."""
        ...

    async def renew_shards(self, leases: Sequence[Lease], until_s: Seconds) -> list[bool]:
        """False: the lease was lost."""
        ...

    async def release_shard(self, lease: Lease) -> None:
        """For others to go on with; it counts as no stall."""
        ...

    async def suspect(self, lease: Lease, line: int) -> int:
        """Says, before it is computed, which line is computed alone; how often that was said in a row. 0: the lease was lost."""
        ...

    async def commit(self, lease: Lease, group: Group, sums: Sums) -> bool:
        """The lines of the group are finished. False: the lease was lost, nothing has happened."""
        ...

    async def groups(self, batch: BatchId, shard: int | None = None) -> list[Group]: ...
    async def shards(self, batch: BatchId) -> list[Shard]: ...
    async def forget(self, batch: BatchId) -> None:
        """Shards and groups of one that is over."""
        ...

    async def over(self, before_s: Seconds, limit: int = 100) -> list[BatchId]:
        """Batches that were over before, oldest first."""
        ...

    async def delete(self, batch: BatchId) -> None: ...


class Bills(Protocol):
    """Who pays for what. A gateway writes a record for each line it answers, and may die before it is kept."""

    async def billed(self, batch: BatchId) -> frozenset[str]:
        """What has been billed of its lines, by the names of `jobs.item_of`."""
        ...

    async def ingest(self, records: Sequence[UsageRecord]) -> object:
        """A line that has a bill by now gets no other."""
        ...


class Objects(Protocol):
    """Bytes under names. What is written is there whole or not at all."""

    def writer(self, name: str) -> "AbstractAsyncContextManager[ObjectWriter]":
        """The object is there when the block ends without an exception."""
        ...

    async def put(self, name: str, data: bytes) -> None: ...
    async def get(self, name: str) -> bytes | None: ...
    async def range(self, name: str, offset: int, size_bytes: int) -> bytes | None: ...
    def stream(self, name: str) -> AsyncIterator[bytes]:
        """FileNotFoundError where there is none."""
        ...

    async def delete(self, names: Sequence[str]) -> None:
        """Those that are there."""
        ...

    async def names(self, folder: str) -> list[str]: ...


class ObjectWriter(Protocol):
    async def write(self, data: bytes) -> None: ...


class Reply(msgspec.Struct, frozen=True):
    """What the gateway said to a line. `status` 0: nothing, its connection failed; `body` says how."""

    status: int
    body: bytes
    request: str = ""
    retry_after_s: Seconds | None = None
    cost_nano_usd: int = 0
    pool: str = ""
    version: str = ""
    attempts: int = 1


class Sender(Protocol):
    """Sends lines to a gateway, in the name of a key."""

    async def send(self, key: KeyId, item: str, path: str, body: bytes, deadline_s: Seconds) -> Reply:
        """`item`: the line's name, under which it is billed once. `deadline_s`: from now; its answer is of no use later. Never raises
        for what a gateway does. Cancelling it cancels the request."""
        ...
