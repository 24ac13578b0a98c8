"""The capacity record of a pool, T(b) = x + y·b seconds for b requests in it, and what follows from it; corrected on line."""

from math import inf, isfinite

from spillway.core.clock import Seconds
from spillway.traffic.fleet import Capacity

INPUT_WORK, OUTPUT_WORK = 1.0, 4.0
SLOWNESS = 1 / 64
MOST_SCALE = 4.0  # a correction stays within a quarter and four times of what was given


class CapacityLine:
    """The line of one pool, for the work of its reference shape; `scale` corrects it by what completions took."""

    __slots__ = ("_first_s", "_per_input_s", "given", "reference_work", "scale", "tokens_each")

    def __init__(self, given: Capacity | None) -> None:
        self.given = given
        shape = None if given is None else given.reference
        self.reference_work = (
            0.0 if shape is None else INPUT_WORK * shape.input_tokens + OUTPUT_WORK * shape.output_tokens
        )
        self.scale = 1.0
        self.tokens_each = 0.0
        self._first_s: Seconds = 0.0
        self._per_input_s = 0.0

    def completed(self, beside: float, residence_s: Seconds, work: float) -> None:
        if self.given is None or not self.reference_work or work <= 0.0 or not isfinite(residence_s):
            return
        expected_s = (self.given.x_s + self.given.y_s * beside) * work / self.reference_work
        if expected_s > 0.0:
            ratio = min(MOST_SCALE, max(1.0 / MOST_SCALE, residence_s / expected_s))
            self.scale += SLOWNESS * (ratio - self.scale)

    def answered(self, beside: float, input_tokens: int, ttft_s: Seconds) -> None:
        if isfinite(ttft_s) and ttft_s >= 0.0:
            self._first_s += SLOWNESS * (ttft_s / (1.0 + beside) - self._first_s)

    def ttft_s(self, beside: float, input_tokens: int) -> Seconds:
        return self._first_s * (1.0 + beside)

    def work_per_s(self, in_flight: float) -> float:
        """Throughput with so many in flight, work tokens a second: w · b / (x + y·b); 0: not known."""
        if self.given is None or not self.reference_work or in_flight <= 0.0:
            return 0.0
        residence_s = (self.given.x_s + self.given.y_s * in_flight) * self.scale
        return self.reference_work * in_flight / residence_s if residence_s > 0.0 else 0.0


def b_star(capacity: Capacity, slo_s: Seconds) -> float:
    """Most in flight under an objective of the residence: (T_slo − x) / y."""
    return inf if capacity.y_s <= 0 else (slo_s - capacity.x_s) / capacity.y_s
