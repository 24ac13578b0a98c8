"""What a request may ask for, and that nothing it asks for is ignored."""

import json

import pytest

from spillway.core.errors import BadRequestError
from spillway.engine.model_folder import SamplingDefaults
from spillway.engine.openai import ANY_OBJECT, Ask, read_chat, read_completion

DEFAULTS = SamplingDefaults(temperature=0.7, top_p=0.9)


def chat(**fields: object) -> Ask:
    body = {"model": "npc", "messages": [{"role": "user", "content": "hi"}], **fields}
    return read_chat(json.dumps(body).encode(), DEFAULTS, seed=5)


def completion(**fields: object) -> Ask:
    body = {"model": "npc", "prompt": "hi", **fields}
    return read_completion(json.dumps(body).encode(), DEFAULTS, seed=5, vocabulary=100)


def test_the_model_s_own_sampling_holds_where_nothing_is_said() -> None:
    sampling = chat().sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.schema) == (0.7, 0.9, 5, None)
    assert chat(temperature=0).sampling.temperature == 0.0
    assert chat(temperature=1e-3).sampling.temperature == 0.01
    assert chat(seed=-1).sampling.seed == 2**63 - 1
    assert chat(seed=7).sampling.seed == 7


def test_both_names_of_the_length() -> None:
    assert chat().max_tokens is None
    assert chat(max_tokens=9).max_tokens == 9
    assert chat(max_tokens=9, max_completion_tokens=4).max_tokens == 4
    assert completion().max_tokens == 16


def test_contents_as_text_or_as_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]
    ask = chat(messages=messages)
    assert [(message.role, message.content) for message in ask.messages or []] == [("system", "s"), ("user", "ab")]


def test_stops_as_text_or_list() -> None:
    assert chat(stop="x").stops == ("x",)
    assert chat(stop=["x", "y", "x"]).stops == ("x", "y")
    assert chat(stop=None).stops == ()


def test_response_formats() -> None:
    assert chat(response_format={"type": "text"}).sampling.schema is None
    assert chat(response_format={"type": "json_object"}).sampling.schema == ANY_OBJECT
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}
    assert json.loads(chat(response_format=wanted).sampling.schema or "") == {"type": "object"}


def test_prompts_as_text_and_as_ids() -> None:
    assert completion(prompt="a").text == "a"
    assert completion(prompt=["a"]).text == "a"
    assert completion(prompt=[1, 99]).ids == [1, 99]


def test_words_that_ask_nothing_of_the_engine_pass() -> None:
    ask = chat(
        user="u",
        metadata={"a": "b"},
        service_tier="flex",
        store=False,
        n=1,
        tools=[],
        tool_choice="auto",
        logprobs=False,
    )
    assert ask.is_chat


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ""}, "stop"),
        ({"messages": []}, "messages"),
        ({"min_tokens": 9, "max_tokens": 3}, "min_tokens"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strin"}}}}, "response_format"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_by_name(fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        chat(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 3},
        {"top_p": 0},
        {"max_tokens": 0},
        {"presence_penalty": 5},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": "hi"},
        {"reasoning_effort": "high"},
        {"surprise": 1},
        {"stream": "yes"},
        {"model": None},
    ],
)
def test_what_it_does_not_understand_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadRequestError, match="cannot be understood"):
        chat(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"echo": True}, {"best_of": 3}, {"suffix": "x"}, {"logprobs": 1}, {"prompt": ["a", "b"]}, {"prompt": []},
        {"prompt": [100]}, {"prompt": [-1]}, {"prompt": [[1], [2]]},
    ],
)  # fmt: skip
def test_completions_refuse_as_well(fields: dict[str, object]) -> None:
    with pytest.raises(BadRequestError):
        completion(**fields)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "npc"}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_chat(body, DEFAULTS, seed=1)


def test_the_message_shows_nothing_that_was_written() -> None:
    canary = "canary-7f3a"
    with pytest.raises(BadRequestError) as caught:
        chat(messages=[{"role": "user", "content": {"oops": canary}}])
    assert canary not in str(caught.value)
