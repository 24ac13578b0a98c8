"""Blocks of very large inputs: pieces of JSONL files that end with a line, and row groups of Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from spillway.core.errors import UsageError
from spillway.wire.batch_lines import Line, read_line

BLOCK_BYTES = 1 << 20


class Block(msgspec.Struct, frozen=True):
    """`first`: the number of its first line. Of JSONL bytes [`offset`, `offset` + `size_bytes`), of Parquet the row group `offset`."""

    number: int
    path: str
    first: int
    lines: int
    offset: int
    size_bytes: int

    @property
    def is_parquet(self) -> bool:
        return self.path.endswith(".parquet")


def cut(path: Path, block_bytes: int = BLOCK_BYTES) -> list[Block]:
    """Of a JSONL file. UsageError where it cannot be read."""
    blocks: list[Block] = []
    try:
        with path.open("rb") as file:
            offset = first = 0
            for size_bytes, lines in _pieces(file, block_bytes):
                if lines:
                    blocks.append(Block(len(blocks), str(path.resolve()), first, lines, offset, size_bytes))
                offset += size_bytes
                first += lines
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    return blocks


def _pieces(file: BinaryIO, block_bytes: int) -> Iterator[tuple[int, int]]:
    """Size and number of lines of each piece."""
    while data := file.read(block_bytes):
        data += file.readline()
        yield len(data), sum(bool(line.strip()) for line in data.split(b"\n"))


def lines_in(block: Block, endpoint: str) -> Iterator[tuple[int, Line]]:
    """Of a JSONL block: each line with its number. BadRequestError for one that is no request."""
    with Path(block.path).open("rb") as file:
        file.seek(block.offset)
        data = file.read(block.size_bytes)
    number = block.first
    for text in data.split(b"\n"):
        if text.strip():
            yield number, read_line(text, endpoint)
            number += 1
