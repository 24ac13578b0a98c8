"""Prompts that begin alike share their first hashes, and no others."""

from hypothesis import given
from hypothesis import strategies as st

from spillway.wire import prefix
from spillway.wire.prefix import BLOCK_BYTES, MOST_BLOCKS

TEXT = bytes(range(256)) * (BLOCK_BYTES * (MOST_BLOCKS + 2) // 256)


def test_only_whole_blocks_count_and_only_so_many() -> None:
    assert prefix.chain(TEXT[: BLOCK_BYTES - 1], 7) == ()
    assert len(prefix.chain(TEXT[:BLOCK_BYTES], 7)) == 1
    assert len(prefix.chain(TEXT, 7)) == MOST_BLOCKS
    assert len(set(prefix.chain(TEXT, 7))) == MOST_BLOCKS  # equal blocks at other places are other beginnings


def test_another_seed_gives_other_hashes() -> None:
    assert set(prefix.chain(TEXT, 7)).isdisjoint(prefix.chain(TEXT, 8))


@given(st.integers(0, 4 * BLOCK_BYTES - 1))
def test_what_differs_shares_the_blocks_before(place: int) -> None:
    one = TEXT[: 4 * BLOCK_BYTES]
    other = one[:place] + bytes([one[place] ^ 1]) + one[place + 1 :]
    ours, theirs = prefix.chain(one, 7), prefix.chain(other, 7)
    alike = [left == right for left, right in zip(ours, theirs, strict=True)]
    assert alike == [block < place // BLOCK_BYTES for block in range(4)]
