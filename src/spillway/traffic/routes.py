"""Routes: a model under a spill policy, as the tiers of the pools that are left.

Most requests of a model take one route. Another policy, a price ceiling or a hop from another gateway takes pools away; requests
that are left with the same pools share a route, so there are at most as many as there are sets of pools that policies leave.
What routes of one model share is its waiting room's bounds, its drain rate and the books of fairness: nobody gains by a policy.
"""

from spillway.core.clock import Seconds
from spillway.core.ids import PoolName
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import ModelSpec, SpillPolicy, allows
from spillway.traffic.panic import Panic
from spillway.traffic.parties import BATCH_RANK, RouteKey
from spillway.traffic.pools import PoolState
from spillway.traffic.rates import DrainRate
from spillway.traffic.waiting import Lanes

ANYWHERE = SpillPolicy()
NEVER_ON = SpillPolicy(tiers=1)  # what came from another gateway: clusters never play ping-pong


class RouteState:
    """Where some requests of a model may go, and which of them wait."""

    __slots__ = (
        "earlier",
        "idle_pools",
        "key",
        "lanes",
        "max_wait_s",
        "origin",
        "panic",
        "pools",
        "rate",
        "tier_of",
        "tiers",
    )

    def __init__(self, key: RouteKey, lanes: Lanes, rate: DrainRate, max_wait_s: tuple[Seconds, ...]) -> None:
        self.key = key
        self.lanes = lanes
        self.rate = rate
        self.max_wait_s = max_wait_s
        self.panic = Panic()
        self.tiers: tuple[tuple[PoolState, ...], ...] = ()
        self.pools: tuple[PoolState, ...] = ()
        self.idle_pools: tuple[PoolState, ...] = ()  # where batch goes: a provider's only where there are no others
        self.tier_of: dict[PoolName, int] = {}
        self.earlier: dict[int, tuple[PoolState, ...]] = {}  # by tier: the pools of those before it
        self.origin: PoolName | None = None

    def leads_to(self, tiers: tuple[tuple[PoolState, ...], ...], tier_of: dict[PoolName, int]) -> None:
        """`tier_of`: places in the model's own tiers, so that what is served by its second tier has spilled on every route."""
        self.tiers = tiers
        self.origin = next(iter(tier_of))
        self.pools = tuple(pool for tier in tiers for pool in tier)
        self.idle_pools = tuple(pool for pool in self.pools if not pool.spec.hosted) or self.pools
        self.tier_of = {pool.spec.name: tier_of[pool.spec.name] for pool in self.pools}
        self.earlier = {
            tier: tuple(pool for pool in self.pools if self.tier_of[pool.spec.name] < tier)
            for tier in self.tier_of.values()
        }

    def pools_for(self, rank: int) -> tuple[PoolState, ...]:
        return self.pools if rank < BATCH_RANK else self.idle_pools

    def want(self, rank: int) -> None:
        """Somebody of this rank waits: every pool of the route is told, so that whichever has room next sends it."""
        for pool in self.pools_for(rank):
            routes = pool.wanted_by[rank]
            if not routes:
                pool.credits[rank] = 0
            if self.key not in routes:
                routes[self.key] = None
                pool.wanted += 1

    def panics(self, now: Seconds, *, active: bool) -> None:
        """Whether its pools lift their ceilings, for everybody: who is more urgent still goes first."""
        for pool in self.pools:
            (pool.in_panic.add if active else pool.in_panic.discard)(self.key)
            pool.refresh(now)

    def unwant(self, rank: int) -> None:
        """Nobody of this rank waits any more."""
        for pool in self.pools:
            routes = pool.wanted_by[rank]
            if self.key in routes:
                del routes[self.key]
                pool.wanted -= 1


def allowed(
    spec: ModelSpec, pools: dict[PoolName, PoolState], *policies: SpillPolicy
) -> tuple[tuple[PoolState, ...], ...]:
    """The model's tiers without the pools that a policy refuses (prices aside), and without tiers that are empty then."""
    tiers = (
        tuple(pools[name] for name in tier if all(allows(policy, pools[name].spec, place) for policy in policies))
        for place, tier in enumerate(spec.tiers)
    )
    return tuple(tier for tier in tiers if tier)


def affordable(
    tiers: tuple[tuple[PoolState, ...], ...], arrived: Arrived, max_usd: float
) -> tuple[tuple[PoolState, ...], ...]:
    """The pools where the request is estimated to cost no more. USD = (input · price + output · price) / 1e6."""
    left = (tuple(pool for pool in tier if pool.cost_usd(arrived) <= max_usd) for tier in tiers)
    return tuple(tier for tier in left if tier)


def label_of(tiers: tuple[tuple[PoolState, ...], ...]) -> str:
    return " ".join(pool.spec.name for tier in tiers for pool in tier)
