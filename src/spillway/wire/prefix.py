"""What two prompts have in common at their beginning, as numbers that tell nothing else of them.

Each hash is that of a block and of all before it, so that equal hashes mean equal beginnings. CRC-32 from a seed: 1 GB/s and more, and 32 bits of a
kilobyte give no text back. Two beginnings that are taken for equal by chance (1 in 4·10⁹) cost a cold prefix, no more.
"""

from zlib import crc32

BLOCK_BYTES = 1024
MOST_BLOCKS = 32


def chain(prompt: bytes | memoryview, seed: int) -> tuple[int, ...]:
    """Hashes of the whole leading blocks, shortest beginning first; at most MOST_BLOCKS. `seed`: 0 … 2³² − 1."""
    view = memoryview(prompt)
    end = min(view.nbytes, MOST_BLOCKS * BLOCK_BYTES)
    hashes: list[int] = []
    for start in range(0, end - BLOCK_BYTES + 1, BLOCK_BYTES):
        seed = crc32(view[start : start + BLOCK_BYTES], seed)
        hashes.append(seed)
    return tuple(hashes)
