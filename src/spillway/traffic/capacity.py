"""The capacity of a pool, T(b) = x + y·b seconds for b requests in it, and what follows from it; corrected on line.

    throughput           λ(b) = b / T(b)
    most under an SLO    b* = (T_slo − x) / y, with T_slo = TTFT + TPOT · (n_out − 1)
    most in memory       b ≤ K / (n_in + n_out / 2): a request begins with its input and ends with all of its output

A request costs work: input_weight · n_in + output_weight · n_out (1 : 4 unless configured), and its residence is taken as
proportional to it. So the line is kept in seconds per work token, and a record speaks for requests of any shape.
"""

from math import inf, isfinite

from spillway.core.clock import Seconds
from spillway.traffic.fleet import Capacity, FairnessRules, Slo, TokenShape
from spillway.traffic.trend import Trend

LIMIT_OVER_BEST = 1.1  # an adaptive limit is at most so many times b*
MOST_TOKENS = (
    1_000_000_000  # of one request, and most requests beside it: beyond it is nonsense that would drown all else
)
LEAST_S: Seconds = 1e-6  # sooner than this nothing is over: it is a broken clock's word
MOST_S = 1e7
MEMORY = 64  # requests that means of sizes look back on


def slo_s(slo: Slo, shape: TokenShape | None) -> Seconds:
    """T_slo: how long a request of this shape may stay; `inf` where one of the two objectives, or the shape, is not given."""
    if shape is None or slo.ttft_ms is None or slo.tpot_ms is None:
        return inf
    return (slo.ttft_ms + slo.tpot_ms * max(0, shape.output_tokens - 1)) / 1000.0


def b_star(capacity: Capacity, most_s: Seconds) -> float:
    """Most in flight whose residence is at most `most_s`, by the record; below 0 where even one takes longer."""
    return inf if capacity.y_s <= 0 else (most_s - capacity.x_s) / capacity.y_s


def memory_bound(capacity: Capacity) -> float:
    """Most in flight by the engine's sequences and KV tokens; `inf` where the record names neither."""
    sequences = inf if capacity.max_sequences is None else float(capacity.max_sequences)
    shape = capacity.reference
    tokens_each = 0.0 if shape is None else shape.input_tokens + shape.output_tokens / 2
    if capacity.kv_tokens is None or tokens_each <= 0:
        return sequences
    return min(sequences, capacity.kv_tokens / tokens_each)


