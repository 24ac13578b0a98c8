"""Usage records as a Parquet file: whole or not at all, a page of records in memory at a time. Needs pyarrow (`spillway[export]`)."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spillway.core.errors import UsageError

SCHEMA = pa.schema(
    [
        pa.field("request", pa.string(), nullable=False),
        pa.field("finished_at_s", pa.float64(), nullable=False),
        pa.field("organization", pa.string(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.string()),
        pa.field("pool", pa.string()),
        pa.field("priority", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("spilled", pa.bool_(), nullable=False),
        pa.field("streamed", pa.bool_(), nullable=False),
        pa.field("prompt_tokens", pa.int64(), nullable=False),
        pa.field("cached_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64(), nullable=False),
        pa.field("estimated", pa.bool_(), nullable=False),
        pa.field("ttft_s", pa.float64()),
        pa.field("tpot_s", pa.float64()),
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("cost_nano_usd", pa.int64(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("repeat", pa.bool_(), nullable=False),
    ]
)


async def write_day(path: Path, pages: AsyncIterator[list[dict[str, object]]]) -> int:
    """How many records; of none there is no file. UsageError where the file is there already; OSError."""
    if path.exists():  # noqa: ASYNC240  nobody waits for anything else
        raise UsageError(f"{path} is there already")
    draft, count = path.with_name(f".{path.name}.{os.getpid()}"), 0
    try:
        with pq.ParquetWriter(draft, SCHEMA, compression="zstd") as writer:
            async for rows in pages:
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
                count += len(rows)
        if count:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count
