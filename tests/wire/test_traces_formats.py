"""Each format of traces says what its columns say, and no line, however damaged, stops the reading."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.priority import Priority
from spillway.wire.traces import MAX_TOKENS, TraceError, TraceRecord
from spillway.wire.traces_formats import LOOKED_AT, read_trace

BURSTGPT = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
OLDER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
GOOD = {
    "azure": ["TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 18:17:03.5,7,3"],
    "burstgpt": [BURSTGPT, "5,9,1.5,ChatGPT,472,18,490,Conversation log"],
    "mooncake": ['{"timestamp": 1, "input_length": 3, "output_length": 1}'],
    "bailian": ['{"chat_id": 1, "timestamp": 1.0, "input_length": 3, "output_length": 1, "hash_ids": []}'],
    "own": ['{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1}'],
}
WRONG = [
    "{",
    '{"at_s": 1.0, "input_tokens": 3',
    '{"at_s": NaN, "input_tokens": 3, "output_tokens": 1}',
    '{"at_s": 1e300, "input_tokens": 3, "output_tokens": 1}',
    '{"at_s": 1.0, "input_tokens": -3, "output_tokens": 1}',
    '{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1' + "0" * 30 + "}",
    '{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1, "block_tokens": 0}',
    '{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1, "deadline_s": -1}',
    '{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1, "priority": "urgent"}',
    '{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1, "tenant": ' + "[" * 100_000,
    '{"timestamp": -1e20, "input_length": 3, "output_length": 1}',
    f'{{"chat_id": 1, "timestamp": 1.0, "input_length": {MAX_TOKENS + 1}, "output_length": 1}}',
    "5,9,1.5,ChatGPT,472,18,490",
    "nan,9,1.5,ChatGPT,472,18,490,Conversation log",
    "inf,9,1.5,ChatGPT,472,18,490,Conversation log",
    "5,9,1.5,ChatGPT,472,-18,490,Conversation log",
    "5,9,1.5,ChatGPT,472,0,472,Conversation log",
    "5,9,1.5,ChatGPT," + "9" * 5000 + ",18,490,Conversation log",
    "0000-00-00 00:00:00,1,1",
    "\x00\xff\ufffd\ud800",
    "x" * 10_000_000,
]


def test_burstgpt() -> None:
    trace = read_trace(
        [
            BURSTGPT,
            "5,9,1.5,ChatGPT,472,18,490,Conversation log",
            "45.25,,3.0,GPT-4,1087,230,1317,API log\r\n",
            "118,,0,GPT-4,417,0,417,API log",
        ]
    )
    assert trace.records == [
        TraceRecord(0.0, 472, 18, model="ChatGPT", session="9"),
        TraceRecord(40.25, 1087, 230, model="GPT-4"),
    ]
    assert [(bad.number, "failed" in bad.reason) for bad in trace.first_bad] == [(4, True)]


def test_burstgpt_without_sessions() -> None:
    trace = read_trace([OLDER, "5,ChatGPT,472,18,490,Conversation log"])
    assert trace.records == [TraceRecord(0.0, 472, 18, model="ChatGPT")]


def test_bailian() -> None:
    lines = [
        {"chat_id": 5, "parent_chat_id": -1, "timestamp": 1.0, "input_length": 40, "output_length": 9, "hash_ids": [1, 2, 3]},
        {"chat_id": 8, "parent_chat_id": 5, "timestamp": 3.5, "input_length": 60, "output_length": 7, "hash_ids": [1, 2, 3, 4]},
        {"chat_id": 9, "parent_chat_id": 8, "timestamp": 4.5, "input_length": 70, "output_length": 7, "hash_ids": [1]},
        {"chat_id": 10, "parent_chat_id": 77, "timestamp": 5.0, "input_length": 7, "output_length": 7, "hash_ids": []},
    ]  # fmt: skip
    more = {"type": "text", "turn": 2}
    trace = read_trace([json.dumps(line | more) for line in lines])
    assert trace.records[0] == TraceRecord(0.0, 40, 9, (1, 2, 3), 16, session="5")
    assert [record.session for record in trace.records] == ["5", "5", "5", "10"]
    assert [record.offset_s for record in trace.records] == [0.0, 2.5, 3.5, 4.0]


def test_our_own() -> None:
    whole = {
        "at_s": 2.5, "input_tokens": 900, "output_tokens": 40, "model": "npc", "tenant": "t", "organization": "o", "user": "u",
        "session": "s", "priority": "realtime", "region": "eu", "deadline_s": 3.0, "prefix": [7, 8], "block_tokens": 64,
    }  # fmt: skip
    trace = read_trace(['{"at_s": 1, "input_tokens": 3, "output_tokens": 1}', json.dumps(whole)])
    assert trace.records == [
        TraceRecord(0.0, 3, 1),
        TraceRecord(1.5, 900, 40, (7, 8), 64, "npc", "t", "o", "u", "s", Priority.REALTIME, "eu", 3.0),
    ]


@pytest.mark.parametrize("of", GOOD)
@pytest.mark.parametrize("line", WRONG, ids=range(len(WRONG)))
def test_a_wrong_line_is_counted_with_its_number(of: str, line: str) -> None:
    trace = read_trace([*GOOD[of], line, GOOD[of][-1]])
    assert len(trace.records) == 2
    assert (trace.bad, [bad.number for bad in trace.first_bad]) == (1, [len(GOOD[of]) + 1])
    assert trace.first_bad[0].reason


@pytest.mark.parametrize("of", GOOD)
def test_lines_before_the_one_that_shows_the_format_are_bad(of: str) -> None:
    trace = read_trace(["\x00garbage", "{", *GOOD[of], "{}"])
    assert len(trace.records) == 1
    assert [bad.number for bad in trace.first_bad] == [1, 2, 3 + len(GOOD[of])]


def test_a_format_that_is_not_shown_early_is_not_known() -> None:
    with pytest.raises(TraceError, match="no format"):
        read_trace(["garbage"] * LOOKED_AT + GOOD["own"])
    with pytest.raises(TraceError, match="no lines"):
        read_trace([])


def test_a_byte_order_mark() -> None:
    for lines in GOOD.values():
        assert read_trace(["\ufeff" + lines[0], *lines[1:]]).bad == 0


@given(st.sampled_from(sorted(GOOD)), st.lists(st.binary(max_size=80)), st.data())
def test_damaged_traces_are_read_or_refused(of: str, noise: list[bytes], data: st.DataObject) -> None:
    lines = [*GOOD[of], *(piece.decode("utf-8", "replace") for piece in noise)]
    good = GOOD[of][-1]
    lines.append(good[: data.draw(st.integers(0, len(good)))])
    at = data.draw(st.integers(0, len(lines)))
    try:
        trace = read_trace([*lines[:at], *(["\x00"] if at else []), *lines[at:]])
    except TraceError:
        return
    assert trace.records[0].offset_s == 0.0
    assert all(bad.reason and 1 <= bad.number <= len(lines) + 1 for bad in trace.first_bad)
    assert trace.bad + len(trace.records) <= len(lines) + 1


@given(
    st.lists(
        st.builds(
            TraceRecord,
            st.floats(0, 1e6).map(lambda at_s: round(at_s, 3)),
            st.integers(1, 10**6),
            st.integers(1, 10**5),
            st.none() | st.lists(st.integers(0, 2**63 - 1), min_size=1).map(tuple),
            st.integers(1, 4096),
            tenant=st.none() | st.text(st.characters(codec="utf-8")),
            priority=st.none() | st.sampled_from(Priority),
            deadline_s=st.none() | st.floats(0, 100),
        ),
        min_size=1,
    )
)
def test_what_our_own_format_says_is_read_back(records: list[TraceRecord]) -> None:
    lines = [
        json.dumps(
            {
                "at_s": of.offset_s,
                "input_tokens": of.input_tokens,
                "output_tokens": of.output_tokens,
                "tenant": of.tenant,
                "priority": of.priority,
                "deadline_s": of.deadline_s,
                "prefix": of.hash_ids,
                "block_tokens": of.block_tokens,
            }
        )
        for of in records
    ]
    trace = read_trace(lines)
    start_s = min(record.offset_s for record in records)
    assert trace.bad == 0
    assert [of.offset_s for of in trace.records] == pytest.approx(sorted(of.offset_s - start_s for of in records))
    seen = [(of.input_tokens, of.tenant, of.hash_ids) for of in trace.records]
    assert seen == [(of.input_tokens, of.tenant, of.hash_ids) for of in sorted(records, key=lambda of: of.offset_s)]
