"""A seeded storm around a brain: bursts, tenants of every size, policies, deadlines, sick and full endpoints, gauges, quotas,
reconfigurations, drains, probes. The stage's audit judges every event; a failure says how to see it again."""

import heapq
import random
from collections import Counter

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import (
    ClusterName,
    EndpointUrl,
    ModelName,
    OrganizationId,
    PolicyName,
    PoolName,
    RequestId,
    TenantId,
)
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.testing.stage import Stage, fleet, model, pool
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Effect
from spillway.traffic.events import (
    Arrived,
    AttemptFailed,
    Configured,
    DrainSet,
    Ended,
    Event,
    Fault,
    FirstToken,
    LimitSet,
    Probed,
    QuotaSeen,
    Scraped,
    Woke,
)
from spillway.traffic.fleet import Accounting, Capacity, FairnessRules, Fleet, Slo, SpillPolicy, WaitingRoom

PRIORITIES = (Priority.REALTIME, Priority.INTERACTIVE, Priority.INTERACTIVE, Priority.BATCH)
FAULTS = tuple(fault for fault in Fault if not fault.is_load)


EVEN = frozenset({ModelName("d")})
POLICIES = {
    PolicyName("own"): SpillPolicy(hosted=False),
    PolicyName("near"): SpillPolicy(tiers=1),
    PolicyName("eu"): SpillPolicy(residency=("eu",)),
    PolicyName("cheap"): SpillPolicy(max_usd=0.002),
}
NAMED = ("", "", "", "", "own", "near", "eu", "cheap", "nobody knows")


def variants() -> list[Fleet]:
    """The usual fleet, and what it is changed to: less of everything, pools and a model gone, endpoints moved."""
    replace = msgspec.structs.replace
    roomy = Capacity(0.1, 0.01, kv_tokens=12_000, max_sequences=40)
    home, eu = ClusterName("home"), ("eu",)
    east = replace(pool("east", 24, 4), cluster=home, residency=eu)
    west = replace(pool("west", 16, 2), cluster=home)
    south = replace(pool("south", 8, 6), cluster=home, accounting=Accounting.ESTIMATED, own_share=0.8)
    north = replace(pool("north", 48, 3), cluster=home, capacity=roomy, adaptive=True, residency=eu)
    hosted = replace(pool("hosted", 12), price=Price(1.0, 4.0))
    solo = replace(pool("solo", 6, 2), cluster=home)
    a, b, c = model("a", "east west", "north", "hosted"), model("b", "south", "east hosted"), model("c", "west")
    a = replace(a, slo=Slo(ttft_ms=400.0, tpot_ms=20.0))
    d = model("d", "solo")
    small = replace(east, limit=3)
    moved = replace(west, endpoints=(*west.endpoints[:1], *east.endpoints[:1]))
    rest = replace(east, endpoints=east.endpoints[1:])
    weights = FairnessRules({OrganizationId("o1"): 2.0}, {TenantId("t2"): 3.0})
    return [
        replace(one, waiting_room=WaitingRoom(max_requests=60, max_bytes=40_000), policies=POLICIES, fairness=weights)
        for one in (
            fleet(east, west, south, north, hosted, solo, a, b, c, d),
            fleet(small, west, south, hosted, solo, model("a", "west", "hosted"), b, c, d),
            fleet(rest, moved, north, hosted, solo, a, model("b", "east hosted north"), d),
            fleet(
                east, west, south, north, hosted, solo, model("a", "north", "west"), b, model("c", "west", "south"), d
            ),
        )
    ]


