"""The limit of a pool that is set to `auto`: what its capacity record allows under the SLOs of the models it serves, b* of
`traffic.capacity`. From there the gateway looks for it on line."""

import math
from collections.abc import Iterable

from spillway.traffic.capacity import b_star, memory_bound, slo_s
from spillway.traffic.fleet import Capacity, Slo

DEFAULT_LIMIT = 64
"""Of a pool that nothing is known of."""
MAX_LIMIT = 1_000_000


def auto_limit(capacity: Capacity | None, slos: Iterable[Slo]) -> int:
    """At least 1, even where no request could meet its SLO; DEFAULT_LIMIT where nothing bounds the pool."""
    if capacity is None:
        return DEFAULT_LIMIT
    bounds = [memory_bound(capacity), *(b_star(capacity, slo_s(slo, capacity.reference)) for slo in slos)]
    least = min(bounds)
    return DEFAULT_LIMIT if math.isinf(least) else max(1, min(MAX_LIMIT, math.floor(least)))