class CapacityLine:
    """The line of one pool. With a record that names its reference shape it begins there, and completions bend it (scale first,
    then slope); without one it is learned from nothing and is optimistic, T(b) = T, until load has been seen to matter."""

    __slots__ = (
        "_first",
        "_input_each",
        "_line",
        "_per_work",
        "_slow",
        "_work_each",
        "given",
        "reference_work",
        "tokens_each",
        "weights",
    )  # fmt: skip

    def __init__(self, given: Capacity | None, weights: FairnessRules) -> None:
        self.given = given
        self.weights = weights
        shape = None if given is None else given.reference
        self.reference_work = 0.0 if shape is None else self.work(shape.input_tokens, shape.output_tokens)
        self.tokens_each = 0.0  # mean of input + output; 0: nothing has ended yet
        self._work_each = self.reference_work
        self._input_each = 0.0 if shape is None else float(shape.input_tokens)
        known = given is not None and self.reference_work > 0.0 and given.x_s + given.y_s > 0.0
        # seconds per work token as the record has them, x + y·b; without a record: of b itself
        self._per_work = (given.x_s / self.reference_work, given.y_s / self.reference_work) if given and known else None
        self._slow = given.y_s / (given.x_s + given.y_s) if given and known else 0.0
        if self._per_work is None:
            self._line, self._first = Trend(lean=0.0), Trend(lean=1.0)
            return
        x, y = self._per_work
        self._line, self._first = Trend(lean=1.0), Trend(lean=1.0)
        self._line.begin(x + y, x + y)
        self._first.begin(max(1.0, self._input_each), max(1.0, self._input_each) * weights.input_weight * (x + y))

    def work(self, input_tokens: int, output_tokens: int) -> float:
        """Work tokens; each count is taken as within [0, MOST_TOKENS]."""
        weights = self.weights
        return weights.input_weight * _within(input_tokens) + weights.output_weight * _within(output_tokens)

    # Lessons

    def completed(self, beside: float, residence_s: Seconds, input_tokens: int, output_tokens: int) -> None:
        """A request ended well; `beside`: mean number in the pool meanwhile, itself included."""
        work = self.work(input_tokens, output_tokens)
        if not (work > 0.0 and LEAST_S <= residence_s < MOST_S and 0.0 <= beside < MOST_TOKENS):
            return
        self.tokens_each = _mean(self.tokens_each, _within(input_tokens) + _within(output_tokens))
        if self._per_work is None:
            self._work_each = _mean(self._work_each, work)
            self._input_each = _mean(self._input_each, _within(input_tokens))
        self._line.add(self._expected(beside), residence_s / work)

    def answered(self, beside: float, cold_tokens: int, ttft_s: Seconds) -> None:
        """A first token came; `cold_tokens`: of its input those that were not cached."""
        if 0.0 <= ttft_s < MOST_S and 0.0 <= beside < MOST_TOKENS:
            self._first.add(self._prefill(beside, cold_tokens), ttft_s)

    # What follows

    def ttft_s(self, beside: float, cold_tokens: int) -> Seconds:
        """Predicted time to first token with so many in the pool: an affine function of (tokens not cached · slowness under load)
        fitted to what was seen. Without a record and before any answer: 0."""
        first = self._first
        return max(0.0, first.base + first.slope * self._prefill(beside, cold_tokens))

    def stretch(self, cold_tokens: int) -> float:
        """How many times the usual TTFT this input may take: its length over that of the reference (or the mean), at least 1."""
        usual = self._input_each
        return min(cold_tokens, MOST_TOKENS) / usual if cold_tokens > usual > 0.0 else 1.0

    def prompt_tokens_in(self, seconds: Seconds) -> float:
        """How many tokens of prompts the pool computes in so much time, by the record: y is what one more request costs the others, and
        its input's part of that is the time to compute it. `inf` where that is not known."""
        if self._per_work is None or self._per_work[1] <= 0.0 or self.weights.input_weight <= 0.0:
            return inf
        return seconds / (self._per_work[1] * self.weights.input_weight)

    def seconds_per_work(self, in_flight: float) -> float:
        """T(b) / work as corrected; 0: not known."""
        line = self._line
        return max(0.0, line.base + line.slope * self._expected(in_flight))

    def work_per_s(self, in_flight: float) -> float:
        """Throughput with so many in flight, in work tokens a second; 0: not known."""
        each_s = self.seconds_per_work(in_flight)
        return in_flight / each_s if each_s > 0.0 and 0.0 < in_flight < inf else 0.0

    def most_in_flight(self, most_s: Seconds) -> float:
        """b* under this T_slo as corrected, at least 1 and within memory; `inf` where that is not known or nothing bounds it."""
        memory = inf if self.given is None else memory_bound(self.given)
        x_s, y_s = self.corrected()
        if not (y_s > 0.0 and isfinite(most_s)):
            return max(1.0, memory)
        return max(1.0, min(memory, (most_s - x_s) / y_s))

    def corrected(self) -> tuple[Seconds, Seconds]:
        """(x, y) of T(b) for the reference shape (without a record: for the mean request seen), by what completions took.

        x may be below 0 where load matters more than the record says. (0, 0): not known."""
        line, work = self._line, self._work_each
        x, y = (0.0, 1.0) if self._per_work is None else self._per_work
        return (line.base + line.slope * x) * work, line.slope * y * work

    def _expected(self, in_flight: float) -> float:
        return in_flight if self._per_work is None else self._per_work[0] + self._per_work[1] * in_flight

    def _prefill(self, beside: float, cold_tokens: int) -> float:
        """Tokens, as many as would take as long in an idle pool: TTFT stretches with load as T(b) does."""
        tokens = cold_tokens if cold_tokens < MOST_TOKENS else MOST_TOKENS
        return (tokens if tokens > 1 else 1) * (1.0 + self._slow * (beside - 1.0 if beside > 1.0 else 0.0))


def _within(tokens: int) -> int:
    return min(MOST_TOKENS, tokens) if tokens > 0 else 0


def _mean(mean: float, seen: float) -> float:
    return mean + (seen - mean) / MEMORY if mean else float(seen)
