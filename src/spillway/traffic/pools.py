"""What the brain keeps of pools and endpoints: what is in flight there, and what may still be sent.

Whether a pool admits a priority is two comparisons of integers; everything they need (`slots`, `kv_slots`, `ready`,
`trials`) is brought up to date by `refresh` when an event changes it, never while a request is decided.
"""

from collections import OrderedDict
from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName, RequestId
from spillway.core.priority import Priority
from spillway.traffic.affinity import Affinity
from spillway.traffic.backfill import Backfill
from spillway.traffic.breaker import Breaker
from spillway.traffic.capacity import LIMIT_OVER_BEST, CapacityLine, slo_s
from spillway.traffic.effects import BreakerState
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Accounting, BreakerRules, Fleet, PoolSpec
from spillway.traffic.foreign import Foreign
from spillway.traffic.limits import WINDOW_S, AdaptiveLimit
from spillway.traffic.parties import BATCH_RANK, RANKS, Occupant, RouteKey, Waits, share_of_limit
from spillway.traffic.retries import RetryBudget
from spillway.traffic.spill import SpillShare

KV_FILL = 0.9  # of the KV tokens: engines begin to preempt before the last block is taken
MINIMUM_SHARES = (0, 10, 2)  # by rank: percent of the work dispatched to a pool while that rank waits for it
SHARED_RANKS = tuple(rank for rank in RANKS if MINIMUM_SHARES[rank])
MOST_OWED = 4  # typical requests: an old debt is not paid back in one long burst
MEMORY = 16  # dispatches that the typical request looks back on
UNBOUNDED = 1 << 62
RAMP_START = 0.1
RAMP_STEPS = 20


class EndpointState:
    """One endpoint of one pool. The same server in two pools has two of these: one model may be sick there and the other not."""

    __slots__ = (
        "breaker", "draining", "foreign", "in_flight", "penalty_until", "pool", "ramp_from", "ramp_until", "retired", "timer",
        "url", "was_open", "work",
    )  # fmt: skip

    def __init__(self, url: EndpointUrl, pool: "PoolState", rules: BreakerRules) -> None:
        self.url = url
        self.pool = pool
        self.breaker = Breaker(rules)
        self.in_flight = 0
        self.work = 0.0  # work tokens of what is in flight
        self.foreign = Foreign()  # what others send there, by its own gauges
        self.ramp_from: Seconds = -inf  # slow start: it was OPEN, and closed then
        self.ramp_until: Seconds = -inf
        self.was_open = False  # since it last carried all of its share
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

    def carries(self, now: Seconds) -> float:
        """The part of its share of the pool's limit that it may carry now: 0 while it may not serve, RAMP_START while it is on
        trial or when it has just come back, then more, up to 1."""
        if not self.usable:
            return 0.0
        if self.breaker.state is not BreakerState.CLOSED and len(self.pool.endpoints) > 1:
            return RAMP_START
        if now >= self.ramp_until:
            return 1.0
        return RAMP_START + (1.0 - RAMP_START) * (now - self.ramp_from) / (self.ramp_until - self.ramp_from)


