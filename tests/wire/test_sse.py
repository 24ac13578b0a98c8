"""Events come out the same however the stream is cut, and chunks are known by what they carry."""

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.wire import sse

ENDS = [b"\n", b"\r\n", b"\r"]
STREAM = [
    (b"data: {}", b"{}"),
    (b": a comment", None),
    (b"event: x|data: a|data:b|data|id: 7", b"a\nb\n"),
    (b"data:  two spaces", b" two spaces"),
    (b"retry: 5", None),
    (b"datax: no", None),
    (b"data: [DONE]", b"[DONE]"),
]
DATA = [data for _, data in STREAM if data]


def text(end: bytes) -> bytes:
    return b"".join(event.replace(b"|", end) + end * 2 for event, _ in STREAM)


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_whole_text(end: bytes) -> None:
    assert list(sse.events(text(end))) == DATA
    raw = list(sse.raw_events(text(end)))
    assert len(raw) == len(STREAM)
    assert b"".join(raw) == text(end)
    assert sse.end_of_last_event(text(end)) == len(text(end))
    assert sse.end_of_last_event(text(end) + b"data: begun") == len(text(end))
    assert sse.end_of_last_event(b"data: begun" + end) == 0


def relayed(pieces: Iterable[bytes]) -> list[bytes]:
    """The data of a stream that comes in pieces, whole events at a time, as the relay takes it."""
    found: list[bytes] = []
    carried = b""
    for piece in pieces:
        carried += piece
        end = sse.end_of_last_event(carried)
        found += sse.events(carried[:end])
        carried = carried[end:]
    return [*found, *sse.events(carried)]


@given(st.sampled_from(ENDS), st.lists(st.integers(0, 200), max_size=12))
def test_any_cut_gives_the_same_events(end: bytes, cuts: list[int]) -> None:
    whole = text(end)
    edges = [0, *sorted({min(cut, len(whole)) for cut in cuts}), len(whole)]
    assert relayed(whole[start:stop] for start, stop in itertools.pairwise(edges)) == DATA


ENDS_AND_DATA = st.lists(st.sampled_from([b"\r", b"\n", b"data: a", b":c"]), max_size=30).map(b"".join)


@given(st.one_of(ENDS_AND_DATA, st.binary(max_size=80)), st.integers(0, 80))
def test_any_bytes_give_the_same_in_one_piece_and_in_two(stream: bytes, cut: int) -> None:
    assert relayed([stream]) == relayed([stream[:cut], stream[cut:]])


def test_error_event_is_one_event() -> None:
    assert list(sse.events(sse.error_event(b'{"error":{}}') + sse.DONE)) == [b'{"error":{}}', sse.DONE_DATA]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, False),
        ({"delta": {"role": "assistant", "content": None, "tool_calls": []}}, False),
        ({"delta": {}}, False),
        ({"delta": None}, False),
        ({"text": ""}, False),
        ({"delta": {"content": "a"}}, True),
        ({"delta": {"content": [{"type": "text", "text": "a"}]}}, True),
        ({"delta": {"tool_calls": [{"index": 0}]}}, True),
        ({"delta": {"function_call": {"name": "f"}}}, True),
        ({"delta": {"reasoning": "a"}}, True),
        ({"delta": {"reasoning_content": "a"}}, True),
        ({"delta": {"refusal": "no"}}, True),
        ({"delta": {}, "finish_reason": "stop"}, True),
        ({"text": "a", "finish_reason": None}, True),
        ({"text": "", "finish_reason": "length"}, True),
    ],
)
def test_content_of_a_chunk(choice: object, expected: bool) -> None:
    data = json.dumps({"id": "x", "choices": [choice], "usage": None}).encode()
    assert sse.has_content(data) is expected
    assert sse.has_content(b"data: " + data + b"\n\n") is expected
    assert not sse.is_usage_only(data)


@pytest.mark.parametrize(
    "data", [b"", b"[DONE]", b"{", b"[]", b'{"choices":1}', b'{"error":{}}', b'{"choices":[]}', b"\xff", b"null"]
)
def test_chunks_without_anything(data: bytes) -> None:
    assert not sse.has_content(data)
    assert not sse.is_usage_only(data)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"error": {"message": "x"}}, True),
        ({"id": "x", "choices": [], "error": {"code": 502}}, True),
        ({"id": "x", "error": "gone"}, True),
        ({"id": "x", "error": None}, False),
        ({"choices": [{"delta": {"content": '"error":{}', "error": {"code": 1}}}]}, False),
        ([{"error": {}}], False),
    ],
)
def test_an_error_is_one_wherever_it_stands(answer: object, expected: bool) -> None:
    data = json.dumps(answer).encode()
    assert sse.is_error(data) is expected
    assert sse.is_error(b"data: " + data + b"\n\n") is expected


def test_the_extra_chunk_with_usage() -> None:
    extra = {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    data = json.dumps(extra).encode()
    assert sse.is_usage_only(data)
    assert sse.is_usage_only(b"data: " + data + b"\r\n\r\n")
    assert not sse.has_content(data)
    assert not sse.is_usage_only(json.dumps({**extra, "usage": None}).encode())
    assert not sse.is_usage_only(json.dumps({**extra, "choices": [{"delta": {}}]}).encode())
