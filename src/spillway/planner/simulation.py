"""The second driver of the brain: gateways, engines and the network between them, on one heap of virtual time.

Each gateway has a `Controller` of its own and does what it says; nothing here decides. An entry of the heap is (when, number, kind,
subject, detail); arrivals come from their iterator and are merged in. Everything is as deterministic as its arguments: chance is in
the arrivals alone. A request that nobody answers times out only where a stall or a cut network keeps it: engines that are merely slow
are waited for.

Measured by `benchmarks/simulator.py`: the loop is written for cost.
"""

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import inf
from zlib import crc32

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.planner.arrival import Arrival
from spillway.planner.books import Books
from spillway.planner.engine import Engine, Job
from spillway.planner.scenario import EngineSpec, Scenario, checked
from spillway.planner.site import Site
from spillway.traffic.choice import BY_TIERS, Placement
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Refuse, WakeAt, Yielded
from spillway.traffic.events import AttemptFailed, Configured, Ended, Event, Fault, FirstToken, Woke

MakeEngine = Callable[[EngineSpec], Engine]
MakePlacement = Callable[[], Placement]


def ours() -> Placement:
    return BY_TIERS


class Gateway:
    """One controller, and the calls that it has not ended."""

    __slots__ = ("brain", "calls", "number", "one_way_s", "region", "wake_at")

    def __init__(self, number: int, region: str, brain: Controller, one_way_s: dict[PoolName, Seconds]) -> None:
        self.number = number
        self.region = region
        self.brain = brain
        self.one_way_s = one_way_s
        self.calls: dict[RequestId, Arrival | Job] = {}  # its last attempt, once there is one
        self.wake_at: Seconds = inf


