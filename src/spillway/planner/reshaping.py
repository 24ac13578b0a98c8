"""Traffic reshaped: faster, longer, at another rate, along a curve. Arrivals keep their order and their unevenness: time is
stretched, no arrival is left out or made up."""

from dataclasses import replace
from math import ceil, floor, isfinite

import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.planner.columns import Columns, Ints, check_count
from spillway.planner.curves import Curve


def faster(columns: Columns, speed: float) -> Columns:
    """`speed` times as fast. Raises ConfigError for a speed that is not above 0."""
    if not (isfinite(speed) and speed > 0):
        raise ConfigError(f"a speed is above 0, not {speed}")
    return replace(columns, at_s=columns.at_s / speed)


def period_s(columns: Columns) -> Seconds:
    """After which the arrivals can come again: from the first to the last and a mean gap more (1 s where there is no gap)."""
    count = len(columns)
    if count == 0:
        raise ConfigError("no arrivals")
    span_s = float(columns.at_s[-1] - columns.at_s[0])
    return span_s * count / (count - 1) if span_s > 0 else 1.0


def mean_rps(columns: Columns) -> float:
    return len(columns) / period_s(columns)


def at_rate(columns: Columns, rate_rps: float) -> Columns:
    """So fast that the mean rate is this. Raises ConfigError for a rate that is not above 0."""
    return faster(columns, rate_rps / mean_rps(columns))


def lasting(columns: Columns, duration_s: Seconds, *, from_s: Seconds = 0.0) -> Columns:
    """What comes in [from_s, from_s + duration_s) when the arrivals come again and again, with times from 0 on. Each time the same
    sessions and prefixes come. Raises ConfigError for more than MAX_ARRIVALS."""
    length_s = period_s(columns)
    until_s = from_s + duration_s
    check_count(duration_s / length_s * len(columns))
    start_s = float(columns.at_s[0])
    rounds = np.arange(floor(from_s / length_s), ceil(until_s / length_s) + 1)
    at_s = (rounds[:, None] * length_s + (columns.at_s - start_s)[None, :]).ravel()
    rows = np.tile(np.arange(len(columns)), len(rounds))
    within = np.flatnonzero((at_s >= from_s) & (at_s < until_s))
    return columns.at(rows[within], at_s[within] - from_s)


def modulated(columns: Columns, curve: Curve, duration_s: Seconds) -> Columns:
    """The arrivals along a curve: at t they come `factor(t)` times as fast, again and again until `duration_s`.

    An arrival of source time τ comes at the t with ∫₀ᵗ factor = τ (Cinlar's time change): counts follow the curve exactly, and
    gaps keep their CV wherever the factor is constant. Raises ConfigError for more than MAX_ARRIVALS.
    """
    moments, integral = curve.checked().knots(duration_s)
    source = lasting(columns, float(integral[-1]))
    return replace(source, at_s=np.interp(source.at_s, integral, moments))


def scaled(columns: Columns, *, inputs: float = 1.0, outputs: float = 1.0) -> Columns:
    """Token counts times these, at least 1; blocks of prefixes as inputs."""
    return replace(
        columns,
        input_tokens=_times(columns.input_tokens, inputs),
        output_tokens=_times(columns.output_tokens, outputs),
        block_tokens=_times(columns.block_tokens, inputs),
    )


def _times(tokens: Ints, factor: float) -> Ints:
    if not (isfinite(factor) and factor > 0):
        raise ConfigError(f"tokens are scaled by a number above 0, not {factor}")
    return np.maximum(1, np.rint(tokens * factor)).astype(np.int64)
