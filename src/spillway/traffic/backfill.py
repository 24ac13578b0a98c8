"""Backfill: how far batch may fill a pool while online requests come and go, and which of it makes room for them.

    budget = θ · ceiling · L − online − foreign − σ

Batch is admitted while it runs no more than that. σ = ⌊λ·h + √(λ·h)⌋ keeps the room that online arrivals (λ a second) will want within
h seconds, their spread included. θ goes down by DECREASE in a window in which online requests missed their objectives here, and up by
INCREASE in one in which they did not. Who yields is what was computed least: the latest one sent. What a request was owed of its
minimum share it keeps, and what runs at a provider is paid for and stays.
"""

from math import inf, sqrt

from spillway.core.clock import Seconds

WINDOW_S: Seconds = 1.0
HORIZON_S: Seconds = 0.25  # h: a slot that yields is free at once, and an engine's step later for the engine
MEMORY_S: Seconds = 2.0  # of the rate
MISSES = 0.02
DECREASE = 0.7
INCREASE = 0.02
LEAST = 0.1
MOST_AT_ONCE = 4  # that yield to one newcomer: KV tokens of one may take several


class Backfill:
    """Of one pool. Counted only while there is batch for it; `tick` once a window, on whatever event comes next."""

    __slots__ = ("_arrivals", "_began_at", "_missed", "_seen", "due", "rate", "theta")

    def __init__(self) -> None:
        self.theta = 1.0
        self.rate = 0.0  # of online arrivals
        self.due: Seconds = -inf
        self._began_at: Seconds = -inf
        self._arrivals = 0
        self._seen = 0
        self._missed = 0

    def arrived(self) -> None:
        """An online request was sent to the pool."""
        self._arrivals += 1

    def seen(self, *, missed: bool) -> None:
        """How an online request did there, by its TTFT or its TPOT."""
        self._seen += 1
        self._missed += missed

    def tick(self, now: Seconds) -> None:
        window_s = now - self._began_at
        if window_s < inf:
            keeps = max(0.0, 1.0 - window_s / MEMORY_S)
            self.rate = keeps * self.rate + (1.0 - keeps) * self._arrivals / window_s
            if self._missed > MISSES * self._seen:
                self.theta = max(LEAST, DECREASE * self.theta)
            else:
                self.theta = min(1.0, self.theta + INCREASE)
        self._began_at, self.due = now, now + WINDOW_S
        self._arrivals = self._seen = self._missed = 0

    @property
    def reserve(self) -> int:
        """σ, in slots."""
        expected = self.rate * HORIZON_S
        return int(expected + sqrt(expected) + 1e-9)
