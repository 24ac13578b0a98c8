"""What the brain keeps of a model: its tiers, who waits for it, how fast it drains."""

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PoolName
from spillway.core.priority import Priority
from spillway.traffic.fleet import Fleet, ModelSpec
from spillway.traffic.pools import PoolState
from spillway.traffic.rates import DrainRate
from spillway.traffic.waiting import Room


class ModelState:
    __slots__ = ("max_wait_s", "name", "pools", "rate", "room", "tier_of", "tiers")

    def __init__(self, spec: ModelSpec, fleet: Fleet, pools: dict[PoolName, PoolState]) -> None:
        self.name: ModelName = spec.name
        self.room = Room(fleet.waiting_room)
        self.rate = DrainRate()
        self.configure(spec, fleet, pools)

    def configure(self, spec: ModelSpec, fleet: Fleet, pools: dict[PoolName, PoolState]) -> None:
        """Who waits keeps waiting, with the deadline it was given."""
        self.tiers = tuple(tuple(pools[name] for name in tier) for tier in spec.tiers)
        self.pools = tuple(pool for tier in self.tiers for pool in tier)
        self.tier_of = {pool.spec.name: place for place, tier in enumerate(self.tiers) for pool in tier}
        self.max_wait_s: tuple[Seconds, ...] = tuple(fleet.priorities[priority].max_wait_s for priority in Priority)
        self.room.rules = fleet.waiting_room

    def want(self, rank: int) -> None:
        """Somebody of this rank waits: every pool of the model is told, so that whichever has room next sends it."""
        name = self.name
        for pool in self.pools:
            names = pool.wanted_by[rank]
            if not names:
                pool.credits[rank] = 0
            if name not in names:
                names[name] = None
                pool.wanted += 1

    def unwant(self, rank: int) -> None:
        """Nobody of this rank waits any more."""
        name = self.name
        for pool in self.pools:
            names = pool.wanted_by[rank]
            if name in names:
                del names[name]
                pool.wanted -= 1
