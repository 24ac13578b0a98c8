"""What a sweep concludes from its levels, without a server."""

import pytest

from spillway.load.calibrate import Calibration, CalibrationError, Level, Plan, best_under, level_of, over_saturated
from spillway.load.fit import Line
from spillway.load.record import RequestRecord
from spillway.load.slo import Slo

PLAN = Plan(levels=(1, 2), duration_s=10.0, input_tokens=20, output_tokens=11)
FOUND = Calibration(Line(0.5, 0.05, 0.0, 0.0, 1.0), (), (), None, 20, 11)


def request(sent_s: float, last_s: float | None, error: str | None = None) -> RequestRecord:
    return RequestRecord(
        index=0, client="c", intended_s=sent_s, sent_s=sent_s, first_s=sent_s + 0.1, last_s=last_s, error=error,
        input_tokens=20, max_tokens=11, output_tokens=11,
    )  # fmt: skip


def level(concurrency: int, throughput_rps: float, *, errors: int = 0, ttft_s: float = 0.1) -> Level:
    return Level(concurrency, 100, errors, concurrency, concurrency, 1.0, 0.01, ttft_s, throughput_rps, 20, 11)


def test_a_level_is_measured_after_its_warmup() -> None:
    slow_start = [request(0, 2.5), request(0, 2.5)]
    steady = [request(at / 2, at / 2 + 1) for at in range(5, 18)]
    measured = level_of(
        2, [*slow_start, *steady, request(9.0, None, "unfinished"), request(9.5, None, "unfinished")], PLAN
    )
    assert (measured.residence_s, measured.requests, measured.errors) == (pytest.approx(1.0), 13, 0)
    assert measured.in_flight == pytest.approx(2.0, abs=0.05)
    assert measured.little == pytest.approx(measured.in_flight, rel=0.1)


@pytest.mark.parametrize(("error", "words"), [("404", "'404'"), ("unfinished", "--duration-s")])
def test_a_level_without_an_answer_says_why(error: str, words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        level_of(1, [request(1.0, None, error)], PLAN)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (level(2, 10.2), "no longer grows"),
        (level(2, 20, errors=5), "5 of 105"),
        (level(2, 20, ttft_s=2.0), "TTFT"),
    ],
)
def test_where_the_sweep_ends(after: Level, words: str) -> None:
    assert words in (over_saturated([level(1, 10)], after) or "")
    assert over_saturated([level(1, 10)], level(2, 15)) is None


def test_what_the_slo_allows() -> None:
    best = best_under(Slo(ttft_ms=1000, tpot_ms=50), FOUND)  # T_slo = 1.0 + 0.05 · 10
    assert best is not None
    assert (best.b_star, best.lambda_star) == pytest.approx((20.0, (1 - 0.5 / 1.5) / 0.05))
    tighter = best_under(Slo(ttft_ms=1000, tpot_ms=50, e2e_ms=400), FOUND)
    assert tighter is not None
    assert (tighter.b_star, tighter.lambda_star) == (0.0, 0.0)
    assert best_under(Slo(ttft_ms=1000), FOUND) is None
