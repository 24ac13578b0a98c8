"""The limit of a pool, searched for on line by what tokens cost: additive increase while all is well, a step down when not."""

from math import inf, sqrt

from spillway.core.clock import Seconds

WINDOW_S: Seconds = 1.0
ENOUGH = 8  # first tokens that make a window
KEPT = 64  # samples of a window
SMOOTHING = 0.2
WELL = 0.95  # n below this leaves room to grow
OVERLOAD_CUT = 0.7


class AdaptiveLimit:
    """`first_token` and `output`: times over their objectives. `tick` moves the limit once a window."""

    __slots__ = ("_cut_at", "_first", "_gap_s", "_output", "most", "raw")

    def __init__(self, start: int, most: float = inf, gap_s: Seconds = WINDOW_S) -> None:
        self.raw = float(max(1, start))
        self.most = most
        self._gap_s = gap_s  # between two cuts: a round trip and a second
        self._cut_at: Seconds = -inf
        self._first: list[float] = []
        self._output: list[float] = []

    @property
    def limit(self) -> int:
        return max(1, int(self.raw))

    def first_token(self, ratio: float) -> None:
        if len(self._first) < KEPT:
            self._first.append(ratio)

    def output(self, ratio: float) -> None:
        if len(self._output) < KEPT:
            self._output.append(ratio)

    def overloaded(self, now: Seconds) -> None:
        if now >= self._cut_at + self._gap_s:
            self._cut_at = now
            self.raw = max(1.0, OVERLOAD_CUT * self.raw)

    def tick(self, most_in_flight: int) -> int:
        if len(self._first) + len(self._output) < ENOUGH:
            return self.limit
        worst = max(_median(self._first), _median(self._output))
        self._first.clear()
        self._output.clear()
        gain = min(1.0, max(0.5, 1.0 / worst)) if worst > 0.0 else 1.0
        grows = worst < WELL and most_in_flight > self.raw / 2
        aim = self.raw * gain + (sqrt(self.raw) if grows else 0.0)
        self.raw = min(self.most, max(1.0, (1.0 - SMOOTHING) * self.raw + SMOOTHING * aim))
        return self.limit


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2] if samples else 0.0
