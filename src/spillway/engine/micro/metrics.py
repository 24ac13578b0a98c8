"""Figures of micro-batches as Prometheus text; running and waiting under the names that vLLM uses."""

from spillway.engine.micro.runner import Runner

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


def text_of(model: str, runner: Runner, refused: int) -> bytes:
    escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    label, counts = f'model_name="{escaped}"', runner.counts
    lines: list[str] = []
    for kind, name, value in (
        ("gauge", "vllm:num_requests_running", runner.running),
        ("gauge", "vllm:num_requests_waiting", runner.waiting),
        ("counter", "spillway_engine_batches_total", counts.batches),
        ("counter", "spillway_engine_batch_seconds_total", f"{counts.busy_s:.6f}"),
        ("counter", "spillway_engine_items_failed_total", counts.failed),
        ("counter", "spillway_engine_items_late_total", counts.late),
        ("counter", "spillway_engine_bisections_total", counts.bisections),
        ("counter", "spillway_engine_refused_total", refused),
    ):
        lines += (f"# TYPE {name} {kind}", f"{name}{{{label}}} {value}")
    name = "spillway_engine_batch_items"
    lines.append(f"# TYPE {name} histogram")
    for bound in (*SIZES, None):
        within = sum(count for size, count in counts.sizes.items() if bound is None or size <= bound)
        lines.append(f'{name}_bucket{{{label},le="{"+Inf" if bound is None else bound}"}} {within}')
    lines += (f"{name}_sum{{{label}}} {counts.items}", f"{name}_count{{{label}}} {counts.batches}")
    return ("\n".join(lines) + "\n").encode()
