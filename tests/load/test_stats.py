"""Figures agree with numpy and with their formulas; every request is in exactly one of their sums."""

import json

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import UsageError
from spillway.load.record import INTERRUPTED, RequestRecord
from spillway.load.slo import Slo, parse_slo
from spillway.load.stats import MAX_NAMES, OTHER, percentiles_ms, summarize

PROMISED = {
    "requests", "ok", "errors", "duration_s", "throughput_rps", "output_tokens_per_s", "ttft_ms", "tpot_ms", "e2e_ms",
    "goodput_rps", "slo", "pools", "spilled_share", "clipped_share",
}  # fmt: skip


def record(
    index: int = 0, *, at_s: float = 0.0, ttft_s: float = 0.1, tpot_s: float = 0.01, tokens: int = 11, **more: object
) -> RequestRecord:
    """A request that ended well, unless `more` says otherwise."""
    made = RequestRecord(
        index=index, client="c", intended_s=at_s, input_tokens=10, max_tokens=tokens, sent_s=at_s, first_s=at_s + ttft_s,
        last_s=at_s + ttft_s + tpot_s * (tokens - 1), status=200, output_tokens=tokens, prompt_tokens=10,
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200))
def test_percentiles_are_numpys(seconds: list[float]) -> None:
    records = [record(ttft_s=ttft_s) for ttft_s in seconds]
    found = percentiles_ms(records, lambda each: each.ttft_s)
    expected = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    assert [found.p50, found.p95, found.p99] == pytest.approx(expected.tolist(), abs=0.001)
    assert found.max == pytest.approx(max(seconds) * 1000, abs=0.001)


def test_formulas() -> None:
    one = record(at_s=5.0, ttft_s=0.25, tpot_s=0.02, tokens=101)
    assert one.ttft_s == pytest.approx(0.25)
    assert one.tpot_s == pytest.approx(0.02)
    assert one.e2e_s == pytest.approx(0.25 + 2.0)
    assert record(tokens=1).tpot_s is None


def test_every_request_is_counted_once() -> None:
    records = [
        record(0),
        record(1, error="cut"),
        record(2, error="rate_limit_exceeded", status=429, first_s=None),
        record(3, error=INTERRUPTED),
        record(4, warmup=True),
        record(5, error="not_sent", status=0, sent_s=None, first_s=None, last_s=None),
        record(6, pool="west", spill="ceiling", clipped=True),
        record(7, pool="east"),
    ]
    result = summarize(records, Slo(), profile="constant", planned_s=10)
    assert (result.requests, result.ok, result.refused, result.failed, result.interrupted) == (6, 3, 1, 2, 1)
    assert result.errors == {"cut": 1, "rate_limit_exceeded": 1, "not_sent": 1}
    assert result.requests == result.ok + sum(result.errors.values())
    assert (result.pools, result.spilled_share) == ({"west": 1, "east": 1}, 0.5)
    assert result.clipped_share == pytest.approx(1 / 6, abs=1e-4)
    assert (result.duration_s, result.throughput_rps, result.goodput_rps) == (10.0, 0.3, 0.3)
    assert result.statuses == {"200": 4, "429": 1, "0": 1}


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        ("", 4),
        ("ttft_ms=1000", 3),
        ("tpot_ms=20", 3),
        ("ttft_ms=1000,tpot_ms=20", 2),
        ("ttft_ms=1000,tpot_ms=20,e2e_ms=150", 1),
        ("e2e_ms=0.001", 0),
    ],
)
def test_goodput_counts_requests_that_meet_all_objectives(slo: str, good: int) -> None:
    records = [
        record(0),
        record(1, ttft_s=2.0),
        record(2, tpot_s=0.05),
        record(3, tokens=1),  # 100 ms; no TPOT
        record(4, error="cut"),
    ]
    result = summarize(records, parse_slo(slo), profile="constant", planned_s=4)
    assert result.goodput_rps == good / 4
    assert result.slo_share == good / 5


def test_a_stream_without_content_misses_a_ttft_objective() -> None:
    assert not parse_slo("ttft_ms=10").met_by(record(first_s=None))


@pytest.mark.parametrize("text", ["ttft=1", "ttft_ms", "ttft_ms=x", "ttft_ms=0", "ttft_ms=-1", "ttft_ms=nan", "1"])
def test_an_unknown_objective_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_slo(text)


def test_the_window_is_the_planned_time_or_longer() -> None:
    records = [record(0, at_s=1.0), record(1, at_s=9.0, ttft_s=5.0)]
    assert summarize(records[:1], Slo(), profile="constant", planned_s=10).duration_s == 10.0
    assert summarize(records, Slo(), profile="constant", planned_s=10, warmup_s=2).duration_s == pytest.approx(12.1)
    assert summarize(records[:1], Slo(), profile="constant").duration_s == pytest.approx(1.2)


def test_nothing_measured_is_null_and_never_nan() -> None:
    result = summarize([], Slo(), profile="constant")
    text = msgspec.json.encode(result)
    assert json.loads(text)["ttft_ms"] == {"p50": None, "p95": None, "p99": None, "mean": None, "max": None}
    assert result.throughput_rps == 0.0


def test_the_keys_that_others_read() -> None:
    result = json.loads(msgspec.json.encode(summarize([record()], parse_slo("ttft_ms=5"), profile="constant")))
    assert result.keys() >= PROMISED
    assert result["ttft_ms"].keys() >= {"p50", "p95", "p99"}
    assert result["slo"] == {"ttft_ms": 5.0}


def test_names_are_bounded() -> None:
    records = [record(index, error=f"code-{index}") for index in range(200)]
    errors = summarize(records, Slo(), profile="constant").errors
    assert len(errors) == MAX_NAMES + 1
    assert errors[OTHER] == 200 - MAX_NAMES
    assert sum(errors.values()) == 200
