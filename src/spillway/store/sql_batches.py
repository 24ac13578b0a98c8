"""`batch.ports.Batches` and `batch.ports.Work` on a database.

Two numbers fence: a batch's `revision` grows with each lease and each change, a shard's `token` with each lease. Whatever is
written says which one it knows, in the statement that writes: a worker that slept past its lease changes nothing.
"""

import math
from collections.abc import Sequence

import msgspec

from spillway.batch.jobs import Batch, FileRow, Group, Lease, Shard, Sums
from spillway.batch.states import OVER
from spillway.core.clock import Seconds
from spillway.core.errors import BadRequestError, ClashError
from spillway.core.ids import BatchId, TenantId
from spillway.store.database import Connection, Database, Row, Value
from spillway.store.sql_files import put_file
from spillway.store.statements import statements

_SQL = statements("batches")
_INPUT = statements("files")["one"]
URGENT_S = 3600.0
"""A batch that ends within this time goes before the turns of tenants."""

_document = msgspec.json.Decoder(Batch).decode
_lines = msgspec.msgpack.Decoder(tuple[int, ...]).decode


class SqlBatches:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, batch: Batch, *, most: int) -> None:
        def work(connection: Connection) -> None:
            values = {"id": batch.input_file, "tenant": batch.tenant}
            if connection.execute(_INPUT, values).fetchone() is None:
                raise ClashError(f"There is no file {batch.input_file}.")
            running = connection.execute(_SQL["running"], {"tenant": batch.tenant}).fetchone()
            if running is not None and running[0] >= most:
                raise ClashError(f"{most} batches are not over yet: no more may be made.")
            connection.execute(_SQL["add"], _values(batch) | {"created_at_s": batch.created_at_s})

        await self._database.write(work)

    async def one(self, tenant: TenantId, batch: BatchId) -> Batch | None:
        return await self._database.read(lambda connection: _one(connection, tenant, batch))

    async def page(self, tenant: TenantId, *, after: BatchId | None, limit: int) -> list[Batch]:
        def work(connection: Connection) -> list[Batch]:
            begin = (math.inf, "")
            if after is not None:
                last = _one(connection, tenant, after)
                if last is None:
                    raise BadRequestError(f"There is no batch {after}.", param="after")
                begin = (last.created_at_s, last.id)
            values: dict[str, Value] = {"tenant": tenant, "after_s": begin[0], "after": begin[1], "limit": limit}
            found = [_batch(columns) for columns in connection.execute(_SQL["page"], values)]
            return [_summed(connection, one) for one in found]

        return await self._database.read(work)

    async def save(self, batch: Batch) -> bool:
        return await self._database.write(lambda connection: _save(connection, batch, release=True), alone=False)


