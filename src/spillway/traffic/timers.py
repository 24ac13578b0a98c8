"""What falls due: one heap for everything, so that one comparison tells an event that nothing has."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

from spillway.core.clock import Seconds

Subject = TypeVar("Subject")


class Timers(Generic[Subject]):
    """Timers are never cancelled: whoever is told that one fell due looks whether it still matters.

    The heap is swept of those that don't when it has grown to twice what was left by the last sweep,
    so it holds at most twice the living timers plus `SLACK`, at an amortized constant cost.
    """

    SLACK = 256

    __slots__ = ("_heap", "_matters", "_order", "_sweep_at", "next_due")

    def __init__(self, matters: Callable[[Subject], bool]) -> None:
        self._matters = matters
        self._heap: list[tuple[Seconds, int, Subject]] = []
        self._order = 0  # subjects are never compared
        self._sweep_at = self.SLACK
        self.next_due: Seconds = inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: Seconds, subject: Subject) -> None:
        self._order += 1
        heappush(self._heap, (due, self._order, subject))
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        self.next_due = self._heap[0][0] if self._heap else inf

    def pop(self) -> Subject:
        """The subject of the earliest timer. There must be one: `next_due` is finite."""
        subject = heappop(self._heap)[2]
        self.next_due = self._heap[0][0] if self._heap else inf
        return subject

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if self._matters(entry[2])]
        heapify(self._heap)
        self._sweep_at = 2 * len(self._heap) + self.SLACK