class Storm:
    """Everything around the brain, made of one seed."""

    def __init__(self, seed: int, brain: Controller | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.variants = variants()
        self.stage = Stage(self.variants[0], even=EVEN, brain=brain)
        self.due: list[tuple[Seconds, int, Event, int]] = []
        self.order = self.requests = 0
        self.mood: dict[EndpointUrl, str] = {}
        self.per_s = 100.0
        self.outcomes = Counter[Outcome]()

    def run(self, events: int) -> None:
        """At least so many events. A broken promise raises with the seed and the event that broke it."""
        try:
            self._run(events)
        except AssertionError as broken:
            seen = len(self.stage.history)
            again = f"STORM_SEED={self.seed} STORM_EVENTS={seen} python -m pytest -k any_storm tests/traffic/test_simulation.py"
            raise AssertionError(f"{broken}\nseed {self.seed}, event {seen}; to see it again: {again}") from broken

    def _run(self, events: int) -> None:
        stage = self.stage
        while len(stage.history) < events:
            arrival = stage.now + self.chance.expovariate(self.per_s)
            self.until(arrival)
            self.react(stage.tell(self.arrival()))
            if not self.requests % 50:
                self.change()
            if not self.requests % 500:
                stage.audit.check(stage.brain.snapshot(), stage.now)
        self.until(stage.now + 1000.0)
        stage.audit.check(stage.brain.snapshot(), stage.now)

    def until(self, end: Seconds) -> None:
        stage = self.stage
        while True:
            wake_at = stage.audit.wake_at
            at = self.due[0][0] if self.due else end
            if min(at, wake_at) >= end:
                break
            if wake_at <= at:
                stage.now = max(stage.now, wake_at)
                self.react(stage.tell(Woke()))
                continue
            at, _, event, attempt = heapq.heappop(self.due)
            stage.now = max(stage.now, at)
            followed = stage.audit.alive.get(event.request)  # pyright: ignore[reportAttributeAccessIssue]
            if followed is None or attempt not in (0, followed.attempts) or (attempt and followed.place is None):
                continue
            if isinstance(event, Ended):
                self.outcomes[event.outcome] += 1
            self.react(stage.tell(event))
        stage.now = end

    def arrival(self) -> Arrived:
        chance = self.chance
        self.requests += 1
        request = RequestId(f"r{self.requests:x}")
        if chance.random() < 0.03:
            self.later(chance.expovariate(1.0), Ended(request, Outcome.CLIENT_LEFT), 0)
        tenant = int(chance.paretovariate(0.7)) % 40
        draw = int(chance.random() * 1200)
        priority, name = PRIORITIES[draw % 4], ModelName("aabcdd?"[draw % 7])
        # the books of evenness are kept of model d, which has no second route
        policy, hops = ("", 0) if name == "d" else (NAMED[draw // 4 % 9], int(draw % 31 == 0))
        deadline_s = None
        if draw % 5 == 0:
            deadline_s = chance.uniform(2.0, 90.0) if priority is Priority.BATCH else chance.uniform(0.5, 30.0)
        return Arrived(
            request,
            name,
            TenantId(f"t{tenant}"),
            priority,
            draw,
            draw // 2,
            draw,
            session=f"s{draw % 90}",
            organization=OrganizationId(f"o{tenant % 3}" if tenant % 4 else ""),
            user=f"u{draw % 3}",
            policy=PolicyName(policy),
            deadline_s=deadline_s,
            prefix=(draw % 7, draw % 11) if draw % 3 == 0 else (),
            hops=hops,
        )

    def react(self, effects: list[Effect]) -> None:
        for effect in effects:
            if type(effect) is Dispatch:
                self.serve(effect)

    def serve(self, sent: Dispatch) -> None:
        chance, request = self.chance, sent.request
        draw, mood = chance.random(), self.mood.get(sent.endpoint, "well")
        if mood == "sick" or draw < 0.005:
            self.later(draw * 0.2, AttemptFailed(request, FAULTS[int(draw * 1e6) % len(FAULTS)]), sent.attempt)
        elif mood == "full":
            asked_s = None if draw < 0.5 else 40.0 * draw * draw
            self.later(0.002, AttemptFailed(request, Fault.OVERLOADED, asked_s), sent.attempt)
        else:
            whole_s = chance.expovariate(2.0)
            if draw < 0.3:
                self.later(whole_s * draw, FirstToken(request), sent.attempt)
            outcome = Outcome.OK if draw < 0.96 else Outcome.UPSTREAM_REJECTED if draw < 0.98 else Outcome.CUT
            tokens = (int(draw * 800), int(whole_s * 300)) if draw < 0.9 else (0, 0)
            self.later(whole_s, Ended(request, outcome, *tokens), sent.attempt)

    def later(self, seconds: Seconds, event: Event, attempt: int) -> None:
        """Unless the request has ended by then, or is at another attempt (0: any)."""
        self.order += 1
        heapq.heappush(self.due, (self.stage.now + seconds, self.order, event, attempt))

    def change(self) -> None:
        """Something of the world around changes."""
        chance, stage = self.chance, self.stage
        current = stage.audit.fleet
        name = chance.choice([*current.pools, PoolName("nowhere")])
        urls = current.pools[name].endpoints if name in current.pools else (EndpointUrl("http://nowhere"),)
        url = chance.choice(urls)
        draw = chance.random()
        if draw < 0.35:
            self.mood[url] = chance.choice(("well", "well", "sick", "full"))
        elif draw < 0.6:
            self.react(stage.tell(Probed(url, healthy=self.mood.get(url, "well") != "sick")))
        elif draw < 0.75:
            self.react(stage.tell(DrainSet(url, draining=chance.random() < 0.4)))
        elif draw < 0.85:
            self.react(stage.tell(LimitSet(name, chance.choice((None, None, 0, 1, 2, 10, 30)))))
        elif draw < 0.9:
            self.react(stage.tell(Configured(chance.choice(self.variants))))
        elif draw < 0.93:
            self.gauges()
        elif draw < 0.97:
            self.per_s = chance.choice((10.0, 30.0, 60.0, 120.0, 300.0, 600.0))
        else:
            nobody = RequestId("nobody")
            for event in (Ended(nobody, Outcome.OK), FirstToken(nobody), AttemptFailed(nobody, Fault.RESET)):
                self.react(stage.tell(event))
            for followed in list(stage.audit.alive.values())[:1]:
                self.react(stage.tell(followed.arrived))

    def gauges(self) -> None:
        """What engines and a provider say of themselves."""
        chance, stage = self.chance, self.stage
        for name in ("south", "north"):
            urls = [url for one, pool in stage.audit.fleet.pools.items() if one == name for url in pool.endpoints]
            for url in urls:
                foreign, age_s = chance.choice((0.0, 0.0, 1.0, 5.0)), chance.uniform(0.0, 7.0)
                self.react(stage.tell(Scraped(url, foreign, chance.random(), age_s)))
        left = chance.choice((None, 0, 3, 50))
        self.react(stage.tell(QuotaSeen(PoolName("hosted"), left, reset_s=chance.uniform(0.1, 5.0))))
