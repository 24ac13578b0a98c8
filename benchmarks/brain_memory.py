"""The brain's memory: bytes with 10,000 active tenants, before and after 2.5 million others came, waited, were served and left.

An active tenant always has a request waiting. The others come one after another to the same full pool, each once: they wait among
the active ones, are served in their turn, or leave when PASSING more have come. Prints JSON; bytes are the process's resident
ones, less what it had before there was a brain.

    python benchmarks/brain_memory.py [--active 10000] [--passing 2500000]
"""

import argparse
import gc
import json
import resource
import time
from collections import deque
from pathlib import Path

from spillway.core.ids import EndpointUrl, ModelName, OrganizationId, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch
from spillway.traffic.events import Arrived, Configured, Ended
from spillway.traffic.fleet import Fleet, ModelSpec, PoolSpec, PrioritySpec, WaitingRoom, default_priorities

MODEL, POOL = ModelName("m"), PoolName("p")
LIMIT = 64
PASSING = 200  # of those that pass wait at a time


def full_brain(active: int) -> tuple[Controller, deque[RequestId]]:
    """Every slot taken, and one request of each active tenant waiting."""
    urls = tuple(EndpointUrl(f"http://p-{number}") for number in range(4))
    priorities = default_priorities() | {Priority.INTERACTIVE: PrioritySpec(1.0, 1e9)}
    brain = Controller()
    fleet = Fleet(
        pools={POOL: PoolSpec(POOL, None, urls, LIMIT)},
        models={MODEL: ModelSpec(MODEL, ((POOL,),))},
        priorities=priorities,
        waiting_room=WaitingRoom(1 << 20, 1 << 40),
    )
    brain.handle(Configured(fleet), 0.0)
    running = deque[RequestId]()
    for number in range(active + LIMIT):
        name = RequestId(f"a{number}")
        effects = brain.handle(arrived(name, f"active{number % active}", number), 1.0)
        running.extend(effect.request for effect in effects if type(effect) is Dispatch)
    return brain, running


def arrived(name: RequestId, tenant: str, number: int) -> Arrived:
    organization = OrganizationId(f"o{number % 1000}")
    return Arrived(
        name, MODEL, TenantId(tenant), Priority.INTERACTIVE, 100, 20, 100, f"s{number}", organization, f"u{number}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--active", type=int, default=10_000)
    parser.add_argument("--passing", type=int, default=2_500_000)
    options = parser.parse_args()
    bare = resident_bytes()
    brain, running = full_brain(options.active)
    before, now, most, began = resident_bytes(), 2.0, 0, time.monotonic()
    passing, gone = deque[RequestId](), set[RequestId]()  # who came lately; which of them no longer wait
    served = dict.fromkeys(("active", "passing"), 0)
    for number in range(options.passing):
        now += 0.001
        name = RequestId(f"p{number}")
        effects = list(brain.handle(arrived(name, f"passing{number}", number), now))
        passing.append(name)
        if number % 2:
            effects += brain.handle(Ended(running.popleft(), Outcome.OK, 100, 30), now)
        for one in [effect.request for effect in effects if type(effect) is Dispatch]:
            running.append(one)
            if one in gone or not one.startswith("a"):
                served["passing"] += 1
                gone.add(one)
                continue
            served["active"] += 1  # and asks again
            tenant = int(one[1:].rstrip("x")) % options.active
            brain.handle(arrived(RequestId(f"{one}x"), f"active{tenant}", number), now)
        if len(passing) > PASSING:
            oldest = passing.popleft()
            if oldest in gone:
                gone.discard(oldest)
            else:
                brain.handle(Ended(oldest, Outcome.CLIENT_LEFT), now)
        if not number % 10_000:
            most = max(most, resident_bytes())
    gc.collect()
    after = resident_bytes()
    figures = {
        "active_tenants": options.active,
        "passed_tenants": options.passing,
        "served": served,
        "waiting_at_the_end": sum(queue.waiting for queue in brain.snapshot().queues),
        "brain_bytes_before": before - bare,
        "brain_bytes_after": after - bare,
        "brain_bytes_most": max(most, after) - bare,
        "bytes_per_active_tenant": round((after - bare) / options.active),
        "wall_s": round(time.monotonic() - began, 1),
    }
    print(json.dumps(figures, indent=2))


def resident_bytes() -> int:
    """Of this process, by the kernel's word."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
