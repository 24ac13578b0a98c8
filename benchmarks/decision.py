"""What a decision of the brain costs: CPU microseconds of Arrived -> Dispatch, of FirstToken and of Ended; and of a full house.

64 endpoints in 16 pools, one model with 4 tiers of 4 pools; affinity is on, for every pool has 4 endpoints. One tenant, and
10,000 tenants in organizations with end users, sessions and three priorities; room in the first tier, in the third, and
nowhere (an arrival waits, an ending sends the next).

Prints JSON. The making of events is measured alone and taken off; every figure is the best of `--rounds` rounds, for the
machine is noisy upwards only.

    python benchmarks/decision.py [--rounds 7] [--requests 20000] [--tenants 10000]
"""

import argparse
import gc
import json
import random
import time
from collections import deque
from collections.abc import Callable

from spillway.core.ids import EndpointUrl, ModelName, OrganizationId, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Effect
from spillway.traffic.events import Arrived, Configured, Ended, Event, FirstToken
from spillway.traffic.fleet import Fleet, ModelSpec, PoolSpec, WaitingRoom

MODEL = ModelName("m")
POOLS, ENDPOINTS, TIERS = 16, 4, 4
GROUP = 100
PRIORITIES = (Priority.INTERACTIVE, Priority.REALTIME, Priority.INTERACTIVE, Priority.BATCH)


def controller(limit: int) -> Controller:
    pools = {
        name: PoolSpec(
            name=name,
            cluster=None,
            endpoints=tuple(EndpointUrl(f"http://{name}-{number}") for number in range(ENDPOINTS)),
            limit=limit,
        )
        for name in (PoolName(f"pool{number}") for number in range(POOLS))
    }
    names = tuple(pools)
    per_tier = POOLS // TIERS
    tiers = tuple(names[start : start + per_tier] for start in range(0, POOLS, per_tier))
    brain = Controller()
    room = WaitingRoom(max_requests=1 << 20, max_bytes=1 << 40)
    brain.handle(Configured(Fleet(pools=pools, models={MODEL: ModelSpec(MODEL, tiers)}, waiting_room=room)), 0.0)
    return brain


def arrivals(label: str, count: int, tenants: int, first: int = 0) -> list[Callable[[], Arrived]]:
    """How to make each: of one tenant, or of many with all that a request may tell of itself."""
    if tenants == 1:
        ids = [RequestId(f"{label}{number:x}") for number in range(count)]
        return [
            lambda name=name: Arrived(name, MODEL, TenantId("t"), Priority.INTERACTIVE, 200, 80, 1000) for name in ids
        ]
    chance = random.Random(7)
    makers: list[Callable[[], Arrived]] = []
    for number in range(count):
        tenant = first + number % tenants
        known = (
            RequestId(f"{label}{number:x}"),
            MODEL,
            TenantId(f"tenant{tenant}"),
            PRIORITIES[number % 4],
            chance.randrange(20, 4000),
            chance.randrange(20, 800),
            1000,
            f"s{chance.randrange(4 * tenants)}",
            OrganizationId(f"org{tenant % 500}"),
            f"u{number % 7}",
        )
        makers.append(lambda known=known: Arrived(*known))
    return makers


def spent_us(work: Callable[[], object]) -> float:
    start = time.process_time_ns()
    work()
    return (time.process_time_ns() - start) / 1000


