"""Figures of a simulation on books that can be checked by hand."""

import numpy as np
import pytest

from spillway.core.ids import EndpointUrl
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.planner.books import Books
from spillway.planner.engine import Job
from spillway.planner.results import max_min, result_of, reversals_per_min, swings
from spillway.planner.series import series_of
from tests.planner.worlds import HOME, HOSTED, PRICE, arrivals, world


def books_of(outcomes: list[Outcome], ttft_s: float = 0.1, *, hosted: bool = False) -> Books:
    """One request a second, each served within a second where it was OK."""
    books = Books(world())
    for number, outcome in enumerate(outcomes):
        arrival = arrivals(len(outcomes), 1.0, 1)[number]
        pool = HOSTED if hosted else HOME
        job = Job(arrival, 0, pool, EndpointUrl("u"), arrival.at_s, spilled=hosted)
        job.first_at = arrival.at_s + ttft_s
        books.arrivals += 1
        seconds = ttft_s + 0.01 * (arrival.output_tokens - 1)
        books.ended(arrival, outcome, job if outcome is Outcome.OK else None, arrival.at_s + seconds)
    return books


def test_good_requests_are_those_within_all_objectives() -> None:
    outcomes = [Outcome.OK] * 6 + [Outcome.REFUSED] * 3
    result = result_of(books_of(outcomes))
    assert result.shed_share == pytest.approx(1 / 3)
    assert result.attainment == {p.value: pytest.approx(2 / 3) for p in Priority}
    assert result.goodput_rps == result.throughput_rps > 0
    assert result.all.ttft_ms.p50 == pytest.approx(100)
    assert result.all.tpot_ms.p95 == pytest.approx(10)
    assert result.outcomes == {"ok": 6, "refused": 3}
    late = result_of(books_of(outcomes, ttft_s=0.9))
    assert late.goodput_rps == 0
    assert late.throughput_rps == result.throughput_rps


def test_what_a_provider_serves_costs() -> None:
    books = books_of([Outcome.OK] * 9, hosted=True)
    result = result_of(books)
    tokens = sum(books.input_tokens) * 1.0 + sum(books.output_tokens) * 2.0
    assert PRICE.input_usd_per_mtok == 1.0
    assert result.hosted_usd == pytest.approx(tokens / 1e6)
    assert (result.hosted_share, result.spilled_share) == (1.0, 1.0)


def test_nobody_arrived_is_an_error() -> None:
    with pytest.raises(ValueError, match="no request arrived"):
        result_of(Books(world()))


def test_fair_parts_fill_up_like_water() -> None:
    assert max_min(np.array([10.0, 1.0, 10.0]), 11.0).tolist() == [5.0, 1.0, 5.0]
    assert max_min(np.array([2.0, 3.0]), 5.0).tolist() == [2.0, 3.0]


@pytest.mark.parametrize("seed", range(20))
def test_fair_parts_add_up_and_nobody_gets_more_than_asked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = rng.exponential(1.0, 30)
    total = float(asked.sum() * rng.uniform(0.1, 1.0))
    parts = max_min(asked, total)
    assert float(parts.sum()) == pytest.approx(total), f"seed {seed}"
    assert (parts <= asked + 1e-12).all(), f"seed {seed}"
    assert np.ptp(parts[parts < asked - 1e-9]) < 1e-9 if (parts < asked - 1e-9).any() else True, f"seed {seed}"


def test_only_large_swings_are_turns() -> None:
    assert swings([0.0, 0.04, 0.0, 0.04]) == 0
    assert swings([0.0, 0.1, 0.2, 0.3]) == 0
    assert swings([0.0, 0.2, 0.0, 0.2, 0.0]) == 3
    assert swings([0.0, 0.2, 0.16, 0.3]) == 0
    assert swings([]) == 0


def test_reversals_are_counted_by_the_minute() -> None:
    books = Books(world())
    for second in range(60):
        moved = 10 if second // 5 % 2 else 0
        books.sampled_at.append(float(second + 1))
        books.dispatched[0].append(10)
        books.moved[0].append(moved)
    assert reversals_per_min(books) == 10.0


def test_time_series_have_a_value_for_each_bin() -> None:
    books = books_of([Outcome.OK] * 6 + [Outcome.REFUSED] * 3)
    for second in range(10):
        books.sample(second + 1.0, [6, 12, 0], [second])
    series = series_of(books, max_bins=5)
    assert (series.bin_s, series.at_s) == (2.0, [0.0, 2.0, 4.0, 6.0, 8.0])
    assert series.load[HOME] == [6 / 24] * 5
    assert series.waiting[""] == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert sum(series.served_rps[HOME]) * series.bin_s == pytest.approx(6)
    lengths = {len(values) for part in (series.load, series.served_rps, series.attainment) for values in part.values()}
    assert lengths == {5}
