"""A torn end costs the frame that is torn; damage costs the frames it touches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.conftest import MakeRecord

from spillway.core.usage import UsageRecord
from spillway.store.frames import MAX_FRAME_BYTES, Segment, read_segment, write_frame


@pytest.fixture
def frames(make_record: MakeRecord) -> list[list[UsageRecord]]:
    return [[make_record(f"req_{frame}_{number}") for number in range(frame + 1)] for frame in range(4)]


def written(frames: list[list[UsageRecord]]) -> bytes:
    return b"".join(map(write_frame, frames))


def test_what_was_written_is_read(frames: list[list[UsageRecord]]) -> None:
    expected = [record for frame in frames for record in frame]
    assert read_segment(written(frames)) == Segment(expected, torn=False, damaged=False)
    assert read_segment(b"") == Segment([], torn=False, damaged=False)


def test_every_cut_gives_the_frames_before_it(frames: list[list[UsageRecord]]) -> None:
    content = written(frames)
    ends = [len(written(frames[:count])) for count in range(5)]
    for cut in range(len(content)):
        segment = read_segment(content[:cut])
        whole = sum(1 for end in ends[1:] if end <= cut)
        assert segment.records == [record for frame in frames[:whole] for record in frame]
        assert segment.torn == (cut not in ends)
        assert not segment.damaged


def test_every_flipped_byte_is_noticed_and_costs_no_other_frame(frames: list[list[UsageRecord]]) -> None:
    content = written(frames)
    ends = [len(written(frames[:count])) for count in range(5)]
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        segment = read_segment(bytes(changed))
        assert segment.damaged or segment.torn
        hit = next(number for number, end in enumerate(ends[1:]) if place < end)
        before = [record for frame in frames[:hit] for record in frame]
        assert segment.records[: len(before)] == before
        if place - ends[hit] >= 4:  # not in its length: what follows can be found
            assert segment.records == before + [record for frame in frames[hit + 1 :] for record in frame]


def test_a_record_of_another_version_is_damage(frames: list[list[UsageRecord]]) -> None:
    content = written(frames).replace(b"attempts", b"attempt5", 1)
    assert read_segment(content).damaged


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_without_failing(content: bytes) -> None:
    segment = read_segment(content)
    assert segment.records == [] or not segment.torn


def test_a_length_beyond_any_frame_is_damage() -> None:
    content = (MAX_FRAME_BYTES + 1).to_bytes(4, "little") + b"\0" * 100
    assert read_segment(content) == Segment([], torn=False, damaged=True)
