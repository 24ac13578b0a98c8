"""How much load a fleet carries at an objective: what spilling between regions saves in capacity."""

from collections.abc import Callable

CLOSE = 0.01  # of the load: bisection ends there


def most_load(attainment: Callable[[float], float], objective: float, low: float, high: float) -> float:
    """The largest load in [low, high], to CLOSE, at which `attainment` (falling with load) is at least `objective`; `low` where
    not even that does. Capacity needed is in proportion to 1 / load."""
    while high - low > CLOSE:
        middle = (low + high) / 2
        if attainment(middle) >= objective:
            low = middle
        else:
            high = middle
    return low


def saved(alone: float, together: float) -> float:
    """The part of the capacity that is not needed where the larger load is carried: 1 − alone / together."""
    return 1.0 - alone / together
