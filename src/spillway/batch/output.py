"""Output: what is finished becomes two files, in the order of the input; one shard is in memory at a time."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from hashlib import blake2b

import msgspec

from spillway.batch.bills import bills
from spillway.batch.groups import decoded
from spillway.batch.intake import lines_of
from spillway.batch.jobs import Batch, FileRow, Group, Purpose, Result, Shard, Sums, object_of
from spillway.batch.ports import Objects, ObjectWriter, Work
from spillway.core.clock import Seconds
from spillway.core.ids import FileId
from spillway.core.usage import UsageRecord
from spillway.wire.batch_lines import answered_line, read_line, unanswered_line

NOTHING = b"null"
_LOST = ("result_lost", "The result of this request was lost before the batch ended.")
EXPIRED = ("batch_expired", "This request could not be executed before the completion window expired.")


class Written(msgspec.Struct, frozen=True):
    """`files`: those that hold anything, the output file first."""

    output: FileRow | None
    errors: FileRow | None
    lost: int  # lines whose result was there and cannot be read
    unbilled: tuple[UsageRecord, ...]  # bills of answers that have none

    @property
    def files(self) -> list[FileRow]:
        return [file for file in (self.output, self.errors) if file is not None]


async def write_output(
    batch: Batch,
    work: Work,
    objects: Objects,
    now_s: Seconds,
    *,
    rest: tuple[str, str] | None,
    billed: frozenset[str],
) -> Written:
    """Writes both files under names that belong to the batch: doing it twice writes the same. `rest`: what is said of lines that
    were not finished; None: nothing. `billed`: parts of lines that are paid for. May raise StoreError."""
    groups: dict[int, list[Group]] = {}
    for group in await work.groups(batch.id):
        groups.setdefault(group.shard, []).append(group)
    output, errors = _File(batch, "output", objects), _File(batch, "error", objects)
    lost, unbilled = 0, list[UsageRecord]()
    async with AsyncExitStack() as stack:
        for shard in await work.shards(batch.id):
            async for line in _lines(batch, shard, groups.get(shard.number, []), objects, rest):
                lost += line.result.code == _LOST[0]
                if line.result.ok:
                    unbilled += bills(batch, line.result, billed, now_s)
                await (output if line.result.ok else errors).write(stack, line.text)
    return Written(output.row(now_s), errors.row(now_s), lost, tuple(unbilled))


class _Line(msgspec.Struct):
    result: Result
    text: bytes


async def _lines(
    batch: Batch, shard: Shard, groups: list[Group], objects: Objects, rest: tuple[str, str] | None
) -> AsyncIterator[_Line]:
    found: dict[int, Result] = {}
    gone: set[int] = set()
    for group in groups:
        results = decoded(group, await objects.get(group.object))
        if results is None:
            gone.update(group.lines)
        else:
            found.update((result.line, result) for result in results)
    if len(found) < shard.lines and (gone or rest is not None):
        data = await objects.range(object_of(batch.input_file), shard.offset, shard.size_bytes) or b""
        for number, text in enumerate(lines_of(data), shard.first):
            why = _LOST if number in gone else rest
            if number not in found and why is not None:
                custom_id = read_line(text, batch.endpoint).custom_id
                found[number] = Result(number, custom_id, 0, "", NOTHING, *why)
    for number in sorted(found):
        yield _Line(found[number], rendered(batch, found[number]))


def rendered(batch: Batch, result: Result) -> bytes:
    """One line of an output or error file."""
    name = f"batch_req_{blake2b(f'{batch.id}/{result.line}'.encode(), digest_size=12).hexdigest()}"
    if result.status:
        return answered_line(name, result.custom_id, result.status, result.request, msgspec.Raw(result.body))
    return unanswered_line(name, result.custom_id, result.code, result.message)


class _File:
    """Made with its first line."""

    def __init__(self, batch: Batch, kind: str, objects: Objects) -> None:
        digest = blake2b(f"{batch.id}/{kind}".encode(), digest_size=12).hexdigest()
        self._id = FileId(f"file-{digest}")
        self._batch = batch
        self._kind = kind
        self._objects = objects
        self._size_bytes = 0
        self._writer: ObjectWriter | None = None

    async def write(self, stack: AsyncExitStack, text: bytes) -> None:
        if self._writer is None:
            self._writer = await stack.enter_async_context(self._objects.writer(object_of(self._id)))
        await self._writer.write(text)
        self._size_bytes += len(text)

    def row(self, now_s: Seconds) -> FileRow | None:
        if self._writer is None:
            return None
        batch = self._batch
        after_s = batch.output_expires_after_s
        return FileRow(
            id=self._id,
            tenant=batch.tenant,
            organization=batch.organization,
            purpose=Purpose.BATCH_OUTPUT,
            filename=f"{batch.id}_{self._kind}.jsonl",
            size_bytes=self._size_bytes,
            created_at_s=now_s,
            expires_at_s=None if after_s is None else now_s + after_s,
        )


def total_of(sums: Sums, written: Written) -> Sums:
    """A line whose result was lost did not complete."""
    return msgspec.structs.replace(sums, completed=sums.completed - written.lost, failed=sums.failed + written.lost)
