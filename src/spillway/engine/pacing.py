"""A step's least duration, so that engines which share a machine each have a capacity of their own.

A step of n sequences lasts base + each · n seconds. The sums of the steps are exact, also when single waits come back late: the next
step is due after the one before it was due, not after it ended.
"""

from spillway.core.clock import Seconds

SLACK_STEPS = 2.0
"""By how many steps an engine may be behind its pace and still catch up. More means that it cannot keep the pace: no debt is kept."""


class Pace:
    """When the current step is due. `Pace(0, 0)` never waits."""

    __slots__ = ("_base_s", "_due_s", "_per_sequence_s", "enabled")

    def __init__(self, base_s: Seconds, per_sequence_s: Seconds) -> None:
        self._base_s = base_s
        self._per_sequence_s = per_sequence_s
        self._due_s = 0.0
        self.enabled = base_s > 0 or per_sequence_s > 0

    def resume(self, now: Seconds) -> None:
        """The engine was idle and begins to step."""
        self._due_s = now

    def wait_s(self, sequences: int, now: Seconds) -> Seconds:
        """How long to wait, at the end of a step of that many sequences."""
        step_s = self._base_s + self._per_sequence_s * sequences
        self._due_s = max(self._due_s + step_s, now - SLACK_STEPS * step_s)
        return max(0.0, self._due_s - now)