class PoolState:
    """One pool. `slots[rank]`: most in flight up to which a request of that rank is admitted, 0 while no endpoint can take one.

    limit: what is configured, overridden or found on line, at most this gateway's slice of it, times the part of its endpoints that may carry it now.
    slots = max(1, ⌊ceiling · limit · own share⌋ − what others hold): a pool of one slot still serves every priority, and gauges
    can close a pool down to one request but not shut it. `kv_slots[rank]` is the same in KV tokens. Both look at what is held
    before the request, so that a request larger than the bound runs alone rather than never; the overshoot is one request,
    which is what KV_FILL leaves room for.
    """

    __slots__ = (
        "_ceilings",
        "_input_s",
        "_output_s",
        "_rules",
        "affinity",
        "backfill",
        "batch",
        "budget",
        "credits",
        "endpoints",
        "foreign",
        "healthy",
        "in_flight",
        "in_panic",
        "kv_held",
        "kv_limit",
        "kv_slots",
        "limit",
        "line",
        "models",
        "most_in_flight",
        "moves",
        "others",
        "override",
        "prompt_most",
        "prompt_tokens",
        "quota",
        "quota_until",
        "ready",
        "retired",
        "rooms",
        "search",
        "searched_at",
        "share",
        "shared_at",
        "slice",
        "slo_s",
        "slots",
        "spec",
        "tick_at",
        "trials",
        "typical_work",
        "wanted",
        "wanted_by",
        "work",
    )  # fmt: skip

    def __init__(self, spec: PoolSpec, fleet: Fleet) -> None:
        self.in_flight = 0
        self.most_in_flight = 0  # since the last look at the adaptive limit
        self.kv_held = 0
        self.work = 0.0  # work tokens in flight
        self.prompt_tokens = 0  # cold input tokens of what was sent here and has not begun to answer
        self.foreign = 0.0  # requests of others in its engines, above what is theirs by share
        self.others = 0.0  # all requests of others there: what ours run beside
        self.quota: int | None = None  # most in flight by what a provider says is left, until `quota_until`
        self.quota_until: Seconds = -inf
        self.retired = False
        self.override: int | None = None
        self.slice: int | None = None  # of slots that are shared with other gateways
        self.endpoints: dict[EndpointUrl, EndpointState] = {}
        self.ready: tuple[EndpointState, ...] = ()  # CLOSED, not draining, not under a penalty
        self.trials: tuple[EndpointState, ...] = ()  # HALF_OPEN and waiting for a trial
        self.models: tuple[ModelName, ...] = ()  # those with this pool in a tier
        self.rooms: tuple[Waits, ...] = ()  # where their requests wait
        self.wanted_by: tuple[OrderedDict[RouteKey, None], ...] = tuple(OrderedDict[RouteKey, None]() for _ in RANKS)
        self.in_panic: set[RouteKey] = set()  # routes; while there are any, ceilings are lifted
        self.wanted = 0  # entries of wanted_by
        self.credits = [0.0 for _ in RANKS]  # in percent of work tokens; 100 · work are a request's worth
        self.typical_work = 1.0  # of what is sent here while others wait
        self.budget = RetryBudget(fleet.retries)
        self.backfill = Backfill()
        self.batch: dict[RequestId, Occupant] = {}  # runs here and would make room; the latest last
        self.slots = [0 for _ in RANKS]
        self.kv_slots = [0 for _ in RANKS]
        self.tick_at: Seconds = inf  # when `pulse` looks at it next
        self.line = CapacityLine(spec.capacity, fleet.fairness)
        self.search: AdaptiveLimit | None = None
        self.searched_at: Seconds = 0.0
        self.share: SpillShare | None = None
        self.shared_at: Seconds = 0.0
        self.affinity = Affinity[EndpointState]()
        self.configure(spec, fleet)

    def configure(self, spec: PoolSpec, fleet: Fleet) -> None:
        """Limits and ceilings. Endpoints are the reconfiguration's business; `refresh` must follow."""
        self.spec = spec
        self.budget.rules = fleet.retries
        usd_per_token_s = 1e6 * fleet.spill.usd_per_s
        self._input_s = spec.price.input_usd_per_mtok / usd_per_token_s  # what a token's price is worth in seconds
        self._output_s = spec.price.output_usd_per_mtok / usd_per_token_s
        if spec.capacity != self.line.given or fleet.fairness != self.line.weights:
            self.line = CapacityLine(spec.capacity, fleet.fairness)
        self.affinity.configure(spec.endpoints)
        slos = [model.slo for model in fleet.models.values() if any(spec.name in tier for tier in model.tiers)]
        reference = None if spec.capacity is None else spec.capacity.reference
        self.slo_s = min((slo_s(slo, reference) for slo in slos), default=inf)
        ttft_s = min((slo.ttft_ms / 1000.0 for slo in slos if slo.ttft_ms is not None), default=inf)
        self.prompt_most = self.line.prompt_tokens_in(fleet.spill.prompt_share * spec.own_share * ttft_s)
        if spec.accounting is Accounting.EXACT:
            self.share = None
        elif self.share is None:
            self.share = SpillShare(spec.name, fleet.spill, fleet.wall_offset_s)
        else:
            self.share.rules, self.share.wall_offset_s = fleet.spill, fleet.wall_offset_s
        if not spec.adaptive:
            self.search = None
        elif self.search is None:
            self.search = AdaptiveLimit(spec.limit, gap_s=spec.rtt_s + WINDOW_S)
        else:
            self.search.gap_s = spec.rtt_s + WINDOW_S
        self.bound_search()
        self.moves = self.share is not None or self.search is not None  # with time, while something runs here
        self._ceilings = tuple(fleet.priorities[priority].ceiling for priority in Priority)
        self._rules = fleet.spill

    def bound_search(self) -> None:
        """The adaptive limit is at most LIMIT_OVER_BEST · b*, by the line as it is known now."""
        if self.search is not None:
            self.search.most = LIMIT_OVER_BEST * self.line.most_in_flight(self.slo_s)

    def retire(self) -> None:
        """Takes nothing more, and is kept until what runs here has ended."""
        self.retired = True
        self.models = ()
        for endpoint in self.endpoints.values():
            endpoint.retired = True

    def refresh(self, now: Seconds) -> None:
        """Brings the summaries up to date: O(endpoints of this pool), on events that change them only."""
        capacity = self.spec.capacity
        self.limit = self._limit(now)
        kv_tokens = None if capacity is None else capacity.kv_tokens
        self.kv_limit = UNBOUNDED if kv_tokens is None else max(1, int(KV_FILL * kv_tokens))
        self.healthy = any(e.usable and e.breaker.state is BreakerState.CLOSED for e in self.endpoints.values())
        ready = tuple(e for e in self.endpoints.values() if _state(e, now) is BreakerState.CLOSED)
        if ready != self.ready:  # the same tuple for the same endpoints: `affinity` keeps what it knows of them
            self.ready = ready
        self.trials = tuple(e for e in self.endpoints.values() if _state(e, now) is BreakerState.HALF_OPEN)
        open_for = self.limit if self.ready or self.trials else 0
        self.others = self._others(now)
        self.foreign = max(0.0, self.others - (1.0 - self.spec.own_share) * self.limit)
        self.slots = [self._slots(rank, open_for, now) for rank in RANKS]
        self.kv_slots = [
            share_of_limit(1.0 if self.in_panic and rank < BATCH_RANK else ceiling, self.kv_limit)
            for rank, ceiling in enumerate(self._ceilings)
        ]

    def _limit(self, now: Seconds) -> int:
        capacity, limit = self.spec.capacity, self.spec.limit
        if self.search is not None:
            limit = self.search.limit
        if self.override is not None:
            limit = self.override
        if self.slice is not None:
            limit = min(limit, self.slice)
        if self.retired:
            limit = 0
        if capacity is not None and capacity.max_sequences is not None:
            limit = min(limit, capacity.max_sequences)
        endpoints = [endpoint for endpoint in self.endpoints.values() if not endpoint.retired]
        carried = sum(endpoint.carries(now) for endpoint in endpoints)
        if limit <= 0 or not carried:
            return max(0, limit)
        return max(1, int(limit * carried / len(endpoints) + 1e-9))

    def _others(self, now: Seconds) -> float:
        """By its gauges. Of an ESTIMATED pool whose gauges are old the others are taken to hold their share as we hold ours; what they
        take beyond it is `foreign`."""
        gauges = [endpoint.foreign for endpoint in self.endpoints.values()]
        if self.share is None or any(gauge.is_fresh(now) for gauge in gauges):
            return sum(gauge.held(now) for gauge in gauges)
        own = self.spec.own_share
        return min(self.in_flight * (1.0 - own) / own, (1.0 - own) * self.limit)

    def _slots(self, rank: int, open_for: int, now: Seconds) -> int:
        if open_for <= 0:
            return 0
        ceiling = self._ceilings[rank]
        estimated = self.share is not None
        if rank == BATCH_RANK:
            ceiling *= self.backfill.theta
        elif self.in_panic:
            ceiling = 1.0
        elif estimated and not any(endpoint.foreign.is_fresh(now) for endpoint in self.endpoints.values()):
            ceiling = min(ceiling, self._rules.stale_ceiling)
        slots = share_of_limit(ceiling * (self.spec.own_share if estimated else 1.0), open_for)
        if rank == BATCH_RANK:
            slots -= min(self.backfill.reserve, slots // 2)
        slots = max(1, slots - int(self.foreign))
        return slots if self.quota is None or now >= self.quota_until else min(slots, self.quota)

    def admits(self, rank: int) -> bool:
        return self.in_flight < self.slots[rank] and self.kv_held < self.kv_slots[rank]

    def look_at_backfill(self, now: Seconds) -> None:
        if now >= self.backfill.due:
            self.backfill.tick(now)
            self.refresh(now)

    @property
    def can_take(self) -> bool:
        """Below its limits, whatever the ceilings say, with an endpoint to send to: room for what is owed."""
        return self.in_flight < self.slots[0] and self.kv_held < self.kv_limit

    @property
    def load_index(self) -> float:
        """ρ = max(in flight / limit, KV tokens held / (0.9 · K), work in flight / W, waiting / Q), ≥ 0; 1 for a pool without any slot.

        in flight: ours, and what others hold beyond their share, over our share of the limit; always counts. KV tokens count where
        the record names K. W = limit · work of the record's reference shape, and counts where the record names that: many long
        requests are more load than their number says. waiting: in the rooms of the models that the pool serves, of Q places.
        O(models of the pool)."""
        if not self.limit:
            return 1.0
        own = self.limit * self.spec.own_share
        index = max((self.in_flight + self.foreign) / own, self.kv_held / self.kv_limit)
        if self.line.reference_work:
            index = max(index, self.work / (own * self.line.reference_work))
        for room in self.rooms:
            if room.waiting:
                index = max(index, room.waiting / max(1, room.rules.max_requests))
        return index

    def work_per_s(self) -> float:
        """λ*, of this gateway's share: what the pool gets through at its limit, in work tokens a second; 0: not known."""
        return self.spec.own_share * self.line.work_per_s(self.limit)

    def cost_s(self, arrived: Arrived) -> Seconds:
        """J = predicted TTFT + round trip + price + cold prefix, in seconds: the price at `usd_per_s` a second, and a prefix that is
        warm here shortens the input that the TTFT is predicted of."""
        cold_tokens = arrived.input_tokens
        if arrived.prefix:
            cold_tokens -= self.affinity.warm_tokens(arrived)
        return (
            self.line.ttft_s(self.in_flight + self.others + 1.0, cold_tokens)
            + self.spec.rtt_s
            + arrived.input_tokens * self._input_s
            + arrived.output_tokens * self._output_s
        )

    def cost_usd(self, arrived: Arrived) -> float:
        """What the request is estimated to cost here."""
        price = self.spec.price
        return (
            arrived.input_tokens * price.input_usd_per_mtok + arrived.output_tokens * price.output_usd_per_mtok
        ) / 1e6

    # Minimum shares

    def next_rank(self) -> int | None:
        """The rank whose waiting request is sent here next: one that is owed its minimum share, else the most urgent
        that is admitted. `credits` are owed to be paid even above the rank's own ceiling, never above the limit."""
        for rank in SHARED_RANKS:
            if self._owes(rank) and self.wanted_by[rank] and self.can_take:
                return rank
        for rank in RANKS:
            if self.wanted_by[rank] and self.admits(rank):
                return rank
        return None

    def wanted_above(self, rank: int) -> bool:
        """Whether anybody more urgent waits for this pool."""
        return any(self.wanted_by[above] for above in range(rank))

    def _owes(self, rank: int) -> bool:
        return self.credits[rank] >= 100 * self.typical_work

    def is_owed(self, rank: int) -> bool:
        """Whether `next_rank` named it for its minimum share alone: above its ceiling, or while who is more urgent waits."""
        is_owed = MINIMUM_SHARES[rank] and self._owes(rank)
        return bool(is_owed) and (not self.admits(rank) or self.wanted_above(rank))

    def count_share(self, rank: int, work: float) -> None:
        """A request of this rank is sent here while others wait for the pool. What it was owed is paid back by its work; a
        share that it took while it was nobody else's turn is no debt."""
        work = max(1.0, work)
        credits, typical = self.credits, self.typical_work
        if self._owes(rank):
            credits[rank] -= 100 * work
        elif credits[rank] > 0:
            credits[rank] = max(0.0, credits[rank] - 100 * work)
        self.typical_work = typical + (work - typical) / MEMORY
        most = 100 * MOST_OWED * self.typical_work
        for waiting in SHARED_RANKS:
            if self.wanted_by[waiting]:
                credits[waiting] = min(most, credits[waiting] + MINIMUM_SHARES[waiting] * work)

    def nobody_waits(self) -> None:
        """Forgets who waits and who panics, before a reconfiguration says it anew."""
        for routes in self.wanted_by:
            routes.clear()
        self.in_panic.clear()
        self.wanted = 0


def _state(endpoint: EndpointState, now: Seconds) -> BreakerState:
    """CLOSED: takes requests. HALF_OPEN: takes a trial. OPEN: takes nothing, for whatever reason."""
    breaker = endpoint.breaker
    if not endpoint.usable or endpoint.penalty_until > now:
        return BreakerState.OPEN
    if breaker.state is BreakerState.HALF_OPEN and (breaker.trial is not None or breaker.until > now):
        return BreakerState.OPEN
    return breaker.state
