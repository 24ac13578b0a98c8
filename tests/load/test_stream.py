"""The scanner sees the same in a stream however it is cut, and is not misled by generated text."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spillway.load.stream import MAX_LINE_BYTES, StreamScanner, TokenCounts


def event(payload: object, *, compact: bool = True) -> bytes:
    separators = (",", ":") if compact else None
    return b"data: " + json.dumps(payload, separators=separators).encode() + b"\n\n"


def content(text: str) -> bytes:
    return event({"choices": [{"delta": {"content": text}, "finish_reason": None}], "usage": None})


ROLE = event({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
FINISH = event({"choices": [{"delta": {}, "finish_reason": "length"}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})
DONE = b"data: [DONE]\n\n"
WHOLE = (
    b": hello\n\n"
    + ROLE
    + content("a")
    + content('"usage":{"finish_reason":"x"} "error"')
    + content("\n")
    + FINISH
    + USAGE
    + DONE
)


def scanned(*pieces: bytes) -> StreamScanner:
    scanner = StreamScanner()
    for piece in pieces:
        scanner.feed(piece)
    scanner.end()
    return scanner


@given(st.lists(st.integers(0, len(WHOLE))).map(sorted), st.booleans())
@example(cuts=list(range(len(WHOLE))), crlf=True)
def test_a_stream_cut_anywhere(cuts: list[int], crlf: bool) -> None:
    pieces = [WHOLE[start:end] for start, end in zip([0, *cuts], [*cuts, len(WHOLE)], strict=True)]
    if crlf:
        pieces = [piece.replace(b"\n", b"\r\n") for piece in pieces]
    scanner = scanned(*pieces)
    assert scanner.content_events == 3
    assert scanner.finished
    assert scanner.done
    assert scanner.error is None
    assert scanner.usage() == TokenCounts(7, 3)


@given(st.text(min_size=1), st.booleans())
def test_generated_text_is_only_content(text: str, compact: bool) -> None:
    payload = {"choices": [{"delta": {"content": text}, "finish_reason": None}]}
    scanner = scanned(event(payload, compact=compact))
    assert scanner.content_events == 1
    assert not scanner.complete
    assert scanner.error is None
    assert scanner.usage() is None


@pytest.mark.parametrize(
    "payload",
    [
        {"choices": [{"text": "a"}]},
        {"choices": [{"delta": {"reasoning_content": "a"}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}]},
    ],
)
def test_what_counts_as_content(payload: object) -> None:
    scanner = StreamScanner()
    assert scanner.feed(event(payload))
    assert not scanner.feed(ROLE)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"error": {"message": "m", "type": "t", "param": None, "code": "kaputt"}}, "kaputt"),
        ({"error": {"message": "m", "type": "t", "code": None}}, "t"),
        ({"error": {"message": "m", "code": 503}}, "503"),
        ({"error": "gone"}, "in_band"),
        ({"error": {"code": "x" * 1000}}, "x" * 64),
    ],
)
def test_an_error_in_band(payload: object, code: str) -> None:
    assert scanned(content("a"), event(payload, compact=False)).error == code


def test_a_null_error_is_none() -> None:
    assert scanned(event({"choices": [], "error": None})).error is None


def test_a_malformed_event_is_passed_over() -> None:
    scanner = scanned(content("a"), b'data: {"error": {"usage":{ "finish_reason" \n\n', FINISH)
    assert (scanner.error, scanner.usage(), scanner.finished) == (None, None, True)


def test_the_end_of_the_stream_ends_its_last_line() -> None:
    assert scanned(content("a"), b"data: [DONE]").done


def test_a_line_without_end_is_bounded() -> None:
    scanner = StreamScanner()
    for _ in range(3):
        scanner.feed(b"x" * (MAX_LINE_BYTES // 2 + 1))
    assert scanner.malformed
    assert not scanner.feed(DONE)
    assert not scanner.done


def test_the_last_usage_counts() -> None:
    early = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}})
    assert scanned(early, content("a"), USAGE).usage() == TokenCounts(7, 3)
