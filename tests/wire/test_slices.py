"""Long generations in slices: what may be cut, and that the pieces make the whole."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.wire.slices import Slices, sliced


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "tell"}], **fields}).encode()


def answer(text: str, tokens: int, reason: str, prompt: int = 5) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 100}, {"max_tokens": 500, "seed": 3}, {"max_tokens": 500, "tools": [{}]}, {"max_tokens": 500, "n": 2},
        {"max_tokens": 500, "logprobs": True}, {"max_tokens": 500, "stop": ["x"]}, {"max_completion_tokens": 100},
        {"max_tokens": 500, "response_format": {"type": "json_object"}}, {"max_tokens": 500, "messages": 3}, {"max_tokens": "x"},
    ],
)  # fmt: skip
def test_what_is_not_cut(fields: dict[str, Any]) -> None:
    assert sliced(body(**fields), 100) is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"max_tokens": 101},
        {"max_completion_tokens": 101},
        {"n": 1, "seed": None, "tools": [], "logprobs": False, "stop": None},
    ],
)
def test_what_is_cut(fields: dict[str, Any]) -> None:
    assert sliced(body(**fields), 100) is not None


def play(slices: Slices, words: list[str], each: int, most: int | None) -> list[dict[str, Any]]:
    """An engine that says these words, one a token, and goes on where an unfinished message ends."""
    asked: list[dict[str, Any]] = []
    while True:
        request = json.loads(slices.next_body())
        asked.append(request)
        said = 0
        if request["messages"][-1]["role"] == "assistant":
            assert (request["continue_final_message"], request["add_generation_prompt"]) == (True, False)
            said = len(request["messages"][-1]["content"].split())
        now = words[said : said + request["max_tokens"]]
        ended = said + len(now) == len(words)
        if slices.took(answer("".join(f"{word} " for word in now), len(now), "stop" if ended else "length", 5 + said)):
            return asked


@given(length=st.integers(1, 60), each=st.integers(1, 20), most=st.none() | st.integers(1, 80))
def test_the_pieces_make_the_whole(length: int, each: int, most: int | None) -> None:
    words = [f"w{number}" for number in range(length)]
    slices = sliced(body(temperature=0.5, **({} if most is None else {"max_tokens": most})), each)
    if slices is None:
        assert most is not None
        assert most <= each
        return
    asked = play(slices, words, each, most)
    whole = json.loads(slices.whole())
    wanted = words if most is None else words[:most]
    assert whole["choices"][0]["message"]["content"].split() == wanted
    assert whole["choices"][0]["finish_reason"] == ("stop" if len(wanted) == length else "length")
    assert whole["usage"] == {"prompt_tokens": 5, "completion_tokens": len(wanted), "total_tokens": 5 + len(wanted)}
    assert all(request["temperature"] == 0.5 and request["max_tokens"] <= each for request in asked)


@pytest.mark.parametrize("said", [b"", b"{}", b'{"choices": []}', answer("", 0, "length"), answer("", 3, "length")])
def test_what_cannot_be_gone_on_with_ends_it(said: bytes) -> None:
    slices = sliced(body(), 10)
    assert slices is not None
    assert slices.took(said)
