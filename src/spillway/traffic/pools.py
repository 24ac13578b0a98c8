"""What the brain keeps of pools and endpoints: what is in flight there, and what may still be sent.

Whether a pool admits a priority is two comparisons of integers; everything they need (`slots`, `kv_slots`, `ready`,
`trials`) is brought up to date by `refresh` when an event changes it, never while a request is decided.
"""

from collections import OrderedDict
from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName
from spillway.core.priority import Priority
from spillway.traffic.breaker import Breaker
from spillway.traffic.effects import BreakerState
from spillway.traffic.fleet import BreakerRules, Fleet, PoolSpec
from spillway.traffic.retries import RetryBudget

RANKS = range(len(Priority))
KV_FILL = 0.9  # of the KV tokens: engines begin to preempt before the last block is taken
MINIMUM_SHARES = (0, 10, 2)  # by rank: percent of the requests dispatched to a pool while that rank waits for it
A_REQUEST = 100  # what a request costs in these; whole numbers, for ten tenths in floats are less than one
MOST_OWED = 4 * A_REQUEST  # an old debt is not paid back in one long burst
UNBOUNDED = 1 << 62
FEW = 4  # endpoints that are all looked at; of more, two are drawn


class EndpointState:
    """One endpoint of one pool. The same server in two pools has two of these: one model may be sick there and the other not."""

    __slots__ = ("breaker", "draining", "in_flight", "penalty_until", "pool", "retired", "timer", "url")

    def __init__(self, url: EndpointUrl, pool: "PoolState", rules: BreakerRules) -> None:
        self.url = url
        self.pool = pool
        self.breaker = Breaker(rules)
        self.in_flight = 0
        self.draining = False
        self.retired = False  # not in the configuration any more; kept while something runs here
        self.penalty_until: Seconds = 0.0  # it said 429 or 503: full until then
        self.timer: Seconds = inf  # the earliest timer set for this endpoint

    @property
    def usable(self) -> bool:
        """May serve, now or when it has room again."""
        return not self.retired and not self.draining and self.breaker.state is not BreakerState.OPEN

    def back_at(self, now: Seconds) -> Seconds:
        """When something may be sent here again; `inf` when only an operator can change it, `now` when nothing but a
        slot or the end of a trial is missing."""
        if self.retired or self.draining:
            return inf
        return max(now, self.penalty_until, 0.0 if self.breaker.state is BreakerState.CLOSED else self.breaker.until)


