"""Traces are read whole, and what is damaged in them is counted and named by its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.wire.traces import MAX_BAD_LINES_NAMED, TraceError, TraceRecord
from spillway.wire.traces_formats import read_trace
from spillway.wire.traces_rates import HEADER, ArrivalPattern, RateBin, read_rates

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"


def test_azure() -> None:
    trace = read_trace([AZURE, "2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:05.0000000,3180,8"])
    assert trace.records == [TraceRecord(0.0, 4808, 10), TraceRecord(1.02004, 3180, 8)]
    assert trace.bad == 0
    assert trace.duration_s == 1.02004


def test_azure_columns_in_another_order_and_with_a_zone() -> None:
    trace = read_trace(
        [
            "\ufeffGeneratedTokens,TIMESTAMP,ContextTokens\r\n",
            "1,2024-05-10 00:00:00+00:00,2\r\n",
            "3,2024-05-10 00:00:01+00:00,4",
        ]
    )
    assert trace.records == [TraceRecord(0.0, 2, 1), TraceRecord(1.0, 4, 3)]


def test_mooncake() -> None:
    trace = read_trace(
        [
            '{"timestamp": 5000, "input_length": 600, "output_length": 6, "hash_ids": [0, 7]}',
            '{"timestamp": 6500, "input_length": 10, "output_length": 4, "hash_ids": [0], "more": 1}',
        ]
    )
    assert trace.records == [TraceRecord(0.0, 600, 6, (0, 7)), TraceRecord(1.5, 10, 4, (0,))]


@pytest.mark.parametrize(
    "line",
    [
        "2023-11-16 18:17:",
        "yesterday,1,1",
        "2023-11-16 18:17:04,1",
        "2023-11-16 18:17:04,1,1,1",
        "2023-11-16 18:17:04,-1,1",
        "2023-11-16 18:17:04,1,0",
        "2023-11-16 18:17:04,1.5,1",
        "\x00\ufffd",
    ],
)
def test_a_damaged_line_is_counted_and_named(line: str) -> None:
    good = "2023-11-16 18:17:03,1,1"
    trace = read_trace([AZURE, good, "", line, good])
    assert len(trace.records) == 2
    assert trace.bad == 1
    assert [bad.number for bad in trace.first_bad] == [4]
    assert trace.first_bad[0].reason


@pytest.mark.parametrize(
    "line",
    ['{"timestamp": 1, "input_length": 3', '{"timestamp": 1e999, "input_length": 3, "output_length": 1}', "[]", "{}"],
)
def test_a_damaged_json_line_is_counted(line: str) -> None:
    trace = read_trace(['{"timestamp": 1, "input_length": 3, "output_length": 1}', line])
    assert (len(trace.records), trace.bad, trace.first_bad[0].number) == (1, 1, 2)


def test_only_some_of_many_bad_lines_are_named() -> None:
    trace = read_trace([AZURE, *["x"] * 100, "2023-11-16 18:17:03,1,1"])
    assert trace.bad == 100
    assert len(trace.first_bad) == MAX_BAD_LINES_NAMED


def test_records_out_of_order_are_put_in_order() -> None:
    trace = read_trace([AZURE, "2023-11-16 18:17:04,2,2", "2023-11-16 18:17:03,1,1"])
    assert [record.input_tokens for record in trace.records] == [1, 2]
    assert [record.offset_s for record in trace.records] == [0.0, 1.0]


def test_more_records_than_are_read() -> None:
    trace = read_trace([AZURE, *["2023-11-16 18:17:03,1,1"] * 5], max_records=3)
    assert len(trace.records) == 3
    assert trace.truncated


@pytest.mark.parametrize("lines", [[], ["a,b,c", "1,2,3"], [AZURE], [AZURE, "x", "y"], ["{}"], [""]])
def test_a_trace_without_a_good_line_is_an_error(lines: list[str]) -> None:
    with pytest.raises(TraceError):
        read_trace(lines)


@given(st.lists(st.text()), st.sampled_from([AZURE, '{"timestamp": 1, "input_length": 3, "output_length": 1}', ""]))
def test_any_lines_give_a_trace_or_a_trace_error(lines: list[str], first: str) -> None:
    try:
        trace = read_trace([first, *lines])
    except TraceError:
        return
    offsets = [record.offset_s for record in trace.records]
    assert offsets == sorted(offsets)
    assert offsets[0] == 0.0
    assert trace.bad + len(offsets) <= len(lines) + 1


def test_rates() -> None:
    rates = read_rates(
        [",".join(HEADER), "3,143400,0.5,1.25,Gamma,0.75,2.5", "3,1,2", "4,600,1,1,Pareto,1,1", "5,0,nan,1,Gamma,1,1"]
    )
    assert rates.bins == [RateBin(3, 143400.0, 0.5, 1.25, ArrivalPattern.GAMMA, 0.75, 2.5)]
    assert rates.bad == 3
    assert [bad.number for bad in rates.first_bad] == [3, 4, 5]


@pytest.mark.parametrize("lines", [[], ["a,b"], [",".join(HEADER)], [",".join(HEADER), "x"]])
def test_rates_without_a_good_line_are_an_error(lines: list[str]) -> None:
    with pytest.raises(TraceError):
        read_rates(lines)
