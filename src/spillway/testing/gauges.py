"""What the fake engine says about itself at /metrics, under vLLM's names."""

from bisect import bisect_left
from collections import Counter

from spillway.core.clock import Seconds

_BUCKETS_S = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)


class Histogram:
    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, value_s: Seconds) -> None:
        self._counts[bisect_left(_BUCKETS_S, value_s)] += 1
        self._sum_s += value_s

    def lines(self, name: str, label: str) -> list[str]:
        lines = [f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip([*map(str, _BUCKETS_S), "+Inf"], self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{label},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{label}}} {self._sum_s}", f"{name}_count{{{label}}} {total}"]


class EngineTotals:
    """Counters since the start."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.successes: Counter[str] = Counter()  # by finish reason
        self.ttft = Histogram()
        self.e2e = Histogram()


def metrics_text(
    model: str, totals: EngineTotals, *, running: int, waiting: int, kv_usage: float, preemptions: int
) -> bytes:
    label = f'model_name="{model}"'
    lines: list[str] = []
    for name, kind, value in (
        ("vllm:num_requests_running", "gauge", running),
        ("vllm:num_requests_waiting", "gauge", waiting),
        ("vllm:kv_cache_usage_perc", "gauge", kv_usage),
        ("vllm:num_preemptions_total", "counter", preemptions),
        ("vllm:prompt_tokens_total", "counter", totals.prompt_tokens),
        ("vllm:generation_tokens_total", "counter", totals.generation_tokens),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name}{{{label}}} {value}"]
    lines.append("# TYPE vllm:request_success_total counter")
    for reason, count in sorted(totals.successes.items()):
        lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}')
    lines += totals.ttft.lines("vllm:time_to_first_token_seconds", label)
    lines += totals.e2e.lines("vllm:e2e_request_latency_seconds", label)
    return "\n".join(lines).encode() + b"\n"
