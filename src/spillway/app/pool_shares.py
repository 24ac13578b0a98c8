"""Slots of pools that all workers of all hosts share: what this one may use, as the ledger says, told to the brain.

Only pools with a limit of their own are shared so. A limit that is found on line is divided by the number of workers: each finds its
part by itself.
"""

from collections import Counter

import msgspec

from spillway.core.ids import ModelName, PoolName
from spillway.core.priority import Priority
from spillway.gateway.driver import Driver
from spillway.gateway.quotas import Quotas
from spillway.traffic.events import Sliced
from spillway.traffic.fleet import Fleet
from spillway.traffic.snapshot import Snapshot

URGENT_FIRST = (Priority.REALTIME, Priority.INTERACTIVE, Priority.BATCH)


class PoolShares:
    def __init__(self, quotas: Quotas, driver: Driver) -> None:
        self._quotas = quotas
        self._driver = driver
        self._amounts: dict[PoolName, int] = {}
        self._overrides: dict[PoolName, int] = {}
        self._pools_of: dict[ModelName, frozenset[PoolName]] = {}
        self._told: dict[PoolName, int] = {}

    def configured(self, fleet: Fleet) -> None:
        """`fleet`: with whole limits."""
        self._amounts = {name: pool.limit for name, pool in fleet.pools.items() if not pool.adaptive}
        self._overrides = {name: limit for name, limit in self._overrides.items() if name in fleet.pools}
        self._pools_of = {
            name: frozenset(pool for tier in model.tiers for pool in tier) for name, model in fleet.models.items()
        }
        self._told.clear()

    def overridden(self, pool: PoolName, limit: int | None) -> None:
        """An operator sets it on one host; the least that any host takes for the limit holds for all."""
        if limit is None:
            self._overrides.pop(pool, None)
        else:
            self._overrides[pool] = limit

    def shares(self, pool: PoolName) -> bool:
        return pool in self._amounts

    def look(self, snapshot: Snapshot) -> None:
        """Says what runs and waits here, and tells the brain what it may use."""
        waiting = self._waiting(snapshot)
        for pool in snapshot.pools:
            amount = self._overrides.get(pool.name, self._amounts.get(pool.name))
            if amount is None:
                continue
            queued = [waiting[pool.name, priority] for priority in URGENT_FIRST]
            wants = (pool.in_flight + queued[0], *queued[1:])
            slots = self._quotas.share_pool(f"p/{pool.name}", amount, pool.in_flight, wants)
            if self._told.get(pool.name) != slots:
                self._told[pool.name] = slots
                self._driver.tell(Sliced(pool.name, slots))

    def _waiting(self, snapshot: Snapshot) -> Counter[tuple[PoolName, Priority]]:
        """What waits for a model may go to any of its pools."""
        found = Counter[tuple[PoolName, Priority]]()
        for queue in snapshot.queues:
            for pool in self._pools_of.get(queue.model, ()):
                found[pool, queue.priority] += queue.waiting
        return found


def shared_fleet(whole: Fleet, members: int) -> Fleet:
    """What one of `members` workers of all hosts has: its part of everything, but the whole limits of pools that are shared by leases."""
    sliced = whole.sliced(1 if members > 1 else 0, members)
    pools = {
        name: pool if pool.adaptive else msgspec.structs.replace(pool, limit=whole.pools[name].limit)
        for name, pool in sliced.pools.items()
    }
    return msgspec.structs.replace(sliced, pools=pools)
