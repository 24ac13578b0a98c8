"""The limit of a pool that is set to `auto`: what its capacity record allows under the SLOs of the models it serves.

T(b) = x + y·b seconds for b requests in the pool, so T_slo is met up to b* = (T_slo − x) / y, with T_slo = ttft + tpot·(n_out − 1)
of the record's reference shape. The engine's memory bounds b at kv_tokens / (n_in + n_out / 2) and at max_sequences.
"""

import math
from collections.abc import Iterable

from spillway.traffic.fleet import Capacity, Slo

DEFAULT_LIMIT = 64
"""Of a pool that nothing is known of."""
MAX_LIMIT = 1_000_000


def auto_limit(capacity: Capacity | None, slos: Iterable[Slo]) -> int:
    """At least 1, even where no request could meet its SLO; DEFAULT_LIMIT where nothing bounds the pool."""
    if capacity is None:
        return DEFAULT_LIMIT
    bounds = [_memory_bound(capacity), *(_slo_bound(capacity, slo) for slo in slos)]
    least = min(bounds)
    return DEFAULT_LIMIT if math.isinf(least) else max(1, min(MAX_LIMIT, math.floor(least)))


def _slo_bound(capacity: Capacity, slo: Slo) -> float:
    """b*, infinite where the record or the SLO does not say enough."""
    shape = capacity.reference
    if shape is None or slo.ttft_ms is None or slo.tpot_ms is None or capacity.y_s <= 0:
        return math.inf
    allowed_s = (slo.ttft_ms + slo.tpot_ms * max(0, shape.output_tokens - 1)) / 1000.0
    return (allowed_s - capacity.x_s) / capacity.y_s


def _memory_bound(capacity: Capacity) -> float:
    sequences = math.inf if capacity.max_sequences is None else float(capacity.max_sequences)
    shape = capacity.reference
    tokens_each = 0.0 if shape is None else shape.input_tokens + shape.output_tokens / 2
    if capacity.kv_tokens is None or tokens_each <= 0:
        return sequences
    return min(sequences, capacity.kv_tokens / tokens_each)
