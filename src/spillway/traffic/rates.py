"""How fast the slots of a model come free, and what that says of waiting."""

from spillway.core.clock import Seconds

MEMORY = 16  # completions that the mean residence looks back on
ENOUGH = 8  # completions before a prediction refuses anybody
SOONEST_RETRY_S = 1.0
LATEST_RETRY_S = 60.0


class DrainRate:
    """Completions per second by Little's law: in flight / mean residence.

    Counting completions over time would mistake a quiet hour for a slow model; the residence time is the same whether
    the model is idle or full, and what is in flight is known exactly.
    """

    __slots__ = ("completions", "in_flight", "residence_s")

    def __init__(self) -> None:
        self.in_flight = 0
        self.completions = 0
        self.residence_s: Seconds = 0.0  # EWMA over MEMORY completions, the plain mean until there are as many

    def completed(self, residence_s: Seconds) -> None:
        completions = self.completions = self.completions + 1
        self.residence_s += (residence_s - self.residence_s) / (completions if completions < MEMORY else MEMORY)

    def wait_s(self, ahead: float) -> Seconds:
        """Expected wait behind `ahead` others: the k-th completion from now comes after (k − ½) · residence / in flight.
        0 while nothing is known."""
        if not self.in_flight or self.completions < ENOUGH:
            return 0.0
        return (ahead + 0.5) * self.residence_s / self.in_flight

    def retry_after_s(self, waiting: int) -> Seconds:
        """When those who wait now will have been served: a good time to come back."""
        return retry_in(self.wait_s(waiting))


def retry_in(seconds: Seconds) -> Seconds:
    """Within what a client should be told: not to hammer, and not to go away for good."""
    return min(max(seconds, SOONEST_RETRY_S), LATEST_RETRY_S)
