"""The capacity line through points whose truth is known."""

import math

import numpy as np
import pytest

from spillway.load.fit import FitError, Point, fit_line, held_out_errors


def on_the_line(x_s: float, y_s: float, *loads: float) -> list[Point]:
    return [Point(b, x_s + y_s * b, 0.01) for b in loads]


def test_exact_points_give_the_exact_line() -> None:
    line = fit_line(on_the_line(0.5, 0.03, 1, 2, 4, 8))
    assert (line.x_s, line.y_s, line.r2) == pytest.approx((0.5, 0.03, 1.0))
    assert line.x_error_s < 1e-6
    assert held_out_errors(on_the_line(0.5, 0.03, 1, 2, 4, 8)) == pytest.approx([0, 0, 0, 0])


@pytest.mark.parametrize("seed", range(5))
def test_the_truth_lies_within_four_standard_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loads = [1, 2, 4, 8, 16, 32]
    points = [Point(b, 0.4 + 0.02 * b + float(rng.normal(0, 0.01)), 0.01) for b in loads]
    line = fit_line(points)
    assert abs(line.x_s - 0.4) < 4 * max(line.x_error_s, 0.005), f"seed {seed}"
    assert abs(line.y_s - 0.02) < 4 * max(line.y_error_s, 0.0003), f"seed {seed}"


def test_a_point_that_is_hardly_known_hardly_counts() -> None:
    points = [*on_the_line(0.5, 0.03, 1, 2, 4, 8), Point(16, 5.0, 100.0)]
    assert fit_line(points).y_s == pytest.approx(0.03, rel=1e-3)


def test_a_negative_intercept_becomes_a_line_through_the_origin() -> None:
    line = fit_line([Point(1, 0.05, 0.01), Point(2, 0.2, 0.01), Point(4, 0.5, 0.01)])
    assert line.x_s == 0
    assert line.y_s > 0


def test_two_points_have_a_line_of_unknown_error() -> None:
    line = fit_line(on_the_line(0.5, 0.03, 1, 8))
    assert math.isinf(line.y_error_s)
    assert held_out_errors(on_the_line(0.5, 0.03, 1, 8)) == []


@pytest.mark.parametrize("points", [[], on_the_line(1, 1, 4), on_the_line(1, 1, 4, 4), on_the_line(1, -0.1, 1, 2, 4)])
def test_points_without_a_line(points: list[Point]) -> None:
    with pytest.raises(FitError):
        fit_line(points)
