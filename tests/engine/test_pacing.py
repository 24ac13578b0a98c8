"""A paced engine's steps last what was set, also in the sum."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.engine.pacing import SLACK_STEPS, Pace


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 0.002), st.floats(0, 0.003)), min_size=1, max_size=50))
def test_the_sum_of_steps_is_exact_though_waits_come_back_late(steps: list[tuple[int, float, float]]) -> None:
    pace = Pace(0.010, 0.0005)
    now = 100.0
    pace.resume(now)
    due = now
    for sequences, work_s, late_s in steps:
        now += work_s
        due += 0.010 + 0.0005 * sequences
        now += pace.wait_s(sequences, now) + late_s
        assert due - 1e-6 <= now <= due + late_s + 1e-6


def test_an_engine_that_is_too_slow_keeps_no_debt() -> None:
    pace = Pace(0.010, 0.0)
    pace.resume(0.0)
    assert pace.wait_s(1, 1.0) == 0.0
    waits = [pace.wait_s(1, 1.0) for _ in range(10)]
    assert sum(wait == 0.0 for wait in waits) <= SLACK_STEPS
    assert waits[-1] > 0


def test_idle_time_is_no_credit() -> None:
    pace = Pace(0.010, 0.0)
    pace.resume(0.0)
    pace.wait_s(1, 0.0)
    pace.resume(50.0)
    assert pace.wait_s(1, 50.002) == pytest.approx(0.008)


def test_no_pace_never_waits() -> None:
    pace = Pace(0.0, 0.0)
    pace.resume(3.0)
    assert not pace.enabled
    assert pace.wait_s(64, 3.0) == 0.0
