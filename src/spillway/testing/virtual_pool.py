"""A pool of engines in virtual time, as the capacity record describes one: all requests share it, T(b) = x + y·b seconds for b of them."""

import heapq

from spillway.core.clock import Seconds
from spillway.core.ids import RequestId
from spillway.traffic.fleet import Capacity

FIRST, END = "first", "end"


class VirtualPool:
    """Processor sharing: while b requests run, each gets 1 / T(b) of a reference request done in a second. O(log b) a request.

    `capacity` may be exchanged at any time. Times must not go back.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.running = 0
        self._done = 0.0  # of a request that has run since the beginning
        self._at: Seconds = 0.0
        self._due: list[tuple[float, int, RequestId, str]] = []
        self._count = 0

    def start(self, request: RequestId, now: Seconds, first: float, size: float) -> None:
        """Its first token comes when it is `first` done, its end when it is `size` done; 1: a request of the reference shape."""
        self._advance(now)
        self.running += 1
        for part, what in ((first, FIRST), (size, END)):
            self._count += 1
            heapq.heappush(self._due, (self._done + part, self._count, request, what))

    def next_due(self) -> Seconds:
        """When the next thing happens, unless others start before; `inf` while it is idle."""
        return self._at + (self._due[0][0] - self._done) * self._residence_s() if self._due else float("inf")

    def pop(self) -> tuple[Seconds, RequestId, str]:
        """What happens next: (when, whose, FIRST or END)."""
        now = max(self._at, self.next_due())
        self._at, self._done = now, self._due[0][0]
        _, _, request, what = heapq.heappop(self._due)
        if what == END:
            self.running -= 1
        return now, request, what

    def set_capacity(self, capacity: Capacity, now: Seconds) -> None:
        self._advance(now)
        self.capacity = capacity

    def _advance(self, now: Seconds) -> None:
        if self.running and now > self._at:
            self._done += (now - self._at) / self._residence_s()
        self._at = max(self._at, now)

    def _residence_s(self) -> Seconds:
        return self.capacity.x_s + self.capacity.y_s * max(1, self.running)
