"""The limit of a pool, searched for on line by what tokens cost: additive increase while all is well, a step down when not.

Once a window of WINDOW_S with ENOUGH samples, n = the worse of the medians of TTFT and TPOT over their objectives:

    L ← 0.8 · L + 0.2 · (L · clamp(1/n, 0.5, 1) + (√L if n < 0.95 else 0)),    L ≤ most

It does not grow while less than half of it is used: what was not tried proves nothing. Overload (429, 503, time-outs) cuts it to
0.7 · L, once in a round trip and a second. TTFTs must come length-normalized (`CapacityLine.stretch`), or one long prompt would
look like overload. `most` is 1.1 · b* where b* is known, from the line as corrected: a record that has grown old must not hold a
pool down, or let it run hot.
"""

from math import inf, isfinite, sqrt

from spillway.core.clock import Seconds

WINDOW_S: Seconds = 1.0
ENOUGH = 8  # samples that make a window
KEPT = 64  # samples of a window
SMOOTHING = 0.2
WELL = 0.95  # n below this leaves room to grow
DEEPEST_STEP = 0.5  # 1/n is not taken for less
OVERLOAD_CUT = 0.7
MOST = 1_000_000.0


class AdaptiveLimit:
    """`first_token` and `output` take times over their objectives; `tick` moves the limit once a window. Always within [1, MOST]."""

    __slots__ = ("_cut_at", "_first", "_output", "gap_s", "most", "raw")

    def __init__(self, start: int, most: float = inf, gap_s: Seconds = WINDOW_S) -> None:
        self.raw = min(MOST, float(max(1, start)))
        self.most = most
        self.gap_s = gap_s  # between two cuts: a round trip and a second
        self._cut_at: Seconds = -inf
        self._first: list[float] = []
        self._output: list[float] = []

    @property
    def limit(self) -> int:
        return max(1, int(self.raw + 1e-9))

    def first_token(self, ratio: float) -> None:
        if isfinite(ratio) and len(self._first) < KEPT:
            self._first.append(ratio)

    def output(self, ratio: float) -> None:
        if isfinite(ratio) and len(self._output) < KEPT:
            self._output.append(ratio)

    def overloaded(self, now: Seconds) -> None:
        if now >= self._cut_at + self.gap_s:
            self._cut_at = now
            self.raw = max(1.0, OVERLOAD_CUT * self.raw)

    def tick(self, most_in_flight: int) -> int:
        """`most_in_flight`: the most that ran at once in the window. Too few samples: they stay for the next one."""
        if len(self._first) + len(self._output) >= ENOUGH:
            worst = max(_median(self._first), _median(self._output))
            self._first.clear()
            self._output.clear()
            gain = min(1.0, max(DEEPEST_STEP, 1.0 / worst)) if worst > 0.0 else 1.0
            grows = worst < WELL and most_in_flight > self.raw / 2
            aim = self.raw * gain + (sqrt(self.raw) if grows else 0.0)
            self.raw = (1.0 - SMOOTHING) * self.raw + SMOOTHING * aim
        self.raw = max(1.0, min(self.raw, self.most if self.most == self.most else MOST, MOST))  # NaN bounds nothing
        return self.limit


def _median(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2] if samples else 0.0
