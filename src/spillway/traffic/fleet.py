"""What the brain knows of the world by configuration: pools, models with their tiers, priorities, bounds.

Plain frozen values; `config` makes them from the file, the simulator and the tests make their own.
"""

import enum

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import ClusterName, EndpointUrl, ModelName, OrganizationId, PolicyName, PoolName, TenantId
from spillway.core.priority import Priority
from spillway.core.usage import Price


class TokenShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The request that a capacity record was measured with."""

    input_tokens: int
    output_tokens: int


class Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Residence time of a request in a pool that holds b requests: T(b) = x_s + y_s · b seconds.

    `kv_tokens` and `max_sequences` bound b from the side of the engine's memory. `measured_at` and `evidence` are for people: when
    the record was made, and from what.
    """

    x_s: float
    y_s: float
    kv_tokens: int | None = None
    max_sequences: int | None = None
    reference: TokenShape | None = None
    measured_at: str | None = None
    evidence: str | None = None


class Accounting(enum.StrEnum):
    """What this gateway knows of a pool's load."""

    EXACT = "exact"  # all of it: it alone sends there, or its slots are its own. A plain ceiling decides
    ESTIMATED = "estimated"  # its own part, and gauges that are late. The feed-forward controller decides


class PoolSpec(msgspec.Struct, frozen=True):
    """One model version on one cluster, or one hosted provider account.

    `adaptive`: the limit is looked for on line, `limit` is where the search begins. `own_share` (0–1]: the part of an ESTIMATED
    pool that this gateway may count on. `residency`: where data goes that is sent here, as words of the operator's choice.
    """

    name: PoolName
    cluster: ClusterName | None  # None: hosted
    endpoints: tuple[EndpointUrl, ...]
    limit: int  # most requests in flight, ≥ 0
    rtt_s: Seconds = 0.0
    capacity: Capacity | None = None
    price: Price = Price()
    residency: tuple[str, ...] = ()
    accounting: Accounting = Accounting.EXACT
    own_share: float = 1.0
    adaptive: bool = False

    @property
    def hosted(self) -> bool:
        return self.cluster is None


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Service level objective of a model: both must hold for a request to count as goodput."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None


class SpillPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where requests may be served. A pool must pass every rule: `tiers`: it is in one of the first so many; `hosted`: false
    keeps requests from providers; `residency`: it has all of these tags; `max_usd`: the request's estimated cost there is no more.
    """

    tiers: int | None = None
    hosted: bool = True
    residency: tuple[str, ...] = ()
    max_usd: float | None = None


def allows(policy: SpillPolicy, pool: PoolSpec, tier: int) -> bool:
    """Whether the policy lets requests be served by a pool of this tier (0: the first), its price aside."""
    return (
        (policy.tiers is None or tier < policy.tiers)
        and (policy.hosted or not pool.hosted)
        and all(tag in pool.residency for tag in policy.residency)
    )


class ModelSpec(msgspec.Struct, frozen=True):
    """Tiers are tried in order; pools of one tier are equals. `policy` holds for every request, with that of its key."""

    name: ModelName
    tiers: tuple[tuple[PoolName, ...], ...]
    slo: Slo = Slo()
    policy: SpillPolicy = SpillPolicy()


class PrioritySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ceiling`: the load index (0–1) up to which this priority may fill a pool. `max_wait_s`: longest wait at the gateway;
    batch with a deadline waits until that."""

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


class FairnessRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of organizations and tenants among those that wait; 1 for all others. Work = input_weight · input tokens that are
    not cached + output_weight · output tokens."""

    organizations: dict[OrganizationId, float] = {}
    tenants: dict[TenantId, float] = {}
    input_weight: float = 1.0
    output_weight: float = 4.0


class SpillRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The feed-forward controller of ESTIMATED pools (`spill`), slow start, and what a second and a dollar are worth to each other."""

    target: float = 0.85  # ρ*, the load index that it steers to
    period_s: Seconds = 0.2
    memory_s: Seconds = 2.0  # of the offered rate
    rise_per_s: float = 1.0
    fall_per_s: float = 0.05
    trim_gain: float = 0.02
    trim_bound: float = 0.3
    prompt_share: float = (
        0.1  # of the TTFT objective: prompts sent to a pool and not answered yet take at most so much of it
    )
    heavy_share: float = 0.02  # a session above this part of a pool's load is divided by request
    ramp_s: Seconds = 30.0  # slow start of an endpoint that was OPEN: at least this, and 5 · x_s
    stale_s: Seconds = 6.0  # gauges older than this are not believed,
    stale_ceiling: float = 0.8  # and this is the ceiling of an ESTIMATED pool then
    usd_per_s: float = 0.01  # what a user's second is worth: turns prices into seconds


class Fleet(msgspec.Struct, frozen=True):
    pools: dict[PoolName, PoolSpec]
    models: dict[ModelName, ModelSpec]
    priorities: dict[Priority, PrioritySpec] = msgspec.field(default_factory=default_priorities)
    waiting_room: WaitingRoom = WaitingRoom()
    breaker: BreakerRules = BreakerRules()
    retries: RetryRules = RetryRules()
    policies: dict[PolicyName, SpillPolicy] = {}
    fairness: FairnessRules = FairnessRules()
    spill: SpillRules = SpillRules()
    wall_offset_s: Seconds = 0.0  # Unix time minus the driver's monotonic seconds: who spills is drawn anew each day

    def sliced(self, member: int, members: int) -> "Fleet":
        """The share of every pool's room that belongs to one of `members` gateway workers, by `share_of`: of its limit, of
        its engine's sequences and of its KV tokens. Each worker sees only what it sent itself: where it counts b requests there are
        about b · members, so its line is steeper by as much."""
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
        y_s=capacity.y_s * members,
        kv_tokens=None if kv_tokens is None else max(1, share_of(kv_tokens, member, members)),
        max_sequences=None if sequences is None else max(1, share_of(sequences, member, members)),
    )
    return msgspec.structs.replace(pool, limit=share_of(limit, member, members), capacity=capacity)


def share_of(limit: int, member: int, members: int) -> int:
    """Whole shares that add up to `limit` over all members; member 0 takes the remainder."""
    share, remainder = divmod(limit, members)
    return share + (remainder if member == 0 else 0)
