"""Usage is found at the end of an answer however it is cut, and text that a model wrote never passes for it."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.usage import Usage
from spillway.wire import usage_tail

REPORTED = {
    "prompt_tokens": 11,
    "completion_tokens": 5,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
}
USED = Usage(11, 5, 4)
FAKE = '{"usage": {"prompt_tokens": 999, "completion_tokens": 999}}'


def event(tree: object) -> bytes:
    return b"data: " + json.dumps(tree).encode() + b"\n\n"


def chunk(text: str) -> bytes:
    return event({"choices": [{"delta": {"content": text}}], "usage": None})


def test_whole_body() -> None:
    body = json.dumps({"choices": [{"message": {"content": FAKE}}], "usage": REPORTED}).encode()
    assert usage_tail.from_body(body) == USED
    assert usage_tail.from_tail([body]) == USED


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
        ({"prompt_tokens": 3, "completion_tokens": None, "prompt_tokens_details": None}, Usage(3, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {}}, Usage(3, 1)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(3, 1, 0)),
        ({"prompt_tokens": -3, "completion_tokens": 1}, None),
        ({"prompt_tokens": 2**60, "completion_tokens": 1}, None),
        ({"prompt_tokens": "3"}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_what_is_reported(reported: object, expected: Usage | None) -> None:
    tree = {"choices": [], "usage": reported}
    assert usage_tail.from_body(json.dumps(tree).encode()) == expected
    assert usage_tail.from_tail([event(tree), b"data: [DONE]\n\n"]) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}", b'{"usage"', b'{"usage":{'])
def test_nothing_reported(body: bytes) -> None:
    assert usage_tail.from_body(body) is None
    assert usage_tail.from_tail([body]) is None
    assert usage_tail.from_tail([]) is None


def test_text_of_a_model_is_not_usage() -> None:
    assert usage_tail.from_tail([chunk(FAKE), chunk('"usage"'), chunk('","usage":{"prompt_tokens":1}')]) is None
    assert usage_tail.from_tail([chunk(FAKE), event({"choices": [], "usage": REPORTED}), chunk(FAKE)]) == USED


def test_the_last_report_counts() -> None:
    earlier = event({"choices": [{"delta": {}}], "usage": {"prompt_tokens": 11, "completion_tokens": 1}})
    assert usage_tail.from_tail([earlier, event({"choices": [], "usage": REPORTED}), b"data: [DONE]\n\n"]) == USED


def test_the_end_of_a_large_body() -> None:
    body = json.dumps({"data": ["x" * 5000], "usage": REPORTED, "model": "m"}).encode()
    assert usage_tail.from_tail([body[-400:-200], body[-200:]]) == USED


@given(st.lists(st.integers(0, 300), max_size=5), st.text(max_size=20))
def test_any_cut(cuts: list[int], text: str) -> None:
    stream = chunk(text) + event({"choices": [], "usage": REPORTED}) + b"data: [DONE]\r\n\r\n"
    edges = [0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]
    assert usage_tail.from_tail([stream[a:b] for a, b in itertools.pairwise(edges)]) == USED


@given(st.binary(max_size=100))
def test_any_bytes(noise: bytes) -> None:
    usage = usage_tail.from_tail([b'data: {"usage":{' + noise, noise])
    assert usage is None or usage.prompt_tokens >= 0


@pytest.mark.parametrize(
    ("body", "written"),
    [
        (b'{"choices":[{"message":{"role":"assistant","content":"four words are here"}}]}', 21),
        (b'{"choices":[{"text":"abc"},{"text":"defg"}]}', 11),
        (b'{"choices":[{"message":{"content":null,"tool_calls":[{"id":"1"}]}}]}', 12),
        (b'{"choices":[{"message":{"content":"","reasoning_content":"hm"}}]}', 4),
        (b'{"choices":[{"message":null,"text":null}]}', 0),
        (b'{"data":[{"embedding":[0.1]}]}', 0),
        (b'{"choices":"none"}', 0),
        (b"no json", 0),
    ],
)
def test_how_much_a_model_wrote(body: bytes, written: int) -> None:
    assert usage_tail.written_bytes(body) == written
