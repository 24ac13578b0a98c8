"""What a turn costs: CPU microseconds of joining a lane and of being called out of it, by how many tenants wait there.

Three shapes: tenants that always have another request waiting, tenants that come and go with each request, and tenants in
organizations with end users. Prints JSON; every figure is the best of `--rounds` rounds, for the machine is noisy upwards only.

    python benchmarks/fairness.py [--tenants 10000] [--rounds 5] [--requests 20000]
"""

import argparse
import gc
import json
import random
import time

from spillway.core.ids import ModelName, OrganizationId, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import FairnessRules, WaitingRoom
from spillway.traffic.rates import DrainRate
from spillway.traffic.requests import RequestState, request_of
from spillway.traffic.waiting import Lanes, Room, settle

RATE, RULES = DrainRate(), FairnessRules()


def request(number: int, tenant: int, chance: random.Random, *, nested: bool) -> RequestState:
    arrived = Arrived(
        RequestId(f"r{number}"),
        ModelName("m"),
        TenantId(f"t{tenant}"),
        Priority.INTERACTIVE,
        chance.randrange(10, 4000),
        chance.randrange(10, 1000),
        body_bytes=1000,
        organization=OrganizationId(f"o{tenant % 100}" if nested else ""),
        user=f"u{number % 4}" if nested else "",
    )
    return request_of(arrived, 1, RATE, RULES, 0.0)


def cost_us(tenants: int, requests: int, *, stay: bool, nested: bool) -> tuple[float, float, float]:
    """(join, pop, settle)"""
    chance = random.Random(7)
    room = Lanes(Room(WaitingRoom(1 << 30, 1 << 60), RULES))
    waiting = range(tenants * (2 if stay else 1))
    for number in waiting:
        room.join(request(number, number % tenants, chance, nested=nested))
    first = len(waiting)
    if stay:
        order = [chance.randrange(tenants) for _ in range(requests)]
    else:
        order = [tenants + number for number in range(requests)]
    coming = [request(first + number, tenant, chance, nested=nested) for number, tenant in enumerate(order)]
    called: list[RequestState] = []
    clock, spent = time.process_time_ns, [0, 0, 0]
    batch = 200  # joined, then called: the clock costs little, and as many wait throughout
    gc.collect()
    for start in range(0, requests, batch):
        some = coming[start : start + batch]
        begin = clock()
        for one in some:
            room.join(one)
        joined = clock()
        called.extend(room.pop(1) for _ in some)
        popped = clock()
        for one in called:
            settle(one, 500, 100)
        spent[0] += joined - begin
        spent[1] += popped - joined
        spent[2] += clock() - popped
        called.clear()
    join, pop, settled = (ns / 1000 / requests for ns in spent)
    return join, pop, settled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=20_000)
    args = parser.parse_args()
    shapes = {
        "tenants that stay": (True, False),
        "tenants that come and go": (False, False),
        "organizations, tenants and end users": (True, True),
    }
    figures = {}
    for name, (stay, nested) in shapes.items():
        rounds = [cost_us(args.tenants, args.requests, stay=stay, nested=nested) for _ in range(args.rounds)]
        best = [min(values) for values in zip(*rounds, strict=True)]
        figures[name] = {
            "join_us": round(best[0], 2),
            "pop_us": round(best[1], 2),
            "join_and_pop_us": round(best[0] + best[1], 2),
            "settle_us": round(best[2], 2),
        }
    print(json.dumps({"tenants": args.tenants, **figures}, indent=2))


if __name__ == "__main__":
    main()
