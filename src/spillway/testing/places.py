"""The audit's books of pools and endpoints: what is in flight there, and whether one more may be sent."""

from math import inf

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.traffic.effects import BreakerChanged, BreakerState
from spillway.traffic.events import Arrived, AttemptFailed, DrainSet, Event, LimitSet, QuotaSeen, Scraped, Sliced
from spillway.traffic.fleet import Accounting, Fleet, PoolSpec

LONGEST_PENALTY_S = 30.0
LONGEST_RAMP_S = 30.0
Place = tuple[PoolName, EndpointUrl]


class Places:
    def __init__(self) -> None:
        self.fleet = Fleet(pools={}, models={})
        self.in_flight: dict[PoolName, int] = {}
        self.kv_held: dict[PoolName, int] = {}
        self.at: dict[Place, int] = {}
        self.limits: dict[PoolName, int | None] = {}
        self.slices: dict[PoolName, int | None] = {}
        self.quotas: dict[PoolName, tuple[int, Seconds]] = {}  # most in flight, until
        self.scraped: set[PoolName] = set()  # pools of which gauges told that others use them
        self.drained: set[EndpointUrl] = set()
        self.breakers: dict[Place, BreakerState] = {}
        self.changed_at: dict[Place, Seconds] = {}
        self.trials: dict[Place, RequestId] = {}
        self.overloaded_at: dict[Place, Seconds] = {}
        self.penalties: dict[Place, Seconds] = {}  # an endpoint said 429 or 503: nothing is sent there until then

    def configured(self, fleet: Fleet) -> None:
        self.fleet = fleet
        places = {(name, url) for name, pool in fleet.pools.items() for url in pool.endpoints}
        self.limits = {name: limit for name, limit in self.limits.items() if name in fleet.pools}
        self.slices = {name: slots for name, slots in self.slices.items() if name in fleet.pools}
        self.drained &= {url for _, url in places}
        # an endpoint that left and has nothing running is forgotten, breaker and all
        kept = {place: state for place, state in self.breakers.items() if place in places or self.at.get(place)}
        self.breakers = kept
        self.trials = {place: trial for place, trial in self.trials.items() if place in kept}
        self.penalties = {
            place: until for place, until in self.penalties.items() if place in places or self.at.get(place)
        }
        self.quotas = {name: quota for name, quota in self.quotas.items() if name in fleet.pools}

    def operated(self, event: Event, now: Seconds) -> None:
        match event:
            case QuotaSeen() if event.pool in self.fleet.pools:
                if event.remaining_requests is None:
                    self.quotas.pop(event.pool, None)
                else:
                    most = self.in_flight.get(event.pool, 0) + max(0, event.remaining_requests)
                    said_s = event.reset_s
                    reset_s = min(said_s, 3600.0) if said_s is not None and said_s >= 0.0 else 1.0
                    self.quotas[event.pool] = most, now + reset_s
            case LimitSet() if event.pool in self.fleet.pools:
                self.limits[event.pool] = event.limit
            case Sliced() if event.pool in self.fleet.pools:
                self.slices[event.pool] = event.slots
            case Scraped():
                self.scraped |= {name for name, pool in self.fleet.pools.items() if event.endpoint in pool.endpoints}
            case DrainSet() if any(event.endpoint in pool.endpoints for pool in self.fleet.pools.values()):
                (self.drained.add if event.draining else self.drained.discard)(event.endpoint)
            case _:
                pass

    def changed(self, effect: BreakerChanged, now: Seconds) -> None:
        place = (effect.pool, effect.endpoint)
        assert self.breakers.get(place, BreakerState.CLOSED) is not effect.state
        self.breakers[place] = effect.state
        self.changed_at[place] = now
        self.trials.pop(place, None)

    def answered(self, place: Place, request: RequestId) -> None:
        """A first token: a trial is over."""
        if self.trials.get(place) == request:
            del self.trials[place]

    def failed(self, place: Place, event: AttemptFailed, now: Seconds) -> None:
        if not event.fault.is_load:
            return
        self.overloaded_at[place] = now
        asked_s = 1.0 if event.retry_after_s is None else event.retry_after_s
        until = now + min(max(asked_s, 0.1), LONGEST_PENALTY_S)
        self.penalties[place] = max(until, self.penalties.get(place, -inf))

    def take(self, arrived: Arrived, place: Place, now: Seconds) -> None:
        """It is sent there, which must be open for one more."""
        pool, endpoint = place
        spec = self.fleet.pools[pool]
        assert endpoint in spec.endpoints
        assert endpoint not in self.drained, "sent to a drained endpoint"
        held = self.in_flight.get(pool, 0)
        assert held < self.limit(spec), "sent to a full pool"
        quota = self.quotas.get(pool)
        assert quota is None or now >= quota[1] or held < quota[0], "sent past a provider's quota"
        if spec.capacity is not None and spec.capacity.kv_tokens is not None:
            assert self.kv_held.get(pool, 0) < max(1, int(0.9 * spec.capacity.kv_tokens)), "sent past the KV bound"
        assert now >= self.penalties.get(place, -inf), "sent to an endpoint that asked to be left alone"
        state = self.breakers.get(place, BreakerState.CLOSED)
        assert state is not BreakerState.OPEN, "sent to an OPEN endpoint"
        if state is BreakerState.HALF_OPEN:
            assert place not in self.trials, "a second trial"
            self.trials[place] = arrived.request
        self.in_flight[pool] = held + 1
        self.kv_held[pool] = self.kv_held.get(pool, 0) + _kv_tokens(arrived)
        self.at[place] = self.at.get(place, 0) + 1

    def leave(self, arrived: Arrived, place: Place) -> None:
        self.in_flight[place[0]] -= 1
        self.kv_held[place[0]] -= _kv_tokens(arrived)
        self.at[place] -= 1
        if self.trials.get(place) == arrived.request:
            del self.trials[place]
        if not self.at[place]:
            del self.at[place]
            spec = self.fleet.pools.get(place[0])
            if spec is None or place[1] not in spec.endpoints:
                self.breakers.pop(place, None)
                self.penalties.pop(place, None)

    def is_below(self, name: PoolName, ceiling: float) -> bool:
        """Whether the pool may be below this ceiling, at its best."""
        limit = self.limit(self.fleet.pools[name])
        return limit == inf or self.in_flight.get(name, 0) < max(1, int(ceiling * limit + 1e-9))

    def has_room(self, name: PoolName, ceiling: float, now: Seconds) -> bool:
        """Whether the pool surely has room: below its ceiling by count, with an endpoint that is well; False where gauges, quotas or
        KV tokens have a say."""
        spec, override = self.fleet.pools[name], self.limits.get(name)
        limit = spec.limit if override is None else override
        part = self.slices.get(name)
        limit = limit if part is None else min(limit, part)
        slots = max(1, int(ceiling * max(1, int(limit * self._carried(spec, now) + 1e-9)) + 1e-9))
        if spec.capacity is not None or spec.adaptive or spec.accounting is Accounting.ESTIMATED:
            return False
        if name in self.quotas or name in self.scraped or not limit or self.in_flight.get(name, 0) >= slots:
            return False
        for url in spec.endpoints:
            closed = self.breakers.get((name, url), BreakerState.CLOSED) is BreakerState.CLOSED
            calm = now > self.overloaded_at.get((name, url), -inf) + LONGEST_PENALTY_S
            if closed and calm and url not in self.drained:
                return True
        return False

    def limit(self, spec: PoolSpec) -> float:
        """The most it can be: an adaptive limit may grow as far as the engine's sequences."""
        override = self.limits.get(spec.name)
        limit = override if override is not None else inf if spec.adaptive else spec.limit
        sequences = None if spec.capacity is None else spec.capacity.max_sequences
        bounds = (limit, sequences, self.slices.get(spec.name))
        return min(bound for bound in bounds if bound is not None)

    def _carried(self, spec: PoolSpec, now: Seconds) -> float:
        """At least this part of the limit is open: a tenth for an endpoint that was sick of late, all of it for the others."""
        parts = 0.0
        for url in spec.endpoints:
            place = (spec.name, url)
            if url in self.drained or self.breakers.get(place, BreakerState.CLOSED) is not BreakerState.CLOSED:
                continue
            parts += 1.0 if now > self.changed_at.get(place, -inf) + LONGEST_RAMP_S else 0.1
        return parts / len(spec.endpoints)


def _kv_tokens(arrived: Arrived) -> int:
    return arrived.input_tokens + (arrived.output_tokens + 1) // 2
