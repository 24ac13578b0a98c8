"""What the brain knows of the world by configuration: pools, models with their tiers, priorities, bounds.

Plain frozen values; `config` makes them from the file, the simulator and the tests make their own.
"""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName
from spillway.core.priority import Priority


class TokenShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request that a capacity record was measured with."""

    input_tokens: int
    output_tokens: int


class Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Residence time of a request in a pool that holds b requests: T(b) = x_s + y_s · b seconds.

    `kv_tokens` and `max_sequences` bound b from the side of the engine's memory.
    """

    x_s: float
    y_s: float
    kv_tokens: int | None = None
    max_sequences: int | None = None
    reference: TokenShape | None = None


class PoolSpec(msgspec.Struct, frozen=True):
    """One model version on one cluster, or one hosted provider account."""

    name: PoolName
    cluster: ClusterName | None  # None: hosted
    endpoints: tuple[EndpointUrl, ...]
    limit: int  # most requests in flight, ≥ 0
    rtt_s: Seconds = 0.0
    capacity: Capacity | None = None


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Service level objective of a model: both must hold for a request to count as goodput."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None


class ModelSpec(msgspec.Struct, frozen=True):
    """Tiers are tried in order; pools of one tier are equals."""

    name: ModelName
    tiers: tuple[tuple[PoolName, ...], ...]
    slo: Slo = Slo()


class PrioritySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ceiling`: the load index (0–1) up to which this priority may fill a pool. `max_wait_s`: longest wait at the gateway."""

    ceiling: float = 0.9
    max_wait_s: Seconds = 20.0


def default_priorities() -> dict[Priority, PrioritySpec]:
    return {
        Priority.REALTIME: PrioritySpec(ceiling=1.0, max_wait_s=1.0),
        Priority.INTERACTIVE: PrioritySpec(ceiling=0.9, max_wait_s=20.0),
        Priority.BATCH: PrioritySpec(ceiling=0.7, max_wait_s=60.0),
    }


class WaitingRoom(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of what waits at one gateway worker, for each model."""

    max_requests: int = 256
    max_bytes: int = 64 << 20


class BreakerRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint's breaker opens after `failures` faults in a row, or `failure_share` of at least `min_samples` in `window_s`.

    It stays open `open_s`, doubled each time a trial fails, at most `max_open_s`. The last usable endpoint of a model never
    opens; after a failed trial its next one comes `trial_gap_s` later.
    """

    failures: int = 3
    failure_share: float = 0.5
    min_samples: int = 10
    window_s: Seconds = 10.0
    open_s: Seconds = 2.0
    max_open_s: Seconds = 30.0
    trial_gap_s: Seconds = 0.25


class RetryRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `attempts` tries of one request; retries of a pool at most `budget_share` of its requests (plus `budget_floor`)
    within `window_s`."""

    attempts: int = 3
    budget_share: float = 0.2
    budget_floor: int = 10
    window_s: Seconds = 10.0


class Fleet(msgspec.Struct, frozen=True):
    pools: dict[PoolName, PoolSpec]
    models: dict[ModelName, ModelSpec]
    priorities: dict[Priority, PrioritySpec] = msgspec.field(default_factory=default_priorities)
    waiting_room: WaitingRoom = WaitingRoom()
    breaker: BreakerRules = BreakerRules()
    retries: RetryRules = RetryRules()

    def sliced(self, member: int, members: int) -> "Fleet":
        """The share of every pool's room that belongs to one of `members` gateway workers, by `share_of`: of its limit, of
        its engine's sequences and of its KV tokens. Each worker sees only what it sent itself."""
        pools = {name: _sliced(pool, member, members) for name, pool in self.pools.items()}
        return msgspec.structs.replace(self, pools=pools)


def _sliced(pool: PoolSpec, member: int, members: int) -> PoolSpec:
    capacity = pool.capacity
    if capacity is None:
        return msgspec.structs.replace(pool, limit=share_of(pool.limit, member, members))
    kv_tokens, sequences = capacity.kv_tokens, capacity.max_sequences
    limit = pool.limit if sequences is None else min(pool.limit, sequences)
    # a capacity is at least 1: a worker without a share is kept out by its limit of 0
    capacity = msgspec.structs.replace(
        capacity,
        kv_tokens=None if kv_tokens is None else max(1, share_of(kv_tokens, member, members)),
        max_sequences=None if sequences is None else max(1, share_of(sequences, member, members)),
    )
    return msgspec.structs.replace(pool, limit=share_of(limit, member, members), capacity=capacity)


def share_of(limit: int, member: int, members: int) -> int:
    """Whole shares that add up to `limit` over all members; member 0 takes the remainder."""
    share, remainder = divmod(limit, members)
    return share + (remainder if member == 0 else 0)
