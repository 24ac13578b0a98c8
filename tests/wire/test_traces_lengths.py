"""Lengths as quantiles: what is written is read back, and ServeGen's histograms become what they say."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.wire.traces import TraceError
from spillway.wire.traces_lengths import (
    HEADER,
    PROBABILITIES,
    LengthWindow,
    quantiles,
    read_datasets,
    read_lengths,
    write_lengths,
)
from spillway.wire.traces_rates import read_chunks

HISTOGRAMS = st.dictionaries(st.integers(1, 10**6), st.floats(0.001, 1.0), min_size=1, max_size=50)


@given(HISTOGRAMS)
def test_quantiles_lie_where_the_histogram_has_its_shares(histogram: dict[int, float]) -> None:
    found = quantiles(histogram)
    assert list(found) == sorted(found)
    assert set(found) <= set(histogram)
    assert (found[0], found[-1]) == (min(histogram), max(histogram))
    whole = sum(histogram.values())
    for probability, tokens in zip(PROBABILITIES, found, strict=True):
        up_to = sum(share for length, share in histogram.items() if length <= tokens)
        assert up_to >= probability * whole * (1 - 1e-9)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 55), HISTOGRAMS, HISTOGRAMS), min_size=1, max_size=5, unique_by=lambda of: of[:2]))  # fmt: skip
def test_lengths_are_read_back(of: list[tuple[int, int, dict[int, float], dict[int, float]]]) -> None:
    windows = [
        LengthWindow(client, 21600.0 * number, quantiles(inputs), quantiles(outputs))
        for client, number, inputs, outputs in of
    ]
    assert read_lengths(write_lengths(windows)).windows == windows


def test_datasets() -> None:
    windows = {
        "0": {"input_tokens": "{}", "output_tokens": "{}"},
        "21600": {"input_tokens": "{9: 0.25, 163: 0.75}", "output_tokens": "{0: 1.0}"},
    }
    lengths = read_datasets(
        [(3, json.dumps(windows)), (4, "{"), (5, '{"0": {"input_tokens": "{9: x}", "output_tokens": "{}"}}')]
    )
    (window,) = lengths.windows
    assert (window.client, window.offset_s, set(window.outputs)) == (3, 21600.0, {1})
    assert (window.inputs.count(9), window.inputs.count(163)) == (13, 44)
    assert lengths.bad == 2
    assert "chunk-4-dataset.json" in lengths.first_bad[0].reason


@pytest.mark.parametrize(
    "line",
    ["", "x", "0,0,input", "0,0,both" + ",1" * 57, "0,0,input" + ",2" * 56 + ",1", "0,-1,input" + ",1" * 57, "0,0,input" + ",1e3" * 57],
)  # fmt: skip
def test_wrong_lengths_are_counted(line: str) -> None:
    good = list(write_lengths([LengthWindow(0, 0.0, (1,) * len(PROBABILITIES), (2,) * len(PROBABILITIES))]))
    lengths = read_lengths([*good, line])
    assert (len(lengths.windows), lengths.bad, lengths.first_bad[0].number) == (1, 1, 4)


@pytest.mark.parametrize("lines", [[], ["a,b"], [",".join(HEADER)], [",".join(HEADER), "x"]])
def test_no_lengths_are_an_error(lines: list[str]) -> None:
    with pytest.raises(TraceError):
        read_lengths(lines)


def test_chunks() -> None:
    rates = read_chunks(
        [(3, ["0,0,0,,0,0\n", "600,1.5,1.2,Gamma,0.7,0.9\n", "1200,1,1,Pareto,1,1"]), (4, ["x", "0,nan,1,Gamma,1,1"])]
    )
    assert [(one.client, one.offset_s, one.rate_rps) for one in rates.bins] == [(3, 600.0, 1.5)]
    assert rates.bad == 3
    assert [bad.number for bad in rates.first_bad] == [3, 1, 2]
    assert "chunk-3-trace.csv" in rates.first_bad[0].reason
    with pytest.raises(TraceError):
        read_chunks([(3, ["0,0,0,,0,0"])])
