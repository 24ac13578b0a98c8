"""A thinned trace has the shape of the rate and the unevenness of the long one. Plain thinning would not: that is shown, too."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.core.errors import ConfigError
from spillway.load.trace_files import load_servegen
from spillway.planner.arrivals import plain
from spillway.planner.columns import Columns, Floats
from spillway.planner.curves import DAY_S, Curve
from spillway.planner.reshaping import faster, modulated
from spillway.planner.servegen import Stretch, generated
from spillway.planner.thinning import gap_cv, thinned

SEEDS = [1, 2, 3]


def renewal(count: int, cv: float, seed: int) -> Columns:
    rng = np.random.default_rng(seed)
    ones = np.ones(count, np.int64)
    return plain(np.cumsum(rng.gamma(cv**-2, cv**2, count)), ones, ones, "m")


@cache
def two_days() -> Columns:
    servegen = load_servegen()
    stretch = Stretch(2 * DAY_S, rate_rps=5.0, from_s=3 * DAY_S)
    return generated(servegen.rates.bins, servegen.lengths.windows, stretch, "m", np.random.default_rng(1))


def shape_error(long: Floats, short: Floats, bin_s: float = 600.0) -> float:
    """The largest difference of a bin's share of all arrivals, relative to it; of bins that are whole."""
    edges = np.arange(long[0], long[-1], bin_s)
    before, after = (np.histogram(at_s, edges)[0] / len(at_s) for at_s in (long, short))
    assert before.min() * len(short) > 30
    return float(np.max(np.abs(after / before - 1)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0, 4.0])
def test_shape_and_cv_of_a_process_that_steps(cv: float, seed: int) -> None:
    curve = Curve(tuple(1800.0 * number for number in range(20)), (0.5, 1.0, 2.0, 1.6) * 5)
    long = modulated(faster(renewal(400_000, cv, seed), 10.0), curve, 30_000.0)
    short = thinned(long, np.random.default_rng(seed), most=30_000)
    assert len(short) == 30_000
    assert shape_error(long.at_s, short.at_s) < 0.05
    assert gap_cv(short.at_s) == pytest.approx(gap_cv(long.at_s), rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_shape_and_cv_of_servegen(seed: int) -> None:
    long = two_days()
    short = thinned(long, np.random.default_rng(seed), most=200_000)
    assert shape_error(long.at_s, short.at_s) < 0.05
    assert gap_cv(short.at_s) == pytest.approx(gap_cv(long.at_s), rel=0.1)
    shares = [np.bincount(of.tenant.codes, minlength=43) / len(of) for of in (long, short)]
    assert shares[1] == pytest.approx(shares[0], abs=0.02)


def test_plain_thinning_would_make_it_poisson() -> None:
    long = renewal(400_000, 4.0, 1)
    left = long.at_s[np.random.default_rng(1).random(len(long)) < 0.05]
    assert gap_cv(left) < 0.5 * gap_cv(long.at_s)
    assert gap_cv(thinned(long, np.random.default_rng(1), most=20_000).at_s) == pytest.approx(4.0, rel=0.1)


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1e4), min_size=1, max_size=300).map(sorted),
    st.integers(1, 300),
    st.integers(2, 60),
    st.integers(0, 9),
)
def test_what_is_left_of_any_times(times: list[float], most: int, run: int, seed: int) -> None:
    ones = np.ones(len(times), np.int64)
    long = plain(np.array(times), ones, np.arange(len(times)), "m")
    short = thinned(long, np.random.default_rng(seed), most=most, run=run)
    assert len(short) == min(most, len(long))
    assert all(before <= after for before, after in pairwise(short.at_s.tolist()))
    assert all(before < after for before, after in pairwise(short.output_tokens.tolist()))  # order, and nobody twice
    end_s = times[-1] + (times[-1] - times[0]) / max(1, len(times) - 1)
    assert times[0] <= short.at_s[0]
    assert short.at_s[-1] <= end_s * (1 + 1e-9)
    again = thinned(long, np.random.default_rng(seed), most=most, run=run)
    assert short.at_s.tolist() == again.at_s.tolist()


def test_what_is_short_stays_as_it_is() -> None:
    long = renewal(100, 1.0, 1)
    assert thinned(long, np.random.default_rng(1), most=100) is long
    with pytest.raises(ConfigError):
        thinned(long, np.random.default_rng(1), most=0)
