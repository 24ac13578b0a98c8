"""Arrivals are as many, as far apart and as uneven as was asked."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.load.arrivals import ClosedLoop, OpenLoop
from spillway.load.schedule import constant_arrivals, gamma_arrivals, replay_arrivals
from spillway.wire.traces import TraceRecord

RATES = st.floats(0.01, 5000)


def drained(arrivals: OpenLoop) -> list[float]:
    taken: list[float] = []
    while (due_s := arrivals.due_s(0.0)) is not None:
        assert arrivals.due_s(0.0) == due_s  # asking does not take it
        arrivals.take()
        taken.append(due_s)
    return taken


@given(RATES, st.integers(1, 500))
def test_constant_arrivals_are_evenly_spaced(rate_rps: float, count: int) -> None:
    taken = drained(OpenLoop(constant_arrivals(rate_rps), max_requests=count))
    assert taken == pytest.approx([index / rate_rps for index in range(count)])


@given(RATES, st.integers(1, 300))
def test_a_duration_holds_as_many_arrivals_as_its_rate_says(rate_rps: float, periods: int) -> None:
    duration_s = (periods - 0.5) / rate_rps
    assert len(drained(OpenLoop(constant_arrivals(rate_rps), duration_s=duration_s))) == periods


@given(RATES, st.floats(0.05, 20), st.integers(0, 2**32), st.integers(1, 3000))
def test_gamma_arrivals_never_go_back_and_repeat_with_their_seed(
    rate_rps: float, burstiness: float, seed: int, count: int
) -> None:
    once, again = (
        list(itertools.islice(gamma_arrivals(rate_rps, burstiness, np.random.default_rng(seed)), count))
        for _ in range(2)
    )
    assert once == again
    assert all(later >= earlier >= 0 for earlier, later in itertools.pairwise(once))


@pytest.mark.parametrize("burstiness", [0.1, 0.25, 1.0, 4.0])
def test_burstiness_sets_the_variation_of_the_gaps_and_keeps_the_rate(burstiness: float) -> None:
    arrivals = itertools.islice(gamma_arrivals(20.0, burstiness, np.random.default_rng(7)), 200_000)
    gaps = np.diff(np.fromiter(arrivals, dtype=float))
    assert gaps.std() / gaps.mean() == pytest.approx(1 / np.sqrt(burstiness), rel=0.03)
    assert 1 / gaps.mean() == pytest.approx(20.0, rel=0.03)


@given(st.lists(st.floats(0, 1e6), min_size=1).map(sorted), st.floats(0.1, 100))
def test_a_replay_keeps_every_arrival(offsets: list[float], speed: float) -> None:
    records = [TraceRecord(offset_s, 1, 1) for offset_s in offsets]
    assert drained(OpenLoop(replay_arrivals(records, speed))) == [offset_s / speed for offset_s in offsets]


def test_a_closed_loop_is_due_now_until_its_end() -> None:
    loop = ClosedLoop(duration_s=10.0, max_requests=2)
    assert loop.due_s(3.0) == 3.0
    assert loop.due_s(10.0) is None
    loop.take()
    loop.take()
    assert loop.due_s(4.0) is None
