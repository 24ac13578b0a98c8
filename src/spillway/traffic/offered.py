"""How much work is offered a second: steady while arrivals only scatter, quick when they change."""

from math import exp, sqrt

from spillway.core.clock import Seconds

MEMORY_S: Seconds = 30.0
SURPRISE = 3.0  # standard deviations that do not come by chance


class OfferedRate:
    """An average over `quick_s` would follow every flurry of arrivals, one over MEMORY_S would sleep through a step. So: the mean since
    the last change, of MEMORY_S at most, and a change is when the quick average is further from it than SURPRISE times its own
    scatter, which is measured and not assumed to be Poisson's: real arrivals come in bursts."""

    __slots__ = ("_quick", "_scatter", "_seen_s", "rate")

    def __init__(self) -> None:
        self.rate = 0.0  # work tokens a second
        self._quick = 0.0
        self._scatter = 0.0  # mean square of what a step offers around `_quick`, (work / s)²
        self._seen_s: Seconds = 0.0

    def step(self, work: float, step_s: Seconds, quick_s: Seconds) -> None:
        """So much was offered in the last `step_s` > 0."""
        now = work / step_s
        gain = 1.0 - exp(-step_s / quick_s)
        around = now - self._quick  # not around `rate`: after a step that would take the step for scatter
        self._quick += gain * around
        self._seen_s = min(MEMORY_S, self._seen_s + step_s)
        slow = min(1.0, step_s / self._seen_s)
        self.rate += slow * (now - self.rate)
        self._scatter += min(1.0, step_s / MEMORY_S) * (around * around - self._scatter)
        surprise = SURPRISE * sqrt(self._scatter * gain / (2.0 - gain))
        if abs(self._quick - self.rate) > surprise:
            self.rate = self._quick
            self._seen_s = min(self._seen_s, quick_s)