class PoolState:
    """One pool. `slots[rank]`: most in flight up to which a request of that rank is admitted, 0 while no endpoint can take one.

    slots = max(1, ⌊ceiling · limit⌋) for a limit of at least 1: a pool of one slot still serves every priority.
    `kv_slots[rank]` is the same in KV tokens. Both look at what is held before the request, so that a request larger
    than the bound runs alone rather than never; the overshoot is one request, which is what KV_FILL leaves room for.
    """

    __slots__ = (
        "_ceilings",
        "budget",
        "credits",
        "endpoints",
        "healthy",
        "in_flight",
        "kv_held",
        "kv_limit",
        "kv_slots",
        "limit",
        "models",
        "override",
        "ready",
        "retired",
        "slots",
        "spec",
        "trials",
        "wanted",
        "wanted_by",
    )  # fmt: skip

    def __init__(self, spec: PoolSpec, fleet: Fleet) -> None:
        self.in_flight = 0
        self.kv_held = 0
        self.retired = False
        self.override: int | None = None
        self.endpoints: dict[EndpointUrl, EndpointState] = {}
        self.ready: tuple[EndpointState, ...] = ()  # CLOSED, not draining, not under a penalty
        self.trials: tuple[EndpointState, ...] = ()  # HALF_OPEN and waiting for a trial
        self.models: tuple[ModelName, ...] = ()  # those with this pool in a tier
        self.wanted_by: tuple[OrderedDict[ModelName, None], ...] = tuple(OrderedDict[ModelName, None]() for _ in RANKS)
        self.wanted = 0  # entries of wanted_by
        self.credits = [0 for _ in RANKS]
        self.budget = RetryBudget(fleet.retries)
        self.slots = [0 for _ in RANKS]
        self.kv_slots = [0 for _ in RANKS]
        self.configure(spec, fleet)

    def configure(self, spec: PoolSpec, fleet: Fleet) -> None:
        """Limits and ceilings. Endpoints are the reconfiguration's business; `refresh` must follow."""
        self.spec = spec
        self.budget.rules = fleet.retries
        self._ceilings = tuple(fleet.priorities[priority].ceiling for priority in Priority)

    def retire(self) -> None:
        """Out of the configuration: takes nothing more, and is kept until what runs here has ended."""
        self.retired = True
        self.models = ()
        for endpoint in self.endpoints.values():
            endpoint.retired = True

    def refresh(self, now: Seconds) -> None:
        """Brings the summaries up to date: O(endpoints of this pool), on events that change them only."""
        capacity = self.spec.capacity
        limit = 0 if self.retired else self.spec.limit if self.override is None else self.override
        if capacity is not None and capacity.max_sequences is not None:
            limit = min(limit, capacity.max_sequences)
        self.limit = max(0, limit)
        kv_tokens = None if capacity is None else capacity.kv_tokens
        self.kv_limit = UNBOUNDED if kv_tokens is None else max(1, int(KV_FILL * kv_tokens))
        self.healthy = any(e.usable and e.breaker.state is BreakerState.CLOSED for e in self.endpoints.values())
        self.ready = tuple(e for e in self.endpoints.values() if _state(e, now) is BreakerState.CLOSED)
        self.trials = tuple(e for e in self.endpoints.values() if _state(e, now) is BreakerState.HALF_OPEN)
        open_for = self.limit if self.ready or self.trials else 0
        self.slots = [share_of_limit(ceiling, open_for) for ceiling in self._ceilings]
        self.kv_slots = [share_of_limit(ceiling, self.kv_limit) for ceiling in self._ceilings]

    def admits(self, rank: int) -> bool:
        return self.in_flight < self.slots[rank] and self.kv_held < self.kv_slots[rank]

    @property
    def can_take(self) -> bool:
        """Below its limits, whatever the ceilings say, with an endpoint to send to: room for what is owed."""
        return self.in_flight < self.limit and self.kv_held < self.kv_limit and bool(self.ready or self.trials)

    @property
    def load_index(self) -> float:
        """ρ = max(in flight / limit, KV tokens held / (0.9 · K)), ≥ 0; 1 for a pool without any slot."""
        return max(self.in_flight / self.limit, self.kv_held / self.kv_limit) if self.limit else 1.0

    # Minimum shares

    def next_rank(self) -> int | None:
        """The rank whose waiting request is sent here next: one that is owed its minimum share, else the most urgent
        that is admitted. `credits` are owed to be paid even above the rank's own ceiling, never above the limit."""
        for rank in RANKS:
            if self.credits[rank] >= A_REQUEST and self.wanted_by[rank] and self.can_take:
                return rank
        for rank in RANKS:
            if self.wanted_by[rank] and self.admits(rank):
                return rank
        return None

    def count_share(self, rank: int) -> None:
        """A request of this rank is sent here while others wait for the pool."""
        for waiting in RANKS:
            if self.wanted_by[waiting]:
                self.credits[waiting] = min(MOST_OWED, self.credits[waiting] + MINIMUM_SHARES[waiting])
        self.credits[rank] = max(0, self.credits[rank] - A_REQUEST)

    def nobody_waits(self) -> None:
        """Forgets who waits and what they are owed, before a reconfiguration says it anew."""
        for names in self.wanted_by:
            names.clear()
        self.wanted = 0


def share_of_limit(ceiling: float, limit: int) -> int:
    """⌊ceiling · limit⌋, at least 1 for a limit of at least 1. 1e-9 keeps 0.29 · 100 from being 28."""
    return max(1, int(ceiling * limit + 1e-9)) if limit > 0 else 0


def _state(endpoint: EndpointState, now: Seconds) -> BreakerState:
    """CLOSED: takes requests. HALF_OPEN: takes a trial. OPEN: takes nothing, for whatever reason."""
    breaker = endpoint.breaker
    if not endpoint.usable or endpoint.penalty_until > now:
        return BreakerState.OPEN
    if breaker.state is BreakerState.HALF_OPEN and (breaker.trial is not None or breaker.until > now):
        return BreakerState.OPEN
    return breaker.state
