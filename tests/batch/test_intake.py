"""Input files: whatever pieces they come in, shards hold their lines and mistakes have their lines."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from spillway.batch.intake import Checked, Intake, lines_of
from spillway.batch.settings import BatchLimits, Settings
from spillway.wire.batch_lines import read_line

CHAT = "/v1/chat/completions"
SETTINGS = Settings(shard_lines=3, shard_bytes=600, limits=BatchLimits(lines=50, line_bytes=500))


def text(number: int, filling: int = 0) -> bytes:
    body = {"model": "npc", "messages": [{"role": "user", "content": "x" * filling}]}
    return json.dumps({"custom_id": f"id-{number}", "method": "POST", "url": CHAT, "body": body}).encode()


def checked(content: bytes, cuts: list[int] | None = None, settings: Settings = SETTINGS) -> Checked:
    intake = Intake(CHAT, settings, frozenset({"npc"}))
    at = 0
    for cut in sorted({cut % (len(content) + 1) for cut in cuts or []}):
        intake.take(content[at:cut])
        at = cut
    intake.take(content[at:])
    return intake.end()


@given(
    fillings=st.lists(st.integers(0, 300), min_size=1, max_size=40),
    blanks=st.lists(st.integers(0, 40), max_size=6),
    cuts=st.lists(st.integers(0, 20_000), max_size=12),
    ends_with_newline=st.booleans(),
)
def test_shards_hold_all_lines_in_order_once(
    fillings: list[int], blanks: list[int], cuts: list[int], ends_with_newline: bool
) -> None:
    wanted = [text(number, filling) for number, filling in enumerate(fillings)]
    written = list(wanted)
    for place in sorted(blanks, reverse=True):
        written.insert(min(place, len(written)), b"  ")
    content = b"\n".join(written) + (b"\n" if ends_with_newline else b"")
    found = checked(content, cuts)
    assert (found.mistakes, found.lines, found.models) == ((), len(wanted), ("npc",))
    cut_out: list[bytes] = []
    for shard in found.shards:
        lines = lines_of(content[shard.offset : shard.offset + shard.size_bytes])
        assert (shard.first, shard.lines) == (len(cut_out), len(lines))
        assert 1 <= len(lines) <= SETTINGS.shard_lines
        cut_out += lines
    assert cut_out == wanted
    assert [shard.number for shard in found.shards] == list(range(len(found.shards)))


@given(content=st.binary(max_size=2000), cuts=st.lists(st.integers(0, 2000), max_size=5))
def test_anything_at_all_is_understood_or_has_a_mistake_with_a_line(content: bytes, cuts: list[int]) -> None:
    found = checked(content, cuts)
    assert found == checked(content)
    assert bool(found.mistakes) != bool(found.shards)
    assert all(one.line is None or 1 <= one.line <= content.count(b"\n") + 1 for one in found.mistakes)


def test_mistakes_have_their_lines_and_are_bounded() -> None:
    content = b"\n".join([text(0), b"", b"{", text(0), text(1), b'{"custom_id": 3}'])
    found = checked(content)
    assert [(one.code, one.line) for one in found.mistakes] == [
        ("invalid_json_line", 3),
        ("duplicate_custom_id", 4),
        ("invalid_request", 6),
    ]
    assert len(checked(b"{\n" * 1000, settings=Settings()).mistakes) == 100


def test_a_line_without_an_end_is_not_kept_in_memory() -> None:
    intake = Intake(CHAT, SETTINGS, None)
    for _ in range(10):
        intake.take(b"x" * 300)
    found = intake.end()
    assert [(one.code, one.line) for one in found.mistakes] == [("line_too_long", 1)]
    assert intake.gave_up


def test_the_body_travels_as_it_was_written() -> None:
    body = b'{"model":"npc", "temperature": 1.0,"messages":[],"x":"\\u00e9"}'
    line = read_line(b'{"custom_id":"a","method":"POST","url":"%b","body":%b}' % (CHAT.encode(), body), CHAT)
    assert (line.body, line.model) == (body, "npc")
    assert msgspec.json.decode(line.body)["temperature"] == 1.0
