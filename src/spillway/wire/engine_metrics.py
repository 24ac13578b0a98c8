"""The load of an engine from its Prometheus text: vLLM, SGLang and TGI, in one small value. Ours speaks vLLM's names."""

import math
import re

import msgspec

MAX_TEXT_BYTES = 8 << 20

_RUNNING = (b"vllm:num_requests_running", b"sglang:num_running_reqs", b"tgi_batch_current_size")
_WAITING = (b"vllm:num_requests_waiting", b"sglang:num_queue_reqs", b"tgi_queue_size")
_KV = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc", b"sglang:token_usage")
_SAMPLE = re.compile(
    rb"^(" + rb"|".join(re.escape(name) for name in _RUNNING + _WAITING + _KV) + rb")(?:\{.*\})?[ \t]+([^ \t\r\n]+)",
    re.MULTILINE,
)


class EngineLoad(msgspec.Struct, frozen=True, gc=False):
    """Requests in the batch and waiting, added up over the engine's ranks; `kv_usage` (0–1) is that of the fullest rank.

    None where the engine does not say.
    """

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None


def read(text: bytes) -> EngineLoad:
    """What the text says of the load. Lines that cannot be read are passed over; text beyond the bound is not looked at."""
    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    for sample in _SAMPLE.finditer(text, 0, MAX_TEXT_BYTES):
        name, value = sample[1], _number(sample[2])
        if value is None:
            continue
        if name in _RUNNING:
            running = (running or 0.0) + value
        elif name in _WAITING:
            waiting = (waiting or 0.0) + value
        else:
            kv_usage = max(kv_usage or 0.0, min(1.0, value))
    return EngineLoad(None if running is None else int(running), None if waiting is None else int(waiting), kv_usage)


def _number(text: bytes) -> float | None:
    """A finite number ≥ 0, else None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0.0 else None
