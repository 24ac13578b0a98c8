"""The metrics text is what readers of vLLM expect, and the shapes of answers are what clients of OpenAI expect."""

import json

from hypothesis import given
from hypothesis import strategies as st

from spillway.engine.metrics import EngineMetrics
from spillway.engine.ports import Finish
from spillway.engine.shapes import Shape
from spillway.engine.stepper import Counters
from spillway.wire import engine_metrics, sse


def test_the_text_gives_the_load_to_a_reader_of_vllm() -> None:
    counters = Counters()
    counters.running, counters.kv_usage = 3, 0.25
    text = EngineMetrics('n"p\\c').text(counters, open_requests=5)
    load = engine_metrics.read(text)
    assert (load.running, load.waiting, load.kv_usage) == (3, 2, 0.25)


def test_histograms_count_upwards() -> None:
    metrics = EngineMetrics("npc")
    for after_s in (0.0005, 0.03, 0.03, 500.0):
        metrics.first_token(after_s)
    text = metrics.text(Counters(), open_requests=0).decode()
    buckets = [
        int(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("vllm:time_to_first_token_seconds_bucket")
    ]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-2], buckets[-1]) == (1, 3, 4)
    assert 'vllm:time_to_first_token_seconds_count{model_name="npc"} 4' in text


def test_ends_are_counted_by_reason() -> None:
    metrics = EngineMetrics("npc")
    for finish in (Finish.STOP, Finish.STOP, Finish.LENGTH, Finish.FAILED, None):
        metrics.ended(finish, 0.1)
    text = metrics.text(Counters(), open_requests=0).decode()
    assert 'request_success_total{model_name="npc",finished_reason="stop"} 2' in text
    assert 'unfinished_total{model_name="npc",reason="client_left"} 1' in text
    assert 'vllm:e2e_request_latency_seconds_count{model_name="npc"} 3' in text


def shape(*, is_chat: bool, include_usage: bool) -> Shape:
    return Shape(id='x"1', is_chat=is_chat, model="n\\p", created_s=7, prompt_tokens=4, include_usage=include_usage)


@given(st.text(), st.booleans(), st.booleans())
def test_events_are_json_around_any_text(text: str, is_chat: bool, include_usage: bool) -> None:
    text = text.encode(errors="replace").decode()
    made = shape(is_chat=is_chat, include_usage=include_usage)
    before, behind = made.frame()
    stream = made.opening() + before + json.dumps(text).encode() + behind + made.closing(Finish.LENGTH, 9)
    data = list(sse.events(stream))
    assert data.pop() == sse.DONE_DATA
    chunks = [json.loads(one) for one in data]
    usage = chunks.pop() if include_usage else None
    choices = [chunk["choices"][0] for chunk in chunks]
    told = [choice["delta"].get("content", "") if is_chat else choice["text"] for choice in choices]
    assert "".join(told) == text
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(chunks) - 1) + ["length"]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    if usage is not None:
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}


def test_bodies() -> None:
    chat = json.loads(shape(is_chat=True, include_usage=False).body("hi", Finish.STOP, 2))
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": "hi", "refusal": None}
    text = json.loads(shape(is_chat=False, include_usage=False).body("hi", Finish.LENGTH, 2))
    assert (text["object"], text["choices"][0]["text"], text["choices"][0]["finish_reason"]) == (
        "text_completion",
        "hi",
        "length",
    )
    assert text["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
