"""What a decision of the brain costs: CPU microseconds of Arrived -> Dispatch and of Ended, and of a full house.

64 endpoints in 16 pools, one model with 4 tiers of 4 pools. Prints JSON. The loop and the making of the event are
measured alone and taken off; every figure is the best of `--rounds` rounds, for the machine is noisy upwards only.

    python benchmarks/decision.py [--rounds 7] [--requests 20000]
"""

import argparse
import gc
import json
import time
from collections.abc import Callable

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Effect
from spillway.traffic.events import Arrived, Configured, Ended, FirstToken
from spillway.traffic.fleet import Fleet, ModelSpec, PoolSpec

MODEL, TENANT = ModelName("m"), TenantId("t")
POOLS, ENDPOINTS, TIERS = 16, 4, 4


def fleet(limit: int) -> Fleet:
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
    return Fleet(pools=pools, models={MODEL: ModelSpec(MODEL, tiers)})


def controller(limit: int) -> Controller:
    brain = Controller()
    brain.handle(Configured(fleet(limit)), 0.0)
    return brain


def arrived(name: RequestId) -> Arrived:
    return Arrived(name, MODEL, TENANT, Priority.INTERACTIVE, 200, 80, 1000)


def ended(name: RequestId) -> Ended:
    return Ended(name, Outcome.OK, 200, 80)


def spent_us(work: Callable[[], None], requests: int) -> float:
    gc.collect()
    start = time.process_time_ns()
    work()
    return (time.process_time_ns() - start) / 1000 / requests


def in_turn(requests: int, *, held: int, limit: int, streamed: bool = False) -> dict[str, float]:
    """Arrivals in groups of 100 on top of `held` requests in flight, then their endings."""
    brain = controller(limit)
    for number in range(held):
        assert type(brain.handle(arrived(RequestId(f"held{number}")), 0.0)[0]) is Dispatch
    groups = [[RequestId(f"req_{group}x{number:x}") for number in range(100)] for group in range(requests // 100)]
    now, costs = 1.0, {"making": 0.0, "arrived": 0.0, "first_token": 0.0, "ended": 0.0}
    effects: list[Effect] = []
    handle = brain.handle

    def make_all() -> None:
        for name in group:
            arrived(name)

    def make_endings() -> None:
        for name in group:
            ended(name)

    def arrive_all() -> None:
        for name in group:
            effects.extend(handle(arrived(name), now))

    def begin_all() -> None:
        for name in group:
            handle(FirstToken(name), now)

    def end_all() -> None:
        for name in group:
            handle(ended(name), now)

    for group in groups:  # noqa: B007 (the functions above close over it)
        now += 0.1
        costs["making"] += spent_us(make_all, requests)
        costs["arrived"] += spent_us(arrive_all, requests)
        if streamed:
            costs["first_token"] += spent_us(begin_all, requests)
        costs["ended"] += spent_us(end_all, requests)
        costs["making_ended"] = costs.get("making_ended", 0.0) + spent_us(make_endings, requests)
    assert sum(type(effect) is Dispatch for effect in effects) == len(groups) * 100
    return {
        "arrived_us": costs["arrived"] - costs["making"],
        "ended_us": costs["ended"] - costs["making_ended"],
        "event_us": costs["making"],
    } | ({"first_token_us": costs["first_token"]} if streamed else {})


def full_house(requests: int) -> dict[str, float]:
    """Every slot taken and somebody waiting: an arrival queues, an ending sends the next."""
    brain = controller(limit=4)
    running = [RequestId(f"held{number}") for number in range(POOLS * 3)]  # ⌊0.9 · 4⌋ slots each
    for name in running:
        assert type(brain.handle(arrived(name), 0.0)[0]) is Dispatch
    names = [RequestId(f"req_w{number:x}") for number in range(requests)]
    handle = brain.handle

    def work() -> None:
        now = 1.0
        for name in names:
            now += 0.001
            effects = [*handle(arrived(name), now), *handle(ended(running.pop()), now)]
            running.extend(effect.request for effect in effects if type(effect) is Dispatch)

    return {"queue_and_dispatch_us": spent_us(work, requests)}


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU microseconds per decision of the brain")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=20_000)
    options = parser.parse_args()
    gc.disable()
    cases: dict[str, Callable[[], dict[str, float]]] = {
        "first_tier": lambda: in_turn(options.requests, held=200, limit=1000, streamed=True),
        "third_tier": lambda: in_turn(options.requests, held=2 * 4 * 90, limit=100),
        "full_house": lambda: full_house(options.requests),
    }
    best = {
        name: {key: round(min(row[key] for row in rows), 3) for key in rows[0]}
        for name, rows in ((name, [case() for _ in range(options.rounds)]) for name, case in cases.items())
    }
    print(json.dumps({"endpoints": POOLS * ENDPOINTS, "pools": POOLS, "tiers": TIERS, **best}, indent=2))


if __name__ == "__main__":
    main()
