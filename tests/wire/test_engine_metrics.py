"""The load of an engine is read from the names of three engines, and what cannot be read is passed over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.wire import engine_metrics
from spillway.wire.engine_metrics import EngineLoad

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b \\" c"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_running_total{engine="1"} 99.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0 1700000000000
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:generation_tokens_total{model_name="m"} 1.2e+06
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, EngineLoad(7, 2, 0.5)),
        (VLLM.replace(b"\n", b"\r\n"), EngineLoad(7, 2, 0.5)),
        (b'vllm:gpu_cache_usage_perc{model_name="m"} 0.125\n', EngineLoad(None, None, 0.125)),
        (b"sglang:num_running_reqs 1\nsglang:num_queue_reqs 0\nsglang:token_usage 0.75", EngineLoad(1, 0, 0.75)),
        (b"tgi_queue_size 5\ntgi_batch_current_size 6\n", EngineLoad(6, 5, None)),
        (b"vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\nvllm:kv_cache_usage_perc +Inf\n", EngineLoad()),
        (b"vllm:num_requests_running x\nvllm:num_requests_running\nvllm:kv_cache_usage_perc 7\n", EngineLoad(None, None, 1.0)),
        (b"# vllm:num_requests_running 4\n", EngineLoad()),
        (b"", EngineLoad()),
    ],
    ids=range(9),
)  # fmt: skip
def test_load(text: bytes, expected: EngineLoad) -> None:
    assert engine_metrics.read(text) == expected


@given(st.binary(max_size=60))
def test_any_value(noise: bytes) -> None:
    load = engine_metrics.read(b"vllm:num_requests_running" + noise + b"\nsglang:token_usage " + noise)
    assert load.running is None or load.running >= 0
    assert load.kv_usage is None or 0.0 <= load.kv_usage <= 1.0