class Simulation:
    """`run` once. `at` lets others (incidents, gauges, samples) have their say at a time of their own."""

    def __init__(self, scenario: Scenario, make_engine: MakeEngine, placement: MakePlacement = ours) -> None:
        """Raises ConfigError for a scenario with problems."""
        self.scenario = checked(scenario)
        self.books = Books(scenario)
        self.now: Seconds = 0.0
        self.more = True  # arrivals are to come, or calls are open
        self.sites: dict[tuple[PoolName, EndpointUrl], Site] = {
            (name, url): Site(name, url, make_engine(scenario.engines[name]), len(scenario.gateways))
            for name, spec in scenario.pools.items()
            for url in spec.endpoints
        }
        self.gateways = [
            Gateway(number, seen.region, Controller(placement()), {n: p.rtt_s / 2 for n, p in seen.fleet.pools.items()})
            for number, seen in enumerate(scenario.gateways)
        ]
        self._by_region: dict[str, list[Gateway]] = {}
        for gateway in self.gateways:
            self._by_region.setdefault(gateway.region, []).append(gateway)
        self._heap: list[tuple[Seconds, int, Callable[..., None], object, object]] = []
        self._count = 0
        self._returned: set[RequestId] = set()  # clients that came back, or will
        self._away: dict[RequestId, Arrival] = {}  # those that will

    def at(self, when: Seconds, run: Callable[..., None], subject: object = None, detail: object = None) -> None:
        """`run(subject, detail)` at that time; what is due at the same time in the order in which it was asked for."""
        self._count += 1
        heappush(self._heap, (when, self._count, run, subject, detail))

    def run(self, arrivals: Iterable[Arrival], until_s: Seconds = inf) -> Books:
        """All arrivals, in order of time, and what follows from them; what runs at `until_s` is written down as unfinished."""
        for gateway, seen in zip(self.gateways, self.scenario.gateways, strict=True):
            self.tell(gateway, Configured(seen.fleet))
        heap, source = self._heap, iter(arrivals)
        arrival = next(source, None)
        while True:
            arrives_at = inf if arrival is None else arrival.at_s
            if heap and heap[0][0] <= arrives_at:
                when = heap[0][0]
                if when > until_s:
                    break
                self.now = when
                _, _, run, subject, detail = heappop(heap)
                run(subject, detail)
            elif arrival is None or arrives_at > until_s:
                break
            else:
                self.now = arrives_at
                self._arrive(arrival)
                arrival = next(source, None)
                if arrival is not None and arrival.at_s < arrives_at:
                    raise ValueError(f"arrivals are out of order: {arrival.at_s} s after {arrives_at} s")
            if arrival is None and self.more:
                self.more = bool(self._away) or any(gateway.calls for gateway in self.gateways)
        self._close()
        return self.books

    def gateway_of(self, arrival: Arrival) -> Gateway:
        """Of its region; of several by a checksum of the request id."""
        near = self._by_region.get(arrival.region)
        if near is None:
            near = self.gateways
        return near[0] if len(near) == 1 else near[crc32(arrival.arrived.request.encode()) % len(near)]

    def tell(self, gateway: Gateway, event: Event) -> None:
        """To its brain, whose effects are carried out."""
        now = self.now
        for effect in gateway.brain.handle(event, now):
            if isinstance(effect, Dispatch):
                self._dispatch(gateway, effect, now)
            elif isinstance(effect, WakeAt):
                self._wake(gateway, effect.at)
            elif isinstance(effect, Refuse):
                self._refused(gateway, effect)
            elif isinstance(effect, Yielded):
                self._yields(gateway, effect)

    # A call's life

    def _arrive(self, arrival: Arrival) -> None:
        gateway = self.gateway_of(arrival)
        self.books.arrivals += 1
        gateway.calls[arrival.arrived.request] = arrival
        self.tell(gateway, arrival.arrived)

    def _dispatch(self, gateway: Gateway, effect: Dispatch, now: Seconds) -> None:
        arrival = arrival_of(gateway.calls[effect.request])
        spilled = effect.spill is not None
        job = Job(arrival, gateway.number, effect.pool, effect.endpoint, now, spilled=spilled)
        gateway.calls[effect.request] = job
        site = self.sites[effect.pool, effect.endpoint]
        site.sent[gateway.number] += 1
        self.books.sent(gateway.region, job)
        one_way_s = gateway.one_way_s[effect.pool]
        if one_way_s:
            self.at(now + one_way_s, self._reaches, site, job)
        else:
            self._reaches(site, job)

    def _reaches(self, site: Site, job: Job) -> None:
        if job.ended:
            return
        region = self.gateways[job.gateway].region
        if site.stalled or region in site.dark:
            self.at(self.now + self.scenario.patience.first_content_s, self.too_late, site, job)
        if region in site.dark:
            return
        if site.down:
            self.fails(site, job, Fault.CONNECT)
        elif site.engine.start(job, self.now):
            job.inside = True
            self.plan(site)
        else:
            self.fails(site, job, Fault.OVERLOADED)

    def plan(self, site: Site) -> None:
        """The engine's next event gets an entry; an older one that is not its next any more is passed over."""
        due = site.engine.due
        if due != site.planned:
            site.planned = due
            if due < inf:
                self._count += 1
                heappush(self._heap, (due, self._count, self._happens, site, due))

    def _happens(self, site: Site, due: Seconds) -> None:
        if site.planned != due:
            return
        site.planned = inf
        for job, is_first in site.engine.happen(self.now):
            job.inside = job.inside and is_first
            self.says(site, job, self._begins if is_first else self._ends)
        self.plan(site)

    def says(self, site: Site, job: Job, run: "Callable[[Site, Job], None]") -> None:
        """Towards the gateway."""
        gateway = self.gateways[job.gateway]
        if gateway.region in site.dark:
            site.mail.append((run, job))
            return
        one_way_s = gateway.one_way_s[job.pool]
        if one_way_s:
            self.at(self.now + one_way_s, run, site, job)
        else:
            run(site, job)

    def _begins(self, site: Site, job: Job) -> None:
        if not job.ended:
            job.first_at = self.now
            self.tell(self.gateways[job.gateway], FirstToken(job.arrival.arrived.request))

    def _ends(self, site: Site, job: Job) -> None:
        if not job.ended:
            self._over(site, job, Outcome.OK)

    def _over(self, site: Site, job: Job, outcome: Outcome) -> None:
        gateway, arrived = self.gateways[job.gateway], job.arrival.arrived
        self._release(site, job)
        del gateway.calls[arrived.request]
        self.books.ended(job.arrival, outcome, job, self.now)
        self.tell(gateway, Ended(arrived.request, outcome, arrived.input_tokens, job.output_tokens))

    def fails(self, site: Site, job: Job, fault: Fault) -> None:
        """The attempt failed at the engine; the gateway hears of it."""
        self.at(self.now + self.gateways[job.gateway].one_way_s[job.pool], self._failed, (site, job), fault)

    def _failed(self, lost: tuple[Site, Job], fault: Fault) -> None:
        site, job = lost
        if job.ended:
            return
        if job.first_at:
            self._over(site, job, Outcome.CUT)
            return
        self._release(site, job)
        self.tell(self.gateways[job.gateway], AttemptFailed(job.arrival.arrived.request, fault))

    def too_late(self, site: Site, job: Job) -> None:
        """The gateway's patience with a stalled attempt is over, unless it has come to life."""
        region = self.gateways[job.gateway].region
        if job.ended or not (site.stalled or region in site.dark):
            return
        if region not in site.dark:
            site.engine.cancel(job, self.now)
            self.plan(site)
        self._failed((site, job), Fault.TIMEOUT)

    def _yields(self, gateway: Gateway, effect: Yielded) -> None:
        """The gateway gives an attempt up; the engine hears of it a moment later."""
        job = gateway.calls[effect.request]
        assert isinstance(job, Job)
        site = self.sites[job.pool, job.url]
        self._release(site, job)
        gateway.calls[effect.request] = job.arrival
        self.books.yielded += 1
        one_way_s = gateway.one_way_s[job.pool]
        if one_way_s:
            self.at(self.now + one_way_s, self._leaves, site, job)
        else:
            self._leaves(site, job)

    def _leaves(self, site: Site, job: Job) -> None:
        if job.inside:
            job.inside = False
            site.engine.cancel(job, self.now)
            self.plan(site)

    def _release(self, site: Site, job: Job) -> None:
        job.ended = True
        site.sent[job.gateway] -= 1

    def _refused(self, gateway: Gateway, refusal: Refuse) -> None:
        call = gateway.calls.pop(refusal.request)
        arrival = arrival_of(call)
        if self._comes_back(arrival, refusal):
            self._returned.add(refusal.request)
            self._away[refusal.request] = arrival
            self.at(self.now + (refusal.retry_after_s or 0.0), self._again, gateway, arrival)
        else:
            self.books.ended(arrival, refusal.outcome, self.job_of(call), self.now)

    def _comes_back(self, arrival: Arrival, refusal: Refuse) -> bool:
        return (
            self.scenario.come_back
            and refusal.outcome in (Outcome.REFUSED, Outcome.EVICTED)
            and refusal.retry_after_s is not None
            and arrival.arrived.request not in self._returned
        )

    def _again(self, gateway: Gateway, arrival: Arrival) -> None:
        """The client of a refused request tries once more; its time counts from the first try."""
        del self._away[arrival.arrived.request]
        gateway.calls[arrival.arrived.request] = arrival
        self.tell(gateway, arrival.arrived)

    def _wake(self, gateway: Gateway, when: Seconds) -> None:
        if when < gateway.wake_at:
            gateway.wake_at = when
            self.at(when, self._woke, gateway, when)

    def _woke(self, gateway: Gateway, when: Seconds) -> None:
        if gateway.wake_at == when:
            gateway.wake_at = inf
            self.tell(gateway, Woke())

    def _close(self) -> None:
        for gateway in self.gateways:
            for call in gateway.calls.values():
                self.books.ended(arrival_of(call), None, self.job_of(call), self.now)
            gateway.calls.clear()
        for arrival in self._away.values():
            self.books.ended(arrival, None, None, self.now)

    @staticmethod
    def job_of(call: Arrival | Job) -> Job | None:
        """Its last attempt, if there was one."""
        return call if isinstance(call, Job) else None

    @staticmethod
    def waiting(gateway: Gateway) -> int:
        """How many wait in its waiting rooms: calls without an attempt that runs."""
        return sum(not isinstance(call, Job) or call.ended for call in gateway.calls.values())


def arrival_of(call: Arrival | Job) -> Arrival:
    return call.arrival if isinstance(call, Job) else call
