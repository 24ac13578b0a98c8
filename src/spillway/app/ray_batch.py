"""Very large inputs on a Ray cluster (`spillway[ray]`): blocks of lines on many machines, through the gateway, with the row function of all batches.

A block is finished when its output file is there under its own name, whole: what is begun again skips it, whoever began it before.
`DIR/output/NNNNNN.jsonl` and `DIR/errors/NNNNNN.jsonl` hold the lines in the order of the input. Every machine must see the input and DIR.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import ray
import ray.data

from spillway.app.system import SystemClock, SystemRng
from spillway.backends.gateway_lines import GatewayLines
from spillway.batch.blocks import Block, cut, lines_in
from spillway.batch.jobs import Batch, Result
from spillway.batch.output import rendered
from spillway.batch.row import Row
from spillway.batch.settings import Settings
from spillway.batch.window import Window
from spillway.core.errors import UsageError
from spillway.core.ids import BatchId, FileId, KeyId, OrganizationId, TenantId
from spillway.wire.batch_lines import Line

COLUMNS = ("custom_id", "body")
LONGEST_S = 30 * 86_400.0


class Task(msgspec.Struct, frozen=True):
    """What each worker of Ray is told."""

    gateway: str
    key: str
    endpoint: str
    folder: str
    name: str  # of the whole job: the same for the same input
    in_flight: int


class Outcome(msgspec.Struct, frozen=True):
    blocks: int
    skipped: int  # finished before
    completed: int
    failed: int


def blocks_of(path: Path) -> list[Block]:
    """UsageError for what is neither JSONL nor Parquet with the columns custom_id and body (JSON)."""
    if path.suffix != ".parquet":
        return cut(path)
    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not set(COLUMNS) <= set(file.schema_arrow.names):
        raise UsageError(f"{path} must have the columns {' and '.join(COLUMNS)}")
    blocks, first = list[Block](), 0
    for number in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(number).num_rows
        blocks.append(Block(number, str(path.resolve()), first, rows, number, 0))
        first += rows
    return blocks


def run(path: Path, task: Task, address: str | None, workers: int, done: Callable[[int], None]) -> Outcome:
    """Computes the blocks that are not finished. `address`: of the cluster; None: one of its own, on this machine. `done`: told how many
    lines each block brought."""
    folder = Path(task.folder)
    for name in ("output", "errors"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    blocks = blocks_of(path)
    left = [block for block in blocks if not _output_of(folder, block).exists()]
    completed = failed = 0
    if left:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        try:
            rows = [{"block": msgspec.json.encode(block), "task": msgspec.json.encode(task)} for block in left]
            ray.data.DataContext.get_current().enable_progress_bars = False
            data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                compute, concurrency=workers, num_cpus=1
            )
            for row in data.iter_rows():
                completed, failed = completed + row["completed"], failed + row["failed"]
                done(row["completed"] + row["failed"])
        finally:
            ray.shutdown()
    return Outcome(len(blocks), len(blocks) - len(left), completed, failed)


def compute(row: dict[str, Any]) -> dict[str, Any]:
    """One block, in a process of Ray."""
    block = msgspec.json.decode(row["block"], type=Block)
    task = msgspec.json.decode(row["task"], type=Task)
    results = asyncio.run(_compute(block, task))
    batch = _batch(task)
    folder = Path(task.folder)
    good = [rendered(batch, result) for result in results if result.ok]
    bad = [rendered(batch, result) for result in results if not result.ok]
    if bad:
        _write(folder / "errors" / f"{block.number:06d}.jsonl", bad)
    _write(_output_of(folder, block), good)  # last: it says that the block is finished
    return {"completed": len(good), "failed": len(bad)}


async def _compute(block: Block, task: Task) -> list[Result]:
    clock, window = SystemClock(), Window(task.in_flight)
    settings = Settings(in_flight=task.in_flight)

    async def key(_: KeyId) -> bytes | None:
        return task.key.encode()

    lines = GatewayLines([task.gateway], key, most=task.in_flight, answer_s=settings.answer_s, tls=None)
    try:
        row, batch = Row(lines, window, settings, clock, SystemRng()), _batch(task)
        return list(await asyncio.gather(*(row.compute(batch, number, line) for number, line in _lines(block, task))))
    finally:
        lines.close()


def _lines(block: Block, task: Task) -> Iterator[tuple[int, Line]]:
    if not block.is_parquet:
        yield from lines_in(block, task.endpoint)
        return
    table = pq.ParquetFile(block.path).read_row_group(block.offset, columns=list(COLUMNS))
    for number, one in enumerate(table.to_pylist(), block.first):
        body = one["body"].encode() if isinstance(one["body"], str) else one["body"]
        yield number, Line(one["custom_id"], msgspec.json.decode(body, type=dict[str, Any]).get("model", ""), body)


def _batch(task: Task) -> Batch:
    now_s = SystemClock().wall()
    return Batch(
        id=BatchId(task.name), tenant=TenantId(""), organization=OrganizationId(""), key=KeyId(""), endpoint=task.endpoint,
        input_file=FileId(""), window="", window_s=LONGEST_S, created_at_s=now_s, expires_at_s=now_s + LONGEST_S,
    )  # fmt: skip


def job_name(path: Path) -> str:
    return f"ray-{blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}"


def _output_of(folder: Path, block: Block) -> Path:
    return folder / "output" / f"{block.number:06d}.jsonl"


def _write(path: Path, lines: list[bytes]) -> None:
    """There whole, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(b"".join(lines))
    draft.replace(path)
