"""What a fake engine is like: its names, its speed, its room. Options are named as those of llm-d-inference-sim."""

import msgspec

from spillway.core.clock import Seconds


class LatencyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Residence time T(b) = x_s + y_s · b of a request of the reference shape while b requests run.

    A request of another shape takes T(b) · w / w_ref, where w = input + 4 · output is its work in tokens.
    """

    x_s: Seconds
    y_s: Seconds
    input_tokens: int = 200
    output_tokens: int = 80


class UpstreamSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All durations are seconds. `latency_line`, where given, replaces the other speeds."""

    models: tuple[str, ...] = ("fake",)
    # how long things take
    time_to_first_token_s: Seconds = 0.0
    time_to_first_token_std_dev_s: Seconds = 0.0
    prefill_overhead_s: Seconds = 0.0
    prefill_time_per_token_s: Seconds = 0.0  # with the overhead: used while time_to_first_token_s is 0
    inter_token_latency_s: Seconds = 0.0
    inter_token_latency_std_dev_s: Seconds = 0.0
    time_factor_under_load: float = 1.0  # all of the above times this when max_num_seqs run, 1 for a single one
    latency_line: LatencyLine | None = None
    # how much fits
    max_num_seqs: int = 256  # requests that run together; more wait
    max_waiting_queue_length: int = 1000  # more are answered 429
    kv_cache_size: int | None = None  # in blocks; None: unlimited
    block_size: int = 16  # tokens of a block
    max_model_len: int = 32768  # input and output tokens of one request; more is 400 context_length_exceeded
    # what comes out
    output_tokens: int = 32  # of a reply that max_tokens does not cut
    embedding_dimensions: int = 384
    kept_requests: int = 256  # the log in memory keeps headers and bodies of so many, the newest; its file none
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models or min(self.max_num_seqs, self.block_size, self.output_tokens, self.max_model_len) < 1:
            raise ValueError("models, max_num_seqs, block_size, output_tokens and max_model_len must not be empty or 0")
        if self.time_factor_under_load < 1.0:
            raise ValueError("time_factor_under_load is at least 1")

    @property
    def longest_request_tokens(self) -> int:
        """No single request may be larger than the KV cache: it could never run."""
        if self.kv_cache_size is None:
            return self.max_model_len
        return min(self.max_model_len, self.kv_cache_size * self.block_size)


_DURATION_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> Seconds:
    """`100ms`, `1.5s`, `750us`, `2m`, `1h` or `0` in seconds. Raises ValueError for anything else: no unit, no guess."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit_s = _DURATION_UNITS_S.get(text[len(number) :])
    if number == text and float(number) == 0.0:
        return 0.0
    if unit_s is None:
        raise ValueError(f"{text!r} is not a duration such as 100ms or 1.5s")
    seconds = float(number) * unit_s
    if not 0.0 <= seconds < 1e9:
        raise ValueError(f"{text!r} is not a possible duration")
    return seconds
