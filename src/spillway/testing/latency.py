"""How long a fake engine takes. Pure: costs of tokens, and how much the load stretches them.

A token costs so many seconds on an idle engine; b running requests stretch every cost by `stretch(b)`. So all running
requests advance at one common pace, and the engine can be simulated exactly with one clock of its own (see `sequences`).
"""

from typing import Protocol

from spillway.core.clock import Seconds
from spillway.testing.rng import SeededRng
from spillway.testing.spec import LatencyLine, UpstreamSpec

INPUT_WORK, OUTPUT_WORK = 1, 4  # work of a token, as the brain weighs it before it has fitted anything


class Latency(Protocol):
    def first_token_s(self, input_tokens: int) -> Seconds:
        """Cost from the start to the first output token; where no output is asked for, to the end."""
        ...

    def next_token_s(self) -> Seconds: ...

    def stretch(self, running: int) -> float: ...


class SimLatency:
    """llm-d-inference-sim's model: constant or per-token prefill, a constant step, a factor under load, Gaussian jitter."""

    def __init__(self, spec: UpstreamSpec, rng: SeededRng) -> None:
        self._spec = spec
        self._rng = rng

    def first_token_s(self, input_tokens: int) -> Seconds:
        spec = self._spec
        if spec.time_to_first_token_s:
            return self._jittered(spec.time_to_first_token_s, spec.time_to_first_token_std_dev_s)
        return spec.prefill_overhead_s + input_tokens * spec.prefill_time_per_token_s

    def next_token_s(self) -> Seconds:
        return self._jittered(self._spec.inter_token_latency_s, self._spec.inter_token_latency_std_dev_s)

    def stretch(self, running: int) -> float:
        """1 + (factor − 1) · (b − 1) / (max_num_seqs − 1)."""
        others = self._spec.max_num_seqs - 1
        if others < 1:
            return 1.0
        return 1.0 + (self._spec.time_factor_under_load - 1.0) * (running - 1) / others

    def _jittered(self, mean_s: Seconds, deviation_s: Seconds) -> Seconds:
        """Never further than 70 % from the mean, as in the simulator that the names come from."""
        return min(max(self._rng.normal(mean_s, deviation_s), 0.3 * mean_s), 1.7 * mean_s)


class LineLatency:
    """T(b) = x + y·b, exact for every shape and also while b changes."""

    def __init__(self, line: LatencyLine) -> None:
        self._line = line
        reference_work = INPUT_WORK * line.input_tokens + OUTPUT_WORK * line.output_tokens
        self._share_of_work = 1.0 / reference_work

    def first_token_s(self, input_tokens: int) -> Seconds:
        return (INPUT_WORK * input_tokens + OUTPUT_WORK) * self._share_of_work

    def next_token_s(self) -> Seconds:
        return OUTPUT_WORK * self._share_of_work

    def stretch(self, running: int) -> float:
        return self._line.x_s + self._line.y_s * running


def latency_of(spec: UpstreamSpec, rng: SeededRng) -> Latency:
    return SimLatency(spec, rng) if spec.latency_line is None else LineLatency(spec.latency_line)
