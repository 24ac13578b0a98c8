"""ServeGen's clients: rates, CVs and lengths as asked, in any stretch of their weeks, in regions that are shifted."""

from functools import cache

import numpy as np
import pytest

from spillway.core.errors import ConfigError
from spillway.load.trace_files import ServeGen, load_servegen
from spillway.planner.arrivals import TRUTH, arrivals
from spillway.planner.columns import Columns, joined
from spillway.planner.curves import DAY_S
from spillway.planner.servegen import Stretch, concentration, generated
from spillway.planner.thinning import gap_cv
from spillway.wire.traces_lengths import PROBABILITIES, LengthWindow
from spillway.wire.traces_rates import BIN_S, ArrivalPattern, RateBin

LENGTHS = [LengthWindow(0, 0.0, (100,) * len(PROBABILITIES), (10,) * len(PROBABILITIES))]


@cache
def real() -> ServeGen:
    return load_servegen()


def made(stretch: Stretch, seed: int = 1, region: str = "") -> Columns:
    return generated(
        real().rates.bins, real().lengths.windows, stretch, "m", np.random.default_rng(seed), region=region
    )


def bins_of(cvs: list[float], pattern: ArrivalPattern, rate_rps: float = 10.0) -> list[RateBin]:
    return [RateBin(0, BIN_S * number, rate_rps, cv, pattern, 1.0, 1.0) for number, cv in enumerate(cvs)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("pattern", ArrivalPattern)
@pytest.mark.parametrize("cv", [0.2, 1.0, 2.5, 5.0])
def test_rate_and_cv_of_a_client_across_bins(cv: float, pattern: ArrivalPattern, seed: int) -> None:
    columns = generated(bins_of([cv] * 40, pattern), LENGTHS, Stretch(40 * BIN_S), "m", np.random.default_rng(seed))
    expected = 40 * BIN_S * 10.0
    assert abs(len(columns) - expected) < 4 * cv * np.sqrt(expected)
    assert gap_cv(columns.at_s) == pytest.approx(cv, rel=0.1)


@pytest.mark.parametrize("pattern", ArrivalPattern)
def test_many_short_bins_do_not_bend_the_process(pattern: ArrivalPattern) -> None:
    """At 0.02 requests a second a gap is longer than a bin is, on average a twelfth."""
    columns = generated(
        bins_of([3.0] * 2000, pattern, 0.02), LENGTHS, Stretch(2000 * BIN_S), "m", np.random.default_rng(5)
    )
    assert len(columns) == pytest.approx(24_000, rel=0.08)
    assert gap_cv(columns.at_s) == pytest.approx(3.0, rel=0.1)


def test_the_first_gap_is_what_one_waits_who_comes_at_random() -> None:
    """Else short stretches of uneven clients have too many arrivals or too few."""
    counts = [
        len(generated([*bins_of([4.0], ArrivalPattern.GAMMA, 0.1), *other()], LENGTHS, Stretch(BIN_S), "m", np.random.default_rng(seed)))
        for seed in range(300)
    ]  # fmt: skip
    assert np.mean(counts) - 60 == pytest.approx(60.0, abs=4 * 4 * np.sqrt(60) / np.sqrt(300))


def other() -> list[RateBin]:
    """A client of 60 very even requests, so that there always is one."""
    return [RateBin(1, 0.0, 0.1, 0.05, ArrivalPattern.GAMMA, 1.0, 1.0)]


def test_each_bin_has_its_own_cv() -> None:
    columns = generated(
        bins_of([0.3, 3.0] * 30, ArrivalPattern.GAMMA), LENGTHS, Stretch(60 * BIN_S), "m", np.random.default_rng(3)
    )
    number = np.floor(columns.at_s / BIN_S).astype(int)
    cvs = [gap_cv(columns.at_s[number == place]) for place in range(60)]
    assert np.mean(cvs[::2]) == pytest.approx(0.3, rel=0.1)
    assert np.mean(cvs[1::2]) == pytest.approx(3.0, rel=0.1)


def test_a_day_of_the_real_clients() -> None:
    columns = made(Stretch(DAY_S, rate_rps=3.0, from_s=3 * DAY_S))
    assert len(columns) / DAY_S == pytest.approx(3.0, rel=0.05)
    of_day = [one for one in real().rates.bins if 3 * DAY_S <= one.offset_s < 4 * DAY_S]
    wanted = concentration(of_day)
    largest = next(iter(wanted))
    counts = np.bincount(columns.tenant.codes) / len(columns)
    found = dict(zip(columns.tenant.values, counts.tolist(), strict=True))
    assert found[f"client-{largest}"] == pytest.approx(wanted[largest], rel=0.15)
    by_hour = np.histogram(columns.at_s, bins=24, range=(0, DAY_S))[0] / len(columns)
    rates = np.zeros(24)
    for one in of_day:
        rates[int((one.offset_s - 3 * DAY_S) // 3600)] += one.rate_rps
    assert np.corrcoef(by_hour, rates)[0, 1] > 0.95


def test_regions_are_shifted() -> None:
    here = made(Stretch(DAY_S, rate_rps=2.0, from_s=3 * DAY_S), region="east")
    there = made(Stretch(DAY_S, rate_rps=2.0, from_s=3 * DAY_S, shift_s=8 * 3600), 2, "west")
    early, late = (np.histogram(of.at_s, bins=24, range=(0, DAY_S))[0] for of in (here, there))
    assert np.corrcoef(early[:16], late[8:])[0, 1] > 0.8  # the same hours, eight later
    both = joined([here, there])
    assert len(both) == len(here) + len(there)
    assert {arrival.region for arrival in arrivals(both, TRUTH)} == {"east", "west"}
    assert all(name.partition("/")[0] in {"east", "west"} for name in both.tenant.values)


def test_faster_days_have_fewer_requests_at_the_same_rate() -> None:
    columns = made(Stretch(DAY_S, rate_rps=20.0, from_s=3 * DAY_S, speed=24.0))
    assert columns.at_s[-1] == pytest.approx(3600, abs=10)
    assert len(columns) / 3600 == pytest.approx(20.0, rel=0.1)


def test_lengths_are_those_of_the_client_and_window() -> None:
    columns = made(Stretch(DAY_S, rate_rps=5.0, from_s=3 * DAY_S))
    client = int(columns.tenant.values[int(np.argmax(np.bincount(columns.tenant.codes)))].removeprefix("client-"))
    rows = columns.tenant.codes == columns.tenant.values.index(f"client-{client}")
    for window in real().lengths.windows:
        inside = rows & (np.floor((columns.at_s + 3 * DAY_S) / 21600) == window.offset_s / 21600)
        if window.client == client and inside.sum() > 1000:
            half = PROBABILITIES.index(0.5)
            inputs = columns.input_tokens[inside]
            assert np.median(inputs) == pytest.approx(window.inputs[half], rel=0.1, abs=2)
            assert window.inputs[0] <= inputs.min()
            assert inputs.max() <= window.inputs[-1]
    assert rows.sum() > 1000


def test_sessions_are_within_clients() -> None:
    columns = made(Stretch(3600.0, rate_rps=5.0, from_s=3 * DAY_S))
    pairs = set(zip(columns.session.codes.tolist(), columns.tenant.codes.tolist(), strict=True))
    assert len(pairs) == len({session for session, _ in pairs})
    assert 2 < len(columns) / len(pairs) < 8


def test_the_same_seed_gives_the_same_arrivals() -> None:
    stretch = Stretch(3600.0, rate_rps=5.0, from_s=3 * DAY_S)
    one, other, third = (list(arrivals(made(stretch, seed))) for seed in (1, 1, 2))
    assert one == other
    assert [arrival.at_s for arrival in one] != [arrival.at_s for arrival in third]


def test_the_weeks_begin_again() -> None:
    assert len(made(Stretch(DAY_S, from_s=14 * DAY_S + 3 * DAY_S, rate_rps=1.0))) == len(
        made(Stretch(DAY_S, from_s=3 * DAY_S, rate_rps=1.0))
    )


@pytest.mark.parametrize(
    "stretch",
    [
        Stretch(0.0), Stretch(-1.0), Stretch(float("inf")), Stretch(60.0, speed=0.0), Stretch(60.0, rate_rps=0.0),
        Stretch(60.0, rate_rps=float("nan")), Stretch(60.0, shift_s=float("nan")), Stretch(DAY_S, from_s=3 * DAY_S),
    ],
)  # fmt: skip
def test_impossible_stretches(stretch: Stretch) -> None:
    """The last is possible, but has a hundred million arrivals."""
    with pytest.raises(ConfigError):
        made(stretch)


def test_nothing_to_make_arrivals_of() -> None:
    for bins, lengths in (([], LENGTHS), (bins_of([1.0], ArrivalPattern.GAMMA), [])):
        with pytest.raises(ConfigError):
            generated(bins, lengths, Stretch(60.0), "m", np.random.default_rng(1))
