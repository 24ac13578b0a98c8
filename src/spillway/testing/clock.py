"""Time that a test moves by hand."""

import heapq
from collections.abc import Callable

from spillway.core.clock import Seconds

MONDAY_2024_S = 1_704_067_200.0  # 2024-01-01T00:00:00Z: where the wall clock of a test starts


class ManualClock:
    """A `core.clock.Clock` that stands still until `advance`; wall time runs along with monotonic time."""

    def __init__(self, monotonic_s: Seconds = 1000.0, wall_s: Seconds = MONDAY_2024_S) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s

    def monotonic(self) -> Seconds:
        return self._monotonic_s

    def wall(self) -> Seconds:
        return self._wall_s

    def advance(self, by_s: Seconds) -> None:
        """Raises ValueError for a negative step: monotonic time never goes back."""
        if by_s < 0:
            raise ValueError("time does not go back")
        self._monotonic_s += by_s
        self._wall_s += by_s

    def set_wall(self, wall_s: Seconds) -> None:
        """The wall clock may jump, as real ones do."""
        self._wall_s = wall_s


class ManualTimer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualTimers:
    """`core.clock.Timers` in virtual time: they fire, in order, only inside `advance` and `run`."""

    def __init__(self, now_s: Seconds = 0.0) -> None:
        self._now_s = now_s
        self._order = 0
        self._heap: list[tuple[Seconds, int, ManualTimer]] = []

    def time(self) -> Seconds:
        return self._now_s

    def call_at(self, when: Seconds, callback: Callable[[], object]) -> ManualTimer:
        timer = ManualTimer(callback)
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, timer))
        return timer

    def advance(self, by_s: Seconds) -> None:
        """Move time on by `by_s` and fire what falls due, also what the fired ones add within that span."""
        until_s = self._now_s + by_s
        while self._heap and self._heap[0][0] <= until_s:
            self._fire_next()
        self._now_s = until_s

    def run(self, limit: int = 1_000_000) -> None:
        """Fire timers until none is left. Raises RuntimeError after `limit` of them: something re-arms for ever."""
        for _ in range(limit):
            if not self._heap:
                return
            self._fire_next()
        raise RuntimeError(f"timers still pending after {limit}")

    def _fire_next(self) -> None:
        when_s, _, timer = heapq.heappop(self._heap)
        self._now_s = max(self._now_s, when_s)
        if not timer.cancelled:
            timer.callback()
