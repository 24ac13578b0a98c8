"""How a rate changes over time: factors, each from one moment to the next."""

from itertools import pairwise
from math import isfinite, pi, sin

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.planner.columns import Floats

DAY_S: Seconds = 86_400.0


class Curve(msgspec.Struct, frozen=True):
    """From `from_s[k]` until the next the rate is `factors[k]` times what it would be. `from_s` begins with 0 and ascends; the last
    factor holds for ever."""

    from_s: tuple[Seconds, ...]
    factors: tuple[float, ...]

    def checked(self) -> "Curve":
        """Raises ConfigError for what is no curve."""
        if len(self.from_s) != len(self.factors) or not self.from_s or self.from_s[0] != 0:
            raise ConfigError("a curve has a factor for each moment, the first of which is 0")
        if not all(before < after for before, after in pairwise(self.from_s)):
            raise ConfigError("the moments of a curve ascend")
        if not all(isfinite(factor) and factor >= 0 for factor in self.factors) or not any(self.factors):
            raise ConfigError("the factors of a curve are finite, not negative, and not all 0")
        return self

    def knots(self, duration_s: Seconds) -> tuple[Floats, Floats]:
        """Moments from 0 to `duration_s`, and the integral of the factors up to each."""
        moments = np.array([*(moment for moment in self.from_s if moment < duration_s), duration_s])
        factors = np.array(self.factors[: len(moments) - 1])
        return moments, np.concatenate(([0.0], np.cumsum(factors * np.diff(moments))))


def step(at_s: Seconds, before: float, after: float) -> Curve:
    """Raises ConfigError for a moment or factors that make no curve."""
    return Curve((0.0, at_s), (before, after)).checked()


def day(low: float, high: float, peak_s: Seconds, *, days: int = 1, step_s: Seconds = 60.0) -> Curve:
    """A sine between `low` and `high` with its highest at `peak_s` of each day, in steps of `step_s`."""
    middle, swing = (low + high) / 2, (high - low) / 2
    moments = tuple(float(moment) for moment in np.arange(0.0, days * DAY_S, step_s))
    quarter_s = DAY_S / 4
    factors = tuple(
        middle + swing * sin(2 * pi * (moment + step_s / 2 - peak_s + quarter_s) / DAY_S) for moment in moments
    )
    return Curve(moments, factors).checked()
