"""The capacity line T(b) = x + y · b through measured points, and how far it can be believed."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError


class FitError(SpillwayError):
    """The points give no line: too few of them, or residence that does not grow with load."""


class Point(msgspec.Struct, frozen=True):
    """`in_flight`: mean requests in the pool. `error_s`: the standard error of the mean `residence_s`, > 0."""

    in_flight: float
    residence_s: Seconds
    error_s: Seconds


class Line(msgspec.Struct, frozen=True):
    """`x_error_s` and `y_error_s` are standard errors, infinite with two points. `r2` is weighted as the fit is."""

    x_s: Seconds
    y_s: Seconds
    x_error_s: Seconds
    y_error_s: Seconds
    r2: float

    def at(self, in_flight: float) -> Seconds:
        return self.x_s + self.y_s * in_flight


def fit_line(points: Sequence[Point]) -> Line:
    """Weighted least squares with weights 1/error², the errors scaled by the residuals (Bevington, Data Reduction, ch. 6). A
    negative x, which no pool has, is noise: the line then goes through the origin. Raises FitError."""
    if len({point.in_flight for point in points}) < 2:
        raise FitError("a line needs measurements at two different loads")
    b = np.array([point.in_flight for point in points])
    t = np.array([point.residence_s for point in points])
    weights = 1 / np.array([point.error_s for point in points]) ** 2
    columns = np.column_stack([np.ones_like(b), b])
    normal = np.linalg.inv(columns.T @ (columns * weights[:, None]))
    x_s, y_s = (float(value) for value in normal @ (columns.T @ (weights * t)))
    if x_s < 0:
        x_s, y_s = 0.0, float((weights * b * t).sum() / (weights * b * b).sum())
    if not (math.isfinite(y_s) and y_s > 0):
        raise FitError("residence does not grow with load: measure at higher concurrency")
    residual = float((weights * (t - x_s - y_s * b) ** 2).sum())
    total = float((weights * (t - np.average(t, weights=weights)) ** 2).sum())
    scale = residual / (len(points) - 2) if len(points) > 2 else math.inf
    x_error_s, y_error_s = (float(math.sqrt(normal[i, i] * scale)) for i in (0, 1))
    return Line(x_s, y_s, x_error_s, y_error_s, 1 - residual / total if total > 0 else 1.0)


def held_out_errors(points: Sequence[Point]) -> list[float]:
    """Of each point, by what share of its residence the line through all the others misses it. Empty below three points."""
    if len(points) < 3:
        return []
    errors: list[float] = []
    for index, point in enumerate(points):
        line = fit_line([*points[:index], *points[index + 1 :]])
        errors.append(line.at(point.in_flight) / point.residence_s - 1)
    return errors
