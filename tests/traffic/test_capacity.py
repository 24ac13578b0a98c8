"""The line of a pool: what a record says, and what completions and first tokens make of it."""

import random
from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.traffic.capacity import MOST_TOKENS, CapacityLine, b_star, memory_bound, slo_s
from spillway.traffic.fleet import Capacity, FairnessRules, Slo, TokenShape
from spillway.traffic.trend import Trend

SHAPE = TokenShape(input_tokens=400, output_tokens=100)
WORK = 400 + 4 * 100
RECORD = Capacity(x_s=2.0, y_s=0.05, reference=SHAPE)
RULES = FairnessRules()


def line(record: Capacity | None = RECORD) -> CapacityLine:
    return CapacityLine(record, RULES)


def teach(one: CapacityLine, x_s: float, y_s: float, least: int, most: int, count: int = 400, seed: int = 1) -> None:
    """Completions of a pool that really takes x + y · b, of any size, with 5 % noise."""
    rng = random.Random(seed)
    for _ in range(count):
        beside, size = rng.randint(least, most), rng.uniform(0.5, 2.0)
        residence_s = (x_s + y_s * beside) * size * rng.gauss(1.0, 0.05)
        one.completed(beside, residence_s, round(400 * size), round(100 * size))


# The record


def test_b_star_and_the_memory_bound_are_the_formulas() -> None:
    assert slo_s(Slo(ttft_ms=2000.0, tpot_ms=40.0), SHAPE) == pytest.approx(2.0 + 0.040 * 99)
    assert slo_s(Slo(ttft_ms=2000.0), SHAPE) == inf
    assert b_star(RECORD, 5.0) == pytest.approx(60.0)
    assert memory_bound(Capacity(1.0, 1.0, 45_000, None, SHAPE)) == pytest.approx(100.0)
    assert memory_bound(Capacity(1.0, 1.0, 45_000, 64, SHAPE)) == 64.0
    assert memory_bound(RECORD) == inf


@given(st.floats(0.01, 10.0), st.floats(0.001, 1.0), st.floats(1.0, 1000.0))
def test_a_fresh_line_is_its_record(x_s: float, y_s: float, in_flight: float) -> None:
    one = line(Capacity(x_s, y_s, reference=SHAPE))
    assert one.seconds_per_work(in_flight) * WORK == pytest.approx(x_s + y_s * in_flight)
    assert one.work_per_s(in_flight) == pytest.approx(WORK * in_flight / (x_s + y_s * in_flight))
    assert one.corrected() == (pytest.approx(x_s), pytest.approx(y_s))
    assert one.most_in_flight(x_s + 50.0 * y_s) == pytest.approx(50.0)


def test_most_in_flight_stays_within_memory_and_above_nothing() -> None:
    assert line(Capacity(2.0, 0.05, 4500, None, SHAPE)).most_in_flight(10.0) == pytest.approx(10.0)
    assert line().most_in_flight(1.0) == 1.0
    assert line().most_in_flight(inf) == inf
    assert line(None).most_in_flight(5.0) == inf


# Corrections


@pytest.mark.parametrize(("x_s", "y_s"), [(2.0, 0.075), (2.0, 0.025), (3.0, 0.05), (4.0, 0.1)])
def test_completions_bend_the_line_to_what_the_pool_takes(x_s: float, y_s: float) -> None:
    one = line()
    teach(one, x_s, y_s, 5, 100)
    for in_flight in (10, 50, 100):
        assert one.seconds_per_work(in_flight) * WORK == pytest.approx(x_s + y_s * in_flight, rel=0.12)
    most_s = x_s + 60.0 * y_s
    assert one.most_in_flight(most_s) == pytest.approx(60.0, rel=0.12)


def test_at_one_load_they_scale_it_and_are_right_there() -> None:
    one = line()
    teach(one, 2.0, 0.075, 58, 60)
    assert one.seconds_per_work(59) * WORK == pytest.approx(2.0 + 0.075 * 59, rel=0.03)
    assert one.most_in_flight(2.0 + 0.075 * 59) == pytest.approx(59.0, rel=0.05)


def test_a_pool_without_a_record_is_learned() -> None:
    one = line(None)
    assert one.work_per_s(50.0) == 0.0
    teach(one, 2.0, 0.05, 5, 100)
    assert one.work_per_s(50.0) == pytest.approx(WORK * 50 / 4.5, rel=0.15)


