"""Max-min fairness in whole units."""

from collections.abc import Mapping
from typing import TypeVar

Name = TypeVar("Name")


def max_min(room: int, demands: Mapping[Name, int]) -> dict[Name, int]:
    """Nobody gets more than it demands, and nobody gets less so that another who has more gets more. What does not divide evenly goes
    to those that come first. Demands below 0 count as 0.

    By water filling: D. Bertsekas, R. Gallager, Data Networks, 2nd edition, 6.5.2.
    """
    given: dict[Name, int] = {}
    left = max(0, room)
    waiting = sorted(demands.items(), key=lambda one: one[1])
    for i, (name, demand) in enumerate(waiting):
        part = -(-left // (len(waiting) - i)) if demand * (len(waiting) - i) > left else demand
        given[name] = max(0, min(part, demand))
        left -= given[name]
    return given
