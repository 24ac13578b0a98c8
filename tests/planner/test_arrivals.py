"""From traces to what a simulation is told: in order, complete, the same by the same seed, in bounded time and room."""

import tracemalloc
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import ConfigError
from spillway.core.priority import Priority
from spillway.planner.arrivals import (
    MADE_AT_ONCE,
    PREFIX_BLOCK_TOKENS,
    TRUTH,
    Estimate,
    arrivals,
    estimated,
    from_trace,
    merged,
    plain,
)
from spillway.planner.columns import MAX_ARRIVALS, Columns, joined
from spillway.wire.traces import TraceRecord

RECORDS = st.lists(
    st.builds(
        TraceRecord,
        st.floats(0, 1e5),
        st.integers(1, 10**6),
        st.integers(1, 10**5),
        st.none() | st.lists(st.integers(0, 99), max_size=5).map(tuple),
        st.sampled_from([16, 512]),
        tenant=st.none() | st.sampled_from(["a", "b"]),
        session=st.none() | st.sampled_from(["x", "y"]),
        region=st.none() | st.just("eu"),
        priority=st.none() | st.sampled_from(Priority),
        deadline_s=st.none() | st.floats(0, 100),
    ),
    min_size=1,
    max_size=30,
).map(lambda records: sorted(records, key=lambda record: record.offset_s))


def steady(count: int, seed: int = 1) -> Columns:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 1000, (2, count))
    return plain(np.cumsum(rng.exponential(0.1, count)), lengths[0], lengths[1], "m")


@given(RECORDS)
def test_what_a_trace_says_arrives(records: list[TraceRecord]) -> None:
    told = list(arrivals(from_trace(records, "m", region="us"), TRUTH))
    assert len(told) == len(records)
    for number, (record, arrival) in enumerate(zip(records, told, strict=True)):
        arrived = arrival.arrived
        assert (arrival.at_s, arrival.output_tokens) == (record.offset_s, record.output_tokens)
        assert (arrived.input_tokens, arrived.output_tokens) == (record.input_tokens, record.output_tokens)
        assert (arrived.request, arrived.model) == (f"r{number}", "m")
        assert (arrived.tenant, arrived.session) == (record.tenant or "", record.session or "")
        assert arrived.priority is (record.priority or Priority.INTERACTIVE)
        assert arrived.deadline_s == record.deadline_s
        assert arrival.region == (record.region or "us")
        assert bool(arrived.prefix) == bool(record.hash_ids)


def test_models_by_the_words_of_the_trace() -> None:
    records = [TraceRecord(0.0, 1, 1, model=name) for name in ("GPT-4", "ChatGPT", None)]
    told = arrivals(from_trace(records, "small", models={"GPT-4": "large"}))
    assert [arrival.arrived.model for arrival in told] == ["large", "small", "small"]


@given(st.lists(st.integers(0, 3), max_size=6).map(tuple), st.lists(st.integers(0, 3), max_size=6).map(tuple))
def test_prefixes_are_equal_as_far_as_prompts_are(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    records = [TraceRecord(0.0, 9000, 1, hash_ids) for hash_ids in (one, other)]
    first, second = (arrival.arrived.prefix for arrival in arrivals(from_trace(records, "m")))
    assert (len(first), len(second)) == (len(one), len(other))
    equal = True
    for ours, theirs, of_one, of_other in zip(first, second, one, other, strict=False):
        equal = equal and of_one == of_other
        assert (ours == theirs) is equal


def test_short_blocks_are_joined() -> None:
    ids = tuple(range(100))
    first, second = arrivals(
        from_trace([TraceRecord(0.0, 1600, 1, ids, 16), TraceRecord(0.0, 1600, 1, (*ids[:64], *ids[:36]), 16)], "m")
    )
    assert first.arrived.block_tokens == PREFIX_BLOCK_TOKENS
    assert len(first.arrived.prefix) == 1600 // PREFIX_BLOCK_TOKENS
    assert first.arrived.prefix[:2] == second.arrived.prefix[:2]
    assert first.arrived.prefix[2] != second.arrived.prefix[2]


def test_what_the_gateway_is_told_of_outputs() -> None:
    records = [
        TraceRecord(0.0, 1, tokens, tenant=tenant) for tenant, tokens in [("a", 10), ("b", 900), ("a", 30), ("a", 20)]
    ]
    columns = from_trace(records, "m")
    assert estimated(columns, TRUTH).tolist() == [10, 900, 30, 20]
    assert estimated(columns, Estimate(quantile=0.5)).tolist() == [20, 900, 20, 20]
    assert estimated(columns, Estimate(quantile=0.5, max_tokens=256)).tolist() == [20, 256, 20, 20]
    assert estimated(columns, Estimate(quantile=None, max_tokens=256)).tolist() == [256] * 4


@given(RECORDS, RECORDS)
def test_joining_is_merging(one: list[TraceRecord], other: list[TraceRecord]) -> None:
    sources = [from_trace(records, "m") for records in (one, other)]
    together = list(arrivals(joined(sources), TRUTH))
    streams = list(merged(*(arrivals(source, TRUTH, name=name) for name, source in zip("ab", sources, strict=True))))

    assert len(together) == len(one) + len(other)
    nameless = [[msgspec.structs.replace(a.arrived, request="") for a in made] for made in (together, streams)]
    assert nameless[0] == nameless[1]
    assert [(a.at_s, a.region) for a in together] == [(a.at_s, a.region) for a in streams]
    assert all(before.at_s <= after.at_s for before, after in pairwise(together))
    assert len({arrival.arrived.request for arrival in streams}) == len(streams)


def test_too_many_and_none() -> None:
    class Long(list[TraceRecord]):
        def __len__(self) -> int:
            return MAX_ARRIVALS + 1

    with pytest.raises(ConfigError, match="more than"):
        from_trace(Long([TraceRecord(0.0, 1, 1)]), "m")
    for nothing in (lambda: from_trace([], "m"), lambda: joined([])):
        with pytest.raises(ConfigError):
            nothing()


def test_a_stream_holds_a_bounded_part_of_its_arrivals() -> None:
    columns = steady(4 * MADE_AT_ONCE)
    tracemalloc.start()
    count = sum(1 for _ in arrivals(columns))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4 * MADE_AT_ONCE
    assert peak_bytes < 500 * MADE_AT_ONCE