def in_turn(requests: int, *, held: int, limit: int, tenants: int) -> dict[str, float]:
    """Arrivals in groups on top of `held` requests in flight, then their first tokens and endings."""
    brain = controller(limit)
    handle = brain.handle
    for make in arrivals("held", held, 1):
        assert type(handle(make(), 0.0)[0]) is Dispatch
    makers = arrivals("req_", requests, tenants)
    costs = {"making": 0.0, "arrived": 0.0, "first_token": 0.0, "ended": 0.0}
    sent, now = 0, 1.0
    for start in range(0, requests, GROUP):
        group, effects = makers[start : start + GROUP], list[Effect]()
        now += 0.1
        gc.collect(0)
        costs["making"] += spent_us(lambda group=group: [make() for make in group])
        costs["arrived"] += spent_us(
            lambda group=group, effects=effects, now=now: [effects.extend(handle(make(), now)) for make in group]
        )
        begun: list[Event] = [FirstToken(make().request) for make in group]
        ended: list[Event] = [Ended(make().request, Outcome.OK, 200, 80) for make in group]
        costs["first_token"] += spent_us(lambda begun=begun, now=now: [handle(event, now) for event in begun])
        costs["ended"] += spent_us(lambda ended=ended, now=now: [handle(event, now) for event in ended])
        sent += sum(type(effect) is Dispatch for effect in effects)
    assert sent == requests
    per = {key: cost / requests for key, cost in costs.items()}
    arrived_us = per["arrived"] - per["making"]
    return {
        "arrived_us": arrived_us,
        "first_token_us": per["first_token"],
        "ended_us": per["ended"],
        "sum_us": arrived_us + per["first_token"] + per["ended"],
    }


def full_house(requests: int, *, tenants: int) -> dict[str, float]:
    """Every slot taken and as many waiting as there are tenants: an arrival waits, an ending sends the next."""
    brain = controller(limit=100)
    handle, now = brain.handle, 1.0
    running = deque[RequestId]()
    for make in arrivals("held", 100 * POOLS + tenants, tenants):
        running.extend(effect.request for effect in handle(make(), now) if type(effect) is Dispatch)
    makers = arrivals("req_", requests, tenants)
    costs = {"making": 0.0, "queue": 0.0, "dispatch": 0.0}
    sent = 0
    for start in range(0, requests, GROUP):
        group, now = makers[start : start + GROUP], now + 0.001
        costs["making"] += spent_us(lambda group=group: [make() for make in group])
        effects = list[Effect]()
        costs["queue"] += spent_us(
            lambda group=group, effects=effects, now=now: [effects.extend(handle(make(), now)) for make in group]
        )
        endings = [Ended(running.popleft(), Outcome.OK, 200, 80) for _ in group]
        costs["dispatch"] += spent_us(
            lambda endings=endings, effects=effects, now=now: [effects.extend(handle(one, now)) for one in endings]
        )
        again = [effect.request for effect in effects if type(effect) is Dispatch]
        running.extend(again)
        sent += len(again)
    assert sent > 0.9 * requests
    queue_us = (costs["queue"] - costs["making"]) / requests
    dispatch_us = costs["dispatch"] / requests
    return {
        "queue_us": queue_us,
        "ended_and_dispatch_us": dispatch_us,
        "queue_and_dispatch_us": queue_us + dispatch_us,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--tenants", type=int, default=10_000)
    options = parser.parse_args()
    gc.disable()
    requests, many = options.requests, options.tenants
    cases: dict[str, Callable[[], dict[str, float]]] = {
        "one_tenant": lambda: in_turn(requests, held=200, limit=1000, tenants=1),
        "one_tenant_third_tier": lambda: in_turn(requests, held=2 * 4 * 90, limit=100, tenants=1),
        "one_tenant_full": lambda: full_house(requests, tenants=1),
        "many_tenants": lambda: in_turn(requests, held=200, limit=1000, tenants=many),
        "many_tenants_third_tier": lambda: in_turn(requests, held=2 * 4 * 100, limit=100, tenants=many),
        "many_tenants_full": lambda: full_house(requests, tenants=many),
    }
    best = {
        name: {key: round(min(row[key] for row in rows), 2) for key in rows[0]}
        for name, rows in ((name, [case() for _ in range(options.rounds)]) for name, case in cases.items())
    }
    print(
        json.dumps({"endpoints": POOLS * ENDPOINTS, "pools": POOLS, "tiers": TIERS, "tenants": many, **best}, indent=2)
    )


if __name__ == "__main__":
    main()
