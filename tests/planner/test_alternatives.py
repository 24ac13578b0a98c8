"""Every placement keeps the limits and policies that ours keeps, by the audit; and each does what its name says."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PolicyName, PoolName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.alternatives import ErrorTriggered, LeastKv, LocalOnly, RoundRobin, Threshold
from spillway.planner.arrival import Arrival
from spillway.planner.comparison import Policy, only_first_tier, policies
from spillway.planner.incidents import plan_incidents
from spillway.planner.rounds import plan_rounds
from spillway.planner.scenario import EngineSpec, GatewaySpec, Happening, Incident, Scenario, StepCosts
from spillway.planner.simulate import simulate
from spillway.planner.simulation import Simulation
from spillway.planner.summary_engine import SummaryEngine
from spillway.testing.audit import Audit
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.choice import Placement
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Effect
from spillway.traffic.events import Arrived, Event
from spillway.traffic.fleet import Accounting, Capacity, PoolSpec, Slo, SpillPolicy, TokenShape

ENGINE = EngineSpec(StepCosts(base_s=0.02, sequence_s=0.0005, prefill_s=0.00005), queue=4, max_sequences=16)
NEAR = PolicyName("near")
HOME, SECOND, HOSTED = PoolName("home"), PoolName("second"), PoolName("hosted")
ALL = [policy for ways in policies().values() for policy in ways]


class Audited(Controller):
    """Tells an audit all that it hears and says, and counts where requests went, those under the policy apart."""

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        self.audit = Audit()
        self.near: set[RequestId] = set()  # under the policy that keeps them near
        self.went: Counter[tuple[bool, PoolName]] = Counter()

    def handle(self, event: Event, now: Seconds) -> Sequence[Effect]:
        effects = list(super().handle(event, now))
        self.audit.observe(event, now, effects)
        if isinstance(event, Arrived) and event.policy == NEAR:
            self.near.add(event.request)
        self.went.update((e.request in self.near, e.pool) for e in effects if isinstance(e, Dispatch))
        return effects


def world() -> Scenario:
    record = Capacity(x_s=2.0, y_s=0.05, kv_tokens=40_000, reference=TokenShape(300, 100))
    home = msgspec.structs.replace(pool("home", 12, 2), cluster="a", capacity=record)
    second = msgspec.structs.replace(
        pool("second", 8, 2), cluster="b", capacity=record, accounting=Accounting.ESTIMATED, own_share=0.5, rtt_s=0.05
    )
    hosted = msgspec.structs.replace(pool("hosted", 4), rtt_s=0.08)
    served = msgspec.structs.replace(model("m", "home", "second", "hosted"), slo=Slo(ttft_ms=1000, tpot_ms=60))
    seen = msgspec.structs.replace(
        fleet(home, second, hosted, served), policies={NEAR: SpillPolicy(tiers=2, hosted=False)}
    )
    incidents = (
        Incident(Happening.DOWN, HOME, 20.0, 30.0, endpoint=home.endpoints[0]),
        Incident(Happening.LIMIT, SECOND, 40.0, 50.0, factor=2.0),
    )
    gateways = (GatewaySpec("a", seen), GatewaySpec("b", seen))
    return Scenario(gateways, dict.fromkeys((HOME, SECOND, HOSTED), ENGINE), incidents, gauge_age_s=1.0)


def arrivals(seed: int, count: int = 1500) -> list[Arrival]:
    rng = np.random.default_rng(seed)
    at_s = np.cumsum(rng.gamma(0.2, 0.2, count)).tolist()
    priorities = tuple(Priority)
    return [
        Arrival(
            at,
            "ab"[int(rng.integers(2))],
            int(rng.integers(1, 200)),
            Arrived(
                RequestId(f"r{number}"),
                ModelName("m"),
                TenantId(f"t{rng.integers(6)}"),
                priorities[int(rng.integers(3))],
                int(rng.integers(1, 900)),
                100,
                session=f"s{rng.integers(40)}",
                policy=NEAR if rng.integers(3) == 0 else PolicyName(""),
            ),
        )
        for number, at in enumerate(at_s)
    ]


@pytest.mark.parametrize("policy", ALL, ids=lambda policy: f"{policy.name} {list(policy.setting.values())}")
def test_limits_policies_breakers_and_endings_hold_whatever_the_placement(policy: Policy) -> None:
    scenario = only_first_tier(world()) if policy.first_tier_only else world()
    simulation = Simulation(scenario, SummaryEngine, policy.make)
    brains = [Audited(policy.make()) for _ in simulation.gateways]
    for gateway, brain in zip(simulation.gateways, brains, strict=True):
        gateway.brain = brain
    plan_rounds(simulation)
    plan_incidents(simulation)
    made = arrivals(seed=5)
    books = simulation.run(made)
    assert sum(brain.audit.arrived for brain in brains) == books.arrivals == len(made)
    for brain in brains:
        brain.audit.check(brain.snapshot(), simulation.now)
        assert not brain.audit.alive
    went = sum((brain.went for brain in brains), Counter[tuple[bool, PoolName]]())
    assert went[True, HOME] > 0
    assert went[True, HOSTED] == 0  # policies are kept
    assert (went[False, HOSTED] > 0) is not policy.first_tier_only


def test_local_only_sends_nothing_away_not_even_who_waits() -> None:
    (local,) = policies()["local_only"]
    books = simulate(only_first_tier(world()), arrivals(seed=6), placement=local.make)
    served = {books.pools[int(place)] for place in books.pool if place >= 0}
    assert served == {HOME}


# What each does. Three pools of ten; nothing ends unless it is told to.


def where(placement: Placement, count: int, *parts: PoolSpec) -> list[str]:
    stage = Stage(fleet(*(parts or (pool("a", 10), pool("b", 10), pool("c", 10)))), placement)
    return [sent_to(stage.arrive(f"r{number}", Priority.REALTIME))[0][1] for number in range(count)]


def test_round_robin_takes_turns_by_weight_and_hosted_pools_last_if_told_so() -> None:
    clusters = [msgspec.structs.replace(pool(name, limit), cluster=name) for name, limit in (("a", 30), ("b", 10))]
    assert Counter(where(RoundRobin(by_limit=0.0, hosted=0.0), 12, *clusters, pool("c", 10))) == {"a": 6, "b": 6}
    assert Counter(where(RoundRobin(by_limit=1.0, hosted=0.0), 12, *clusters, pool("c", 10))) == {"a": 9, "b": 3}
    assert Counter(where(RoundRobin(by_limit=0.0, hosted=1.0), 12, *clusters, pool("c", 10))) == {
        "a": 4,
        "b": 4,
        "c": 4,
    }
    assert where(RoundRobin(by_limit=0.0, hosted=0.0), 50, *clusters, pool("c", 10))[-1] == "c"  # better than to wait


def test_an_error_leaves_a_pool_alone_for_its_cooldown() -> None:
    stage = Stage(fleet(pool("a", 2), pool("b", 10)), ErrorTriggered(cooldown_s=5.0, errors=1))
    assert [sent_to(stage.arrive(f"r{number}", Priority.REALTIME))[0][1] for number in range(3)] == ["a", "a", "b"]
    stage.end("r0")
    assert sent_to(stage.arrive("s0", Priority.REALTIME)) == [("s0", "b")]
    stage.advance(5.1)
    assert sent_to(stage.arrive("s1", Priority.REALTIME)) == [("s1", "a")]


def test_it_takes_as_many_errors_as_it_is_told() -> None:
    stage = Stage(fleet(pool("a", 1), pool("b", 10)), ErrorTriggered(cooldown_s=60.0, errors=3))
    stage.arrive("r0", Priority.REALTIME)
    for number in range(2):
        assert sent_to(stage.arrive(f"e{number}", Priority.REALTIME))[0][1] == "b"
    stage.end("r0")
    assert sent_to(stage.arrive("r1", Priority.REALTIME))[0][1] == "a"  # two errors are forgiven
    stage.arrive("e3", Priority.REALTIME)
    stage.end("r1")
    assert sent_to(stage.arrive("r2", Priority.REALTIME))[0][1] == "b"


def test_a_threshold_is_left_above_and_returned_to_below() -> None:
    stage = Stage(fleet(pool("a", 10), pool("b", 20)), Threshold(leave=0.5, back=0.2))
    places = [sent_to(stage.arrive(f"r{number}", Priority.REALTIME))[0][1] for number in range(6)]
    assert places == ["a"] * 5 + ["b"]
    for number in range(2):
        stage.end(f"r{number}")
    assert sent_to(stage.arrive("s0", Priority.REALTIME))[0][1] == "b"  # 3 of 10 is not down to 0.2
    stage.end("r2")
    assert sent_to(stage.arrive("s1", Priority.REALTIME))[0][1] == "a"


def test_least_kv_looks_at_gauges_that_are_up_to_five_seconds_old() -> None:
    stage = Stage(fleet(*(msgspec.structs.replace(pool(n, 20), cluster=n) for n in "ab")), LeastKv(kv=0.0, margin=0.0))
    first = sent_to(stage.arrive("r0", Priority.REALTIME))[0][1]
    places = [sent_to(stage.arrive(f"r{number}", Priority.REALTIME))[0][1] for number in range(1, 15)]
    stage.advance(5.1)
    again = [sent_to(stage.arrive(f"s{number}", Priority.REALTIME))[0][1] for number in range(5)]
    assert len({first, *places}) == 2  # equal gauges: whoever the request's checksum finds first
    fuller = Counter([first, *places]).most_common(1)[0][0]
    assert set(again) == {"a" if fuller == "b" else "b"}  # and the herd that follows one gauge


def test_a_margin_keeps_requests_home() -> None:
    placement = LeastKv(kv=0.0, margin=0.3)
    assert where(placement, 8, *(msgspec.structs.replace(pool(n, 20), cluster=n) for n in "ab")) == ["a"] * 8


def test_local_only_waits_beside_free_pools_only_in_a_fleet_with_one_tier() -> None:
    (seen,) = only_first_tier(Scenario((GatewaySpec("", fleet(pool("a", 1), pool("b", 9))),), {})).gateways
    stage = Stage(seen.fleet, LocalOnly())
    assert sent_to(stage.arrive("r0", Priority.REALTIME)) == [("r0", "a")]
    assert sent_to(stage.arrive("r1", Priority.REALTIME)) == []
    assert sent_to(stage.end("r0")) == [("r1", "a")]
