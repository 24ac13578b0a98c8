"""Panic: all tiers of a route together can't carry its demand. Its pools lift their ceilings then, its requests pass by spill
shares, and what is turned away is turned away by priority."""

from math import inf

from spillway.core.clock import Seconds

ENTER_S = 1.0  # saturated for so long
LEAVE_S = 5.0  # not saturated for so long


class Panic:
    __slots__ = ("_calm_since", "_full_since", "active", "watches")

    def __init__(self) -> None:
        self.active = False
        self.watches = False  # whether an arrival that found room is news
        self._full_since: Seconds = inf
        self._calm_since: Seconds = inf

    def update(self, now: Seconds, *, saturated: bool) -> bool:
        """An arrival found no room (`saturated`), or found it. True: `active` changed."""
        if saturated:
            self._calm_since = inf
            if self._full_since == inf:
                self._full_since, self.watches = now, True
            if self.active or now - self._full_since < ENTER_S:
                return False
            self.active = True
            return True
        self._full_since = inf
        if not self.active:
            self.watches = False
            return False
        self._calm_since = min(self._calm_since, now)
        if now - self._calm_since < LEAVE_S:
            return False
        self.active = self.watches = False
        self._calm_since = inf
        return True
