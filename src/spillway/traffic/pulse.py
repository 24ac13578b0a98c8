"""What moves with time in a pool: its spill share, its adaptive limit, slow start, gauges that grow old, quotas that are full again.

A pool has a timer only while one of these may change.
"""

from math import inf

from spillway.core.clock import Seconds
from spillway.traffic.events import QuotaSeen
from spillway.traffic.limits import WINDOW_S
from spillway.traffic.pools import EndpointState, PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.timers import Timers
from spillway.traffic.world import World

USUAL_RESET_S: Seconds = 1.0
LONGEST_RESET_S: Seconds = 3600.0  # a closed pool hears nothing new: it is asked again in the end, whatever was said


class Pulse:
    __slots__ = ("_timers", "_world")

    def __init__(self, world: World, timers: Timers[RequestState | EndpointState | PoolState]) -> None:
        self._world = world
        self._timers = timers

    def start(self, pool: PoolState, now: Seconds) -> None:
        """Something may change from now on. Cheap where nothing does."""
        next_s = self._next_s(pool, now)
        if now + next_s < pool.tick_at:
            pool.tick_at = now + next_s
            self._timers.add(pool.tick_at, pool)

    def fell_due(self, pool: PoolState, now: Seconds) -> None:
        if now >= pool.tick_at:
            pool.tick_at = inf
            self.beat(pool, now)

    def beat(self, pool: PoolState, now: Seconds) -> None:
        """Brings everything that depends on time up to date; the pool may admit more or less than before."""
        if pool.retired:
            return
        rules = self._world.fleet.spill
        if pool.search is not None and now >= pool.searched_at + WINDOW_S:
            pool.searched_at = now
            pool.search.tick(pool.most_in_flight)
            pool.most_in_flight = pool.in_flight
        pool.refresh(now)
        if pool.share is not None and now >= pool.shared_at + rules.period_s:
            pool.shared_at = now
            pool.share.tick(now, pool.load_index, pool.work_per_s())
        self.start(pool, now)

    def quota_seen(self, pool: PoolState, event: QuotaSeen, now: Seconds) -> None:
        """What is left bounds what may be in flight, until the provider's window is over; within LONGEST_RESET_S, and for USUAL_RESET_S
        where what was said of that is no duration."""
        left = event.remaining_requests
        if event.remaining_tokens is not None:
            tokens_each = max(1.0, pool.line.tokens_each)
            by_tokens = int(event.remaining_tokens / tokens_each)
            left = by_tokens if left is None else min(left, by_tokens)
        pool.quota = None if left is None else pool.in_flight + max(0, left)
        reset_s = event.reset_s if event.reset_s is not None and event.reset_s >= 0.0 else USUAL_RESET_S
        pool.quota_until = now + min(reset_s, LONGEST_RESET_S)
        self.beat(pool, now)

    def _next_s(self, pool: PoolState, now: Seconds) -> Seconds:
        """`inf`: nothing changes by itself."""
        rules = self._world.fleet.spill
        waits = [inf]
        if pool.share is not None and (pool.in_flight or pool.share.share > 0.0):
            waits.append(pool.shared_at + rules.period_s - now)
        if pool.search is not None and pool.in_flight:
            waits.append(pool.searched_at + WINDOW_S - now)
        if pool.quota is not None and now < pool.quota_until:
            waits.append(pool.quota_until - now)
        foreign = [endpoint.foreign for endpoint in pool.endpoints.values()]
        waits += [gauge.stale_at - now for gauge in foreign if gauge.is_fresh(now)]
        return max(0.001, min(waits))
