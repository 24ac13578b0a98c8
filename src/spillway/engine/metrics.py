"""The engine's figures as Prometheus text, under the names that vLLM uses, so that one reader serves both.

Running and waiting requests and cache usage are of this moment; everything else only grows. Times are seconds.
"""

from bisect import bisect_left

from spillway.core.clock import Seconds
from spillway.engine.ports import Finish
from spillway.engine.stepper import Counters

CONTENT_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
TTFT_BOUNDS_S = (
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
E2E_BOUNDS_S = (
    0.01,
    0.05,
    0.1,
    0.3,
    0.5,
    0.8,
    1.0,
    1.5,
    2.0,
    2.5,
    5.0,
    10.0,
    15.0,
    20.0,
    30.0,
    40.0,
    60.0,
    120.0,
    240.0,
)


class Histogram:
    """Counts of values up to each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, label: str) -> list[str]:
        lines = [f"# TYPE {name} histogram"]
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{label},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{label}}} {self._sum:.6f}", f"{name}_count{{{label}}} {total}"]


class EngineMetrics:
    """What the front counts; the rest it reads from the stepper's counters when asked for the text."""

    def __init__(self, model: str) -> None:
        escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._label = f'model_name="{escaped}"'
        self._ttft_s = Histogram(TTFT_BOUNDS_S)
        self._e2e_s = Histogram(E2E_BOUNDS_S)
        self._ended = dict.fromkeys((*Finish, None), 0)
        self._refused = 0

    def first_token(self, after_s: Seconds) -> None:
        self._ttft_s.observe(after_s)

    def ended(self, finish: Finish | None, after_s: Seconds) -> None:
        """None: the client left."""
        self._ended[finish] += 1
        if finish in (Finish.STOP, Finish.LENGTH):
            self._e2e_s.observe(after_s)

    def refused(self) -> None:
        """The waiting room was full."""
        self._refused += 1

    def text(self, counters: Counters, *, open_requests: int) -> bytes:
        """`open_requests`: in the batch, waiting, or on the way there."""
        running = min(counters.running, open_requests)
        label = self._label
        lines: list[str] = []
        for kind, name, value in (
            ("gauge", "vllm:num_requests_running", running),
            ("gauge", "vllm:num_requests_waiting", open_requests - running),
            ("gauge", "vllm:kv_cache_usage_perc", f"{counters.kv_usage:.6f}"),
            ("counter", "vllm:prompt_tokens_total", counters.prompt_tokens),
            ("counter", "vllm:generation_tokens_total", counters.output_tokens),
            ("counter", "spillway_engine_steps_total", counters.steps),
            ("counter", "spillway_engine_step_seconds_total", f"{counters.step_s:.6f}"),
            ("counter", "spillway_engine_rebuilds_total", counters.failures),
            ("counter", "spillway_engine_refused_total", self._refused),
        ):
            lines += (f"# TYPE {name} {kind}", f"{name}{{{label}}} {value}")
        lines.append("# TYPE vllm:request_success_total counter")
        for finish in (Finish.STOP, Finish.LENGTH):
            lines.append(
                f'vllm:request_success_total{{{label},finished_reason="{finish.value}"}} {self._ended[finish]}'
            )
        lines.append("# TYPE spillway_engine_unfinished_total counter")
        for finish, reason in ((Finish.FAILED, "failed"), (None, "client_left")):
            lines.append(f'spillway_engine_unfinished_total{{{label},reason="{reason}"}} {self._ended[finish]}')
        lines += self._ttft_s.lines("vllm:time_to_first_token_seconds", label)
        lines += self._e2e_s.lines("vllm:e2e_request_latency_seconds", label)
        return ("\n".join(lines) + "\n").encode()
