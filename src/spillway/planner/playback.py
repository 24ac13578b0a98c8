"""A trace played to the simulator: its records as arrivals, in order of time."""

from collections.abc import Iterator, Sequence
from math import inf

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, OrganizationId, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.arrival import Arrival
from spillway.traffic.events import Arrived
from spillway.wire.traces import TraceRecord

BODY_BYTES_PER_TOKEN = 4


class Cast(msgspec.Struct, frozen=True):
    """Who sends, where a trace doesn't say it. `tenants`: so many, the k-th with a share in proportion to 1/k. `priorities`: by share.
    `max_tokens`: what the gateway is told of the output; None: what it will be. `regions` take turns."""

    model: ModelName
    models: frozenset[str] = frozenset()  # words of the trace that name a model; all else asks for `model`
    tenants: int = 1
    sessions_per_tenant: int = 64
    priorities: tuple[tuple[Priority, float], ...] = ((Priority.INTERACTIVE, 1.0),)
    max_tokens: int | None = None
    regions: tuple[str, ...] = ("",)


def play(
    records: Sequence[TraceRecord],
    cast: Cast,
    rng: np.random.Generator,
    *,
    speed: float = 1.0,
    until_s: Seconds = inf,
) -> Iterator[Arrival]:
    """Records in order of time, `speed` times as fast, those before `until_s` of the sped-up time. One draw of each kind in advance:
    the same generator gives the same arrivals."""
    count = len(records)
    shares = 1.0 / np.arange(1, cast.tenants + 1)
    tenants = rng.choice(cast.tenants, count, p=shares / shares.sum()).tolist()
    sessions = rng.integers(0, cast.sessions_per_tenant, count).tolist()
    weights = np.array([share for _, share in cast.priorities])
    priorities = rng.choice(len(cast.priorities), count, p=weights / weights.sum()).tolist()
    for number, record in enumerate(records):
        at_s = record.offset_s / speed
        if at_s >= until_s:
            return
        tenant = record.tenant or f"tenant-{tenants[number]}"
        arrived = Arrived(
            RequestId(f"r{number}"),
            ModelName(record.model) if record.model in cast.models else cast.model,
            TenantId(tenant),
            record.priority or cast.priorities[priorities[number]][0],
            record.input_tokens,
            record.output_tokens if cast.max_tokens is None else cast.max_tokens,
            record.input_tokens * BODY_BYTES_PER_TOKEN,
            record.session or f"{tenant}/{sessions[number]}",
            organization=OrganizationId(record.organization or ""),
            user=record.user or "",
            deadline_s=record.deadline_s,
            prefix=record.hash_ids or (),
            block_tokens=record.block_tokens,
        )
        region = record.region if record.region in cast.regions else cast.regions[number % len(cast.regions)]
        yield Arrival(at_s, region, record.output_tokens, arrived)