def test_one_wild_completion_moves_it_little() -> None:
    one = line()
    teach(one, 2.0, 0.05, 10, 60)
    before = one.seconds_per_work(40)
    one.completed(40, 1e9, 400, 100)
    assert one.seconds_per_work(40) == pytest.approx(before, rel=0.12)


def test_tokens_each_is_the_mean_of_what_ended() -> None:
    one = line()
    one.completed(1, 1.0, 300, 100)
    assert one.tokens_each == 400.0
    for _ in range(500):
        one.completed(1, 1.0, 60, 40)
    assert one.tokens_each == pytest.approx(100.0, rel=0.01)


# First tokens


def test_before_any_answer_the_record_predicts_them_and_without_one_nothing_does() -> None:
    assert line().ttft_s(1.0, 400) == pytest.approx(400 / WORK * 2.05)
    assert line().ttft_s(41.0, 400) == pytest.approx(400 / WORK * 4.05)
    assert line(None).ttft_s(10.0, 400) == 0.0


@pytest.mark.parametrize("record", [RECORD, None])
def test_predictions_follow_length_and_load(record: Capacity | None) -> None:
    """A pool that takes 0.1 s and 0.2 ms a token that is not cached, more under load where a record tells how load matters."""
    one, rng = line(record), random.Random(2)
    slow = 0.0 if record is None else 0.05 / 2.05
    for _ in range(400):
        tokens, beside = rng.randint(10, 8000), rng.randint(1, 60)
        one.answered(beside, tokens, (0.1 + 0.0002 * tokens * (1.0 + slow * (beside - 1))) * rng.gauss(1.0, 0.05))
    for tokens in (100, 2000, 8000):
        for beside in (1, 30, 60):
            expected_s = 0.1 + 0.0002 * tokens * (1.0 + slow * (beside - 1))
            assert one.ttft_s(beside, tokens) == pytest.approx(expected_s, rel=0.2, abs=0.1)


def test_a_warm_prefix_and_an_idle_pool_are_answered_sooner() -> None:
    assert line().ttft_s(10.0, 100) < line().ttft_s(10.0, 4000)
    assert line().ttft_s(10.0, 1000) < line().ttft_s(50.0, 1000)


def test_a_long_input_may_take_longer_in_proportion_and_a_short_one_no_less() -> None:
    assert [line().stretch(tokens) for tokens in (1, 400, 4000)] == [1.0, 1.0, 10.0]
    assert line(None).stretch(4000) == 1.0


# Nonsense

NUMBER = st.one_of(st.floats(), st.sampled_from([nan, inf, -inf, 0.0, -1.0]))
COUNT = st.one_of(st.integers(-10, 10_000), st.sampled_from([10**400, -(10**400)]))


@given(st.sampled_from([RECORD, None, Capacity(0.0, 0.0, reference=SHAPE)]), st.lists(st.tuples(NUMBER, NUMBER, COUNT)))
def test_no_input_breaks_it(record: Capacity | None, lessons: list[tuple[float, float, int]]) -> None:
    one = line(record)
    for beside, seconds, tokens in lessons:
        one.completed(beside, seconds, tokens, tokens)
        one.answered(beside, tokens, seconds)
        assert 0.0 <= one.work(tokens, tokens) <= 5.0 * MOST_TOKENS
    assert all(map(isfinite, one.corrected()))
    for in_flight in (0.0, 1.0, 100.0):
        assert 0.0 <= one.ttft_s(in_flight, 100) < inf
        assert 0.0 <= one.work_per_s(in_flight) < inf
    assert one.most_in_flight(5.0) >= 1.0


@given(
    st.lists(st.tuples(st.floats(0.0, 1e6), st.floats(0.0, 1e6)), min_size=1, max_size=200), st.sampled_from([0.0, 1.0])
)
def test_a_trend_never_falls_and_stays_among_its_points(points: list[tuple[float, float]], lean: float) -> None:
    trend = Trend(lean)
    for u, t in points:
        trend.add(u, t)
    assert trend.slope >= 0.0
    middle = sum(u for u, _ in points) / len(points)
    assert isfinite(trend.base + trend.slope * middle)


@given(st.floats(-5.0, 50.0), st.floats(0.0, 5.0), st.integers(0, 1000))
def test_a_trend_finds_a_line_that_is_there(base: float, slope: float, seed: int) -> None:
    trend, rng = Trend(0.0), random.Random(seed)
    base = max(base, 0.0)
    for _ in range(300):
        u = rng.uniform(0.0, 100.0)
        trend.add(u, base + slope * u)
    assert trend.base + trend.slope * 50.0 == pytest.approx(base + slope * 50.0, rel=0.15, abs=0.01)