class SqlWork:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease_batch(self, worker: str, now_s: Seconds, until_s: Seconds) -> Batch | None:
        values: dict[str, Value] = {"worker": worker, "now_s": now_s, "until_s": until_s}
        columns = await self._database.write(
            lambda connection: connection.execute(_SQL["lease_batch"], values).fetchone(), alone=False
        )
        return None if columns is None else _batch(columns)

    async def renew_batch(self, batch: Batch, until_s: Seconds) -> bool:
        values: dict[str, Value] = {"id": batch.id, "revision": batch.revision, "until_s": until_s}
        return await self._database.write(
            lambda connection: connection.execute(_SQL["renew_batch"], values).rowcount > 0, alone=False
        )

    async def save(
        self, batch: Batch, *, shards: Sequence[Shard] = (), files: Sequence[FileRow] = (), release: bool = True
    ) -> Batch | None:
        def work(connection: Connection) -> Batch | None:
            if not _save(connection, batch, release=release):
                return None
            connection.execute_rows(_SQL["add_shard"], [_shard_values(batch, shard) for shard in shards])
            for file in files:
                put_file(connection, file)
            return msgspec.structs.replace(batch, revision=batch.revision + 1)

        return await self._database.write(work, alone=False)

    async def close_shards(self, batch: BatchId) -> None:
        await self._database.write(
            lambda connection: connection.execute(_SQL["close_shards"], {"batch": batch}), alone=False
        )

    async def lease_shard(self, worker: str, now_s: Seconds, until_s: Seconds) -> Lease | None:
        values: dict[str, Value] = {
            "worker": worker, "now_s": now_s, "until_s": until_s, "urgent_s": now_s + URGENT_S,
        }  # fmt: skip

        def work(connection: Connection) -> Lease | None:
            columns = connection.execute(_SQL["lease_shard"], values).fetchone()
            if columns is None:
                return None
            batch, number, first, lines, offset, size_bytes, token, stalls, suspect, suspect_tries = columns
            found = connection.execute(_SQL["of_shard"], {"id": batch}).fetchone()
            assert found is not None  # its shards go with it
            shard = Shard(number, first, lines, offset, size_bytes)
            return Lease(_batch(found), shard, token, stalls, suspect, suspect_tries)

        return await self._database.write(work, alone=False)

    async def renew_shards(self, leases: Sequence[Lease], until_s: Seconds) -> list[bool]:
        def work(connection: Connection) -> list[bool]:
            return [
                connection.execute(_SQL["renew_shard"], _fence(lease) | {"until_s": until_s}).rowcount > 0
                for lease in sorted(leases, key=lambda lease: (lease.batch.id, lease.shard.number))
            ]

        kept = await self._database.write(work, alone=False)
        order = sorted(range(len(leases)), key=lambda index: (leases[index].batch.id, leases[index].shard.number))
        answer = [False] * len(leases)
        for index, held in zip(order, kept, strict=True):
            answer[index] = held
        return answer

    async def release_shard(self, lease: Lease) -> None:
        await self._database.write(
            lambda connection: connection.execute(_SQL["release_shard"], _fence(lease)), alone=False
        )

    async def suspect(self, lease: Lease, line: int) -> int:
        values = _fence(lease) | {"line": line}
        found = await self._database.write(
            lambda connection: connection.execute(_SQL["suspect"], values).fetchone(), alone=False
        )
        return 0 if found is None else int(found[0])

    async def commit(self, lease: Lease, group: Group, sums: Sums) -> bool:
        def work(connection: Connection) -> bool:
            values = _fence(lease) | msgspec.structs.asdict(sums) | {"finished": sums.finished}
            if connection.execute(_SQL["finish"], values).rowcount == 0:
                return False
            connection.execute(_SQL["add_group"], {
                "batch": lease.batch.id, "shard": group.shard, "object": group.object, "checksum": group.checksum,
                "lines": msgspec.msgpack.encode(group.lines),
            })  # fmt: skip
            return True

        return await self._database.write(work, alone=False)

    async def groups(self, batch: BatchId, shard: int | None = None) -> list[Group]:
        sql = _SQL["groups" if shard is None else "groups_of_shard"]
        values: dict[str, Value] = {"batch": batch} if shard is None else {"batch": batch, "shard": shard}
        return await self._database.read(
            lambda connection: [
                Group(number, name, checksum, _lines(lines))
                for number, name, checksum, lines in connection.execute(sql, values)
            ]
        )

    async def shards(self, batch: BatchId) -> list[Shard]:
        return await self._database.read(
            lambda connection: [Shard(*columns) for columns in connection.execute(_SQL["shards"], {"batch": batch})]
        )

    async def forget(self, batch: BatchId) -> None:
        def work(connection: Connection) -> None:
            connection.execute(_SQL["forget_groups"], {"batch": batch})
            connection.execute(_SQL["forget_shards"], {"batch": batch})

        await self._database.write(work, alone=False)

    async def over(self, before_s: Seconds, limit: int = 100) -> list[BatchId]:
        values: dict[str, Value] = {"before_s": before_s, "limit": limit}
        return await self._database.read(
            lambda connection: [BatchId(batch) for (batch,) in connection.execute(_SQL["over"], values)]
        )

    async def delete(self, batch: BatchId) -> None:
        await self._database.write(lambda connection: connection.execute(_SQL["delete"], {"id": batch}), alone=False)


def _one(connection: Connection, tenant: TenantId, batch: BatchId) -> Batch | None:
    columns = connection.execute(_SQL["one"], {"id": batch, "tenant": tenant}).fetchone()
    return None if columns is None else _summed(connection, _batch(columns))


def _batch(columns: Row) -> Batch:
    document, revision = columns
    return msgspec.structs.replace(_document(document), revision=revision)


def _summed(connection: Connection, batch: Batch) -> Batch:
    """With what its shards have finished, while there are any."""
    if batch.state in OVER:
        return batch
    sums = connection.execute(_SQL["sums"], {"batch": batch.id}).fetchone()
    return batch if sums is None else msgspec.structs.replace(batch, sums=Sums(*sums))


def _save(connection: Connection, batch: Batch, *, release: bool) -> bool:
    values = _values(batch) | {"release": int(release)}
    return connection.execute(_SQL["save"], values).rowcount > 0


def _values(batch: Batch) -> dict[str, Value]:
    return {
        "id": batch.id,
        "tenant": batch.tenant,
        "state": batch.state.value,
        "input_file": batch.input_file,
        "expires_at_s": batch.expires_at_s,
        "over_at_s": batch.entered.get(batch.state) if batch.state in OVER else None,
        "revision": batch.revision,
        "document": msgspec.json.encode(batch),
    }


def _shard_values(batch: Batch, shard: Shard) -> dict[str, Value]:
    return {
        "batch": batch.id,
        "number": shard.number,
        "tenant": batch.tenant,
        "first": shard.first,
        "lines": shard.lines,
        "file_offset": shard.offset,
        "size_bytes": shard.size_bytes,
    }


def _fence(lease: Lease) -> dict[str, Value]:
    return {"batch": lease.batch.id, "number": lease.shard.number, "token": lease.token}
