"""Priorities: a closed set, from most to least urgent."""

import enum


class Priority(enum.StrEnum):
    REALTIME = "realtime"
    INTERACTIVE = "interactive"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return _RANK[self]

    def capped_by(self, highest: "Priority") -> "Priority":
        """This priority, or `highest` where that is less urgent: a key may not ask for more than it was given."""
        return self if _RANK[self] >= _RANK[highest] else highest


_RANK = {Priority.REALTIME: 0, Priority.INTERACTIVE: 1, Priority.BATCH: 2}
