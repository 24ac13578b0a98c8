"""Traffic reshaped in time keeps its order and its unevenness, and has the rates that were asked for."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import ConfigError
from spillway.core.priority import Priority
from spillway.planner.arrivals import plain
from spillway.planner.columns import Coded, Columns
from spillway.planner.curves import DAY_S, Curve, day, step
from spillway.planner.labels import with_priorities, with_regions, with_sessions, with_tenants, zipf
from spillway.planner.reshaping import at_rate, faster, lasting, mean_rps, modulated, period_s, scaled
from spillway.planner.thinning import gap_cv


def bursty(count: int, cv: float = 2.0, seed: int = 1) -> Columns:
    rng = np.random.default_rng(seed)
    ones = np.ones(count, np.int64)
    return plain(np.cumsum(rng.gamma(cv**-2, cv**2, count)), 100 * ones, ones, "m")


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=20).map(sorted), st.floats(0, 1e4), st.floats(0.1, 1e4))
def test_a_trace_comes_again_and_again(times: list[float], from_s: float, duration_s: float) -> None:
    ones = np.ones(len(times), np.int64)
    columns = plain(np.array(times), ones, ones, "m")
    length_s = period_s(columns)
    if (from_s + duration_s) / length_s * len(times) > 1e5:
        return
    again = lasting(columns, duration_s, from_s=from_s).at_s
    assert all(0 <= at_s < duration_s for at_s in again.tolist())
    assert all(before <= after for before, after in pairwise(again.tolist()))
    whole = duration_s / length_s
    assert (whole - 1) * len(times) - 1 <= len(again) <= (whole + 1) * len(times) + 1


def test_speed_and_rate() -> None:
    columns = bursty(1000)
    assert mean_rps(faster(columns, 4.0)) == pytest.approx(4 * mean_rps(columns))
    assert mean_rps(at_rate(columns, 12.5)) == pytest.approx(12.5)
    assert gap_cv(at_rate(columns, 12.5).at_s) == pytest.approx(gap_cv(columns.at_s))


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_a_step_has_its_rates_and_keeps_the_cv(cv: float) -> None:
    source = at_rate(bursty(70_000, cv), 100.0)
    stepped = modulated(source, step(300.0, 0.5, 1.6), 600.0).at_s
    before, after = stepped[stepped < 300], stepped[stepped >= 300]
    # the sources' own arrivals up to ∫ = 150 s and 630 s
    assert len(before) == np.sum(source.at_s - source.at_s[0] < 150.0)
    assert len(before) + len(after) == np.sum(source.at_s - source.at_s[0] < 630.0)
    assert len(before) / 300 == pytest.approx(50.0, rel=0.15)
    assert len(after) / 300 == pytest.approx(160.0, rel=0.15)
    assert gap_cv(before) == pytest.approx(cv, rel=0.1)
    assert gap_cv(after) == pytest.approx(cv, rel=0.1)


def test_a_day_rises_and_falls() -> None:
    source = at_rate(bursty(5000, 1.0), 1.0)
    lived = modulated(source, day(0.5, 1.5, peak_s=14 * 3600), DAY_S).at_s
    by_hour = np.histogram(lived, bins=24, range=(0, DAY_S))[0] / 3600
    expected = 1 + 0.5 * np.cos(2 * np.pi * (np.arange(24) + 0.5 - 14) / 24)
    assert by_hour == pytest.approx(expected, rel=0.1)


def test_nothing_comes_while_a_factor_is_0() -> None:
    lived = modulated(bursty(1000, 1.0), Curve((0.0, 10.0, 20.0), (1.0, 0.0, 2.0)), 60.0).at_s
    assert not len(lived[(lived > 10.0) & (lived < 20.0)])
    assert len(lived[lived >= 20.0]) > 0


@pytest.mark.parametrize(
    "curve",
    [
        Curve((), ()),
        Curve((1.0,), (1.0,)),
        Curve((0.0, 0.0), (1.0, 1.0)),
        Curve((0.0,), (-1.0,)),
        Curve((0.0,), (0.0,)),
    ],
)
def test_what_is_no_curve(curve: Curve) -> None:
    with pytest.raises(ConfigError):
        modulated(bursty(10), curve, 10.0)


def test_tokens_are_scaled() -> None:
    columns = scaled(bursty(10), inputs=0.5, outputs=0.001)
    assert set(columns.input_tokens.tolist()) == {50}
    assert set(columns.output_tokens.tolist()) == {1}
    assert set(columns.block_tokens.tolist()) == {256}


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_speeds_and_scales(speed: float) -> None:
    with pytest.raises(ConfigError):
        faster(bursty(10), speed)
    with pytest.raises(ConfigError):
        scaled(bursty(10), inputs=speed)


def shares_of(column: Coded[str] | Coded[Priority]) -> list[float]:
    counts = np.bincount(column.codes, minlength=len(column.values))
    return (counts / counts.sum()).tolist()


def test_labels_have_their_shares() -> None:
    rng = np.random.default_rng(3)
    columns = with_tenants(bursty(20_000), zipf(4), rng)
    assert shares_of(columns.tenant) == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25], abs=0.02)
    columns = with_priorities(columns, {Priority.REALTIME: 1, Priority.BATCH: 3}, rng)
    assert shares_of(columns.priority) == pytest.approx([0.25, 0.75], abs=0.02)
    columns = with_regions(columns, {"eu": 0.52, "us": 0.48}, rng)
    assert shares_of(columns.region) == pytest.approx([0.52, 0.48], abs=0.02)


def test_sessions_have_their_turns_and_stay_whole() -> None:
    rng = np.random.default_rng(3)
    columns = with_sessions(
        with_tenants(at_rate(bursty(20_000, 1.0), 10.0), (0.7, 0.3), rng), rng, turns=4.0, think_s=20.0
    )
    labelled = with_priorities(columns, {Priority.REALTIME: 1, Priority.BATCH: 1}, rng)
    codes = columns.session.codes
    assert len(columns) / len(set(codes.tolist())) == pytest.approx(4.0, rel=0.05)
    for column in (columns.tenant, labelled.priority):
        assert len(set(zip(codes.tolist(), column.codes.tolist(), strict=True))) == len(set(codes.tolist()))
    order = np.argsort(codes, kind="stable")
    within = np.diff(codes[order]) == 0
    assert np.diff(columns.at_s[order])[within].mean() == pytest.approx(20.0, rel=0.25)


@pytest.mark.parametrize("shares", [(), (0.0,), (-1.0, 2.0), (float("nan"),)])
def test_impossible_shares(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError):
        with_tenants(bursty(10), shares, np.random.default_rng(1))


def test_the_same_seed_gives_the_same_labels() -> None:
    one, other = (with_sessions(bursty(500), np.random.default_rng(7)) for _ in range(2))
    assert one.session.listed() == other.session.listed()
    assert one.session.listed() != with_sessions(bursty(500), np.random.default_rng(8)).session.listed()
