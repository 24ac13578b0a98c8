"""A real engine over HTTP: what it answers, exactly, and what it refuses."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from spillway.wire import engine_metrics
from tests.engine.conftest import EngineUnderTest, Json

pytestmark = pytest.mark.server

ITEM: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "rarity": {"enum": ["rare", "epic"]},
        "level": {"type": "integer", "minimum": 1, "maximum": 50},
    },
    "required": ["name", "rarity", "level"],
    "additionalProperties": False,
}


def as_schema(schema: Any) -> Json:
    return {"type": "json_schema", "json_schema": {"name": "item", "strict": True, "schema": schema}}


def message(answer: Json) -> str:
    return answer["choices"][0]["message"]["content"]


def test_it_knows_its_domain(engine: EngineUnderTest) -> None:
    status, answer = engine.chat("Describe the rare golden key.", temperature=0)
    assert status == 200
    assert "rare golden key" in message(answer)
    assert answer["choices"][0]["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_stream_says_the_same_as_a_whole_answer(engine: EngineUnderTest) -> None:
    _, whole = engine.chat(temperature=0)
    data = engine.stream(temperature=0, stream_options={"include_usage": True})
    assert data[-1] == b"[DONE]"
    chunks = [json.loads(one) for one in data[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == message(whole)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]


def test_an_unfinished_answer_goes_on(engine: EngineUnderTest) -> None:
    question = "Describe the rare golden key."
    _, whole = engine.chat(question, temperature=0)
    _, first = engine.chat(question, temperature=0, max_tokens=8)
    begun = [{"role": "user", "content": question}, {"role": "assistant", "content": message(first)}]
    fields = {"continue_final_message": True, "add_generation_prompt": False, "temperature": 0}
    status, rest = engine.chat(messages=begun, **fields)
    assert status == 200
    assert message(first) + message(rest) == message(whole)
    assert rest["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] + 8
    for wrong in ({"add_generation_prompt": True}, {"continue_final_message": False}, {"messages": begun[:1]}):
        status, said = engine.chat(**{"messages": begun, **fields, **wrong})
        assert (status, said["error"]["param"] in fields) == (400, True)


def test_lengths_are_exact(engine: EngineUnderTest) -> None:
    for wanted in (1, 2, 37):
        _, answer = engine.chat(max_tokens=wanted, ignore_eos=True)
        assert answer["usage"]["completion_tokens"] == wanted
        assert answer["choices"][0]["finish_reason"] == "length"
    _, answer = engine.chat(max_tokens=30, min_tokens=30)
    assert answer["usage"]["completion_tokens"] == 30


def test_prompts_are_counted_in_ids(engine: EngineUnderTest) -> None:
    _, answer = engine.complete([1, 3, 300, 301, 2, 4], max_tokens=2)
    assert answer["usage"]["prompt_tokens"] == 6
    assert answer["object"] == "text_completion"
    _, one = engine.chat(
        [{"type": "text", "text": "Describe the "}, {"type": "text", "text": "rare golden key."}], temperature=0
    )
    _, other = engine.chat("Describe the rare golden key.", temperature=0)
    assert one["usage"] == other["usage"]
    assert message(one) == message(other)


def test_special_tokens_of_users_are_text(engine: EngineUnderTest) -> None:
    """`<|end|>` typed by a user is seven characters: it costs several tokens, and the turn goes on behind it."""
    _, plain = engine.chat("hello", max_tokens=1)
    for written in ("<|end|>", "<|assistant|>", "<|end|><|system|>", "<<|end|>|end|>", "<|<|end|>"):
        _, answer = engine.chat("hello" + written, max_tokens=1)
        added = answer["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"]
        assert added >= 4 * written.count("|>"), written
    _, completed = engine.complete("<|end|>", max_tokens=1)
    assert completed["usage"]["prompt_tokens"] >= 4


def test_stop_strings_end_the_text_before_them(engine: EngineUnderTest) -> None:
    _, whole = engine.chat(temperature=0)
    text = message(whole)
    stop = text[20:27]  # crosses tokens
    _, answer = engine.chat(temperature=0, stop=[stop, "never there"])
    assert message(answer) == text[: text.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]
    data = engine.stream(temperature=0, stop=stop)
    told = "".join(json.loads(one)["choices"][0]["delta"].get("content", "") for one in data[:-1])
    assert told == message(answer)


def test_seeds_repeat_and_their_absence_does_not(engine: EngineUnderTest) -> None:
    """One after another: in batches of other sizes sums are rounded otherwise, and a near tie may fall otherwise."""

    def said(**fields: Any) -> str:
        return message(engine.chat("Write a quest in Ravenmoor with wolves.", temperature=1.0, **fields)[1])

    said(seed=11)  # afterwards the prompt is in the cache
    assert said(seed=11) == said(seed=11)
    assert len({said(seed=seed) for seed in range(6)}) > 1
    assert len({said() for _ in range(6)}) > 1


def test_penalties_change_what_is_said(engine: EngineUnderTest) -> None:
    _, plain = engine.chat(temperature=0, max_tokens=60, ignore_eos=True)
    _, other = engine.chat(temperature=0, max_tokens=60, ignore_eos=True, presence_penalty=2.0, frequency_penalty=2.0)
    assert message(plain) != message(other)


def test_characters_of_several_bytes_come_whole(engine: EngineUnderTest) -> None:
    for seed in range(3):
        data = engine.stream(max_tokens=120, ignore_eos=True, temperature=2.0, top_p=1.0, seed=seed)
        _, whole = engine.chat(max_tokens=120, ignore_eos=True, temperature=2.0, top_p=1.0, seed=seed)
        assert "".join(json.loads(one)["choices"][0]["delta"].get("content", "") for one in data[:-1]) == message(whole)


def test_many_at_once_get_each_their_own_answer(engine: EngineUnderTest) -> None:
    items = [
        f"{rarity} {adjective} {item}"
        for rarity in ("rare", "epic")
        for adjective in ("golden", "frozen", "silent")
        for item in ("key", "bow", "ring")
    ]
    with ThreadPoolExecutor(len(items)) as pool:
        answers = [pool.submit(engine.chat, f"Describe the {item}.", temperature=0) for item in items]
    for item, answer in zip(items, answers, strict=True):
        assert item in message(answer.result()[1])


def test_answers_keep_to_a_schema(engine: EngineUnderTest) -> None:
    for seed in range(4):
        status, answer = engine.chat("JSON item: rare frozen bow", response_format=as_schema(ITEM), seed=seed)
        assert status == 200
        made = json.loads(message(answer))
        assert set(made) == {"name", "rarity", "level"}
        assert made["rarity"] in ("rare", "epic")
        assert 1 <= made["level"] <= 50
    _, answer = engine.chat("JSON item: rare frozen bow", response_format={"type": "json_object"}, temperature=0)
    assert isinstance(json.loads(message(answer)), dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"$ref": "#/nope"},
        {"type": "integer", "minimum": 5, "maximum": 1},
        {"type": "integer", "minimum": 5, "exclusiveMaximum": 5},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "((a{99}){99}){99}"},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "uniqueItems": True},
        "text",
        [],
    ],
    ids=str,
)
def test_a_bad_schema_is_a_400_and_harms_nobody(engine: EngineUnderTest, schema: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        beside = pool.submit(engine.chat, max_tokens=200, ignore_eos=True)
        status, refused = engine.chat(response_format=as_schema(schema))
        assert (status, refused["error"]["code"]) == (400, "invalid_schema")
        assert beside.result()[0] == 200
    assert engine.chat(max_tokens=3)[0] == 200
    assert engine.metric("spillway_engine_rebuilds_total") == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "unsupported_value"),
        ({"logprobs": True}, "unsupported_value"),
        ({"n": 2}, "unsupported_value"),
        ({"logit_bias": {"5": 1}}, "unsupported_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}, "invalid_value"),
        ({"reasoning_effort": "low"}, "invalid_value"),
        ({"max_tokens": 2048}, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "quest " * 3000}]}, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x" * 3_000_000}]}, "context_length_exceeded"),
    ],
    ids=str,
)  # fmt: skip
def test_what_it_cannot_do_is_a_400(engine: EngineUnderTest, fields: Json, code: str) -> None:
    status, answer = engine.chat(**fields)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["code"] == code


def test_the_whole_context_can_be_used(engine: EngineUnderTest) -> None:
    _, probe = engine.chat(max_tokens=1)
    left = 2048 - probe["usage"]["prompt_tokens"]
    status, answer = engine.chat(max_tokens=left, ignore_eos=True)
    assert status == 200
    assert answer["usage"]["total_tokens"] == 2048
    assert engine.chat(max_tokens=left + 1)[0] == 400


def test_models_health_and_what_is_not_there(engine: EngineUnderTest) -> None:
    assert json.loads(engine.ask("GET", "/v1/models")[2])["data"][0]["id"] == "npc-1.9m"
    assert engine.ask("GET", "/health")[0] == 200
    assert engine.chat(model="gpt")[0] == 404
    assert engine.ask("GET", "/v1/embeddings")[0] == 404
    assert engine.announce("/v1/chat/completions", 5 << 20) == 413


def test_metrics_count_exactly(engine: EngineUnderTest) -> None:
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_count")
    before = [engine.metric(name) for name in names]
    answers = [engine.chat(max_tokens=9)[1]["usage"] for _ in range(3)]
    after = [engine.metric(name) for name in names]
    assert after[0] - before[0] == sum(usage["prompt_tokens"] for usage in answers)
    assert after[1] - before[1] == sum(usage["completion_tokens"] for usage in answers)
    assert after[2] - before[2] == 3
    load = engine_metrics.read(engine.ask("GET", "/metrics")[2])
    assert (load.running, load.waiting, load.kv_usage) == (0, 0, 0.0)


def test_the_official_client_is_content(engine: EngineUnderTest) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{engine.port}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model="npc-1.9m", messages=[{"role": "user", "content": "hello"}])
        assert answer.usage is not None
        assert answer.choices[0].message.content
        stream = client.chat.completions.create(
            model="npc-1.9m",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        assert chunks[-1].usage is not None
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="other", prompt="x")
        with pytest.raises(openai.BadRequestError, match="maximum context"):
            client.completions.create(model="npc-1.9m", prompt="x", max_tokens=5000)
