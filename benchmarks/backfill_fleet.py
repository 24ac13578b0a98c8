"""Backfill at fleet scale, simulated: a day of ServeGen in three regions, with and without batch work in its idle room.

    python benchmarks/backfill_fleet.py [--endpoints 8] [--seed 1] [--output docs/results/backfill-fleet.json]

Llama-2-70B on four H100 an endpoint, `--endpoints` in each region; a day in an hour (rates as they were, 24 times as fast). Online requests are
realtime and interactive; batch lines come evenly, `--batch` times what the clusters get through, and may wait until the end of the day. Nothing
is hosted. Every figure is of the simulator, whose brain is the gateway's. GPU-hours saved: what a fleet of its own, at its limit all day, would
need for the same lines.
"""

import argparse
import json
from pathlib import Path

import msgspec
import numpy as np

from spillway.core.ids import RequestId, TenantId
from spillway.core.priority import Priority
from spillway.load.trace_files import load_rates
from spillway.planner.arrival import Arrival
from spillway.planner.results import PolicyResult, result_of
from spillway.planner.scenarios import (
    CHAT_LIMIT,
    CHAT_SHAPE,
    LARGE,
    MODEL,
    REGIONS,
    Case,
    Site,
    capacity_rps,
    three_regions,
)
from spillway.planner.simulate import simulate
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import WaitingRoom, default_priorities

GPUS_EACH = 4
SPEED = 24.0
REPLACE = msgspec.structs.replace


def online_only(case: Case, ceiling: float) -> Case:
    """What the mix has of batch becomes interactive: offline work is added by itself, up to `ceiling`."""
    arrivals = [
        one
        if one.arrived.priority is not Priority.BATCH
        else REPLACE(one, arrived=REPLACE(one.arrived, priority=Priority.INTERACTIVE))
        for one in case.arrivals
    ]
    room = WaitingRoom(max_requests=100_000, max_bytes=1 << 40)
    priorities = default_priorities()
    priorities[Priority.BATCH] = REPLACE(priorities[Priority.BATCH], ceiling=ceiling)
    gateways = tuple(
        REPLACE(one, fleet=REPLACE(one.fleet, waiting_room=room, priorities=priorities))
        for one in case.scenario.gateways
    )
    return REPLACE(case, arrivals=arrivals, scenario=REPLACE(case.scenario, gateways=gateways))


def lines(rate_rps: float, end_s: float, rng: np.random.Generator) -> list[Arrival]:
    """Of each region, evenly; each may wait until the end of the day."""
    made: list[Arrival] = []
    for region in REGIONS:
        count = int(rate_rps * end_s)
        for number, at_s in enumerate(np.sort(rng.uniform(0.0, end_s, count))):
            input_tokens = max(1, int(rng.exponential(CHAT_SHAPE.input_tokens)))
            output_tokens = max(1, int(rng.exponential(CHAT_SHAPE.output_tokens)))
            arrived = Arrived(
                RequestId(f"{region}-line-{number}"), MODEL, TenantId("offline"), Priority.BATCH, input_tokens, output_tokens,
                deadline_s=max(60.0, end_s - float(at_s)),
            )  # fmt: skip
            made.append(Arrival(float(at_s), region, output_tokens, arrived))
    return made


def figures(result: PolicyResult, gpus: int) -> dict[str, object]:
    online = {name: served for name, served in result.priorities.items() if name != "batch" and served.requests}
    loads = [pool.mean_load for name, pool in result.pools.items() if name != "hosted"]
    return {
        "online_attainment": {name: round(result.attainment[name], 4) for name in online},
        "online_ttft_p95_ms": {name: round(served.ttft_ms.p95, 1) for name, served in online.items()},
        "utilization": round(float(np.mean(loads)), 4),
        "spilled_share": round(result.spilled_share, 4),
        "outcomes": result.outcomes,
        "gpus": gpus,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=8)
    parser.add_argument(
        "--load", type=float, default=0.5, help="mean of what is online over what the clusters get through"
    )
    parser.add_argument("--batch", type=float, default=0.3)
    parser.add_argument("--ceiling", type=float, default=0.7, help="of batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    counts = (given.endpoints,) * len(REGIONS)
    case = online_only(
        three_regions(
            load_rates("servegen-rates").bins, rng, load=given.load, endpoints=counts, speed=SPEED, hosted_limit=0
        ),
        given.ceiling,
    )
    end_s = case.arrivals[-1].at_s
    one = capacity_rps(Site("one", LARGE, 1, CHAT_LIMIT, CHAT_SHAPE))
    gpus = GPUS_EACH * sum(counts)
    off = result_of(simulate(case.scenario, case.arrivals, until_s=end_s + 300.0), case.from_s)
    offline = lines(given.batch * one * given.endpoints, end_s, rng)
    both = sorted([*case.arrivals, *offline], key=lambda arrival: arrival.at_s)
    books = simulate(case.scenario, both, until_s=end_s + 300.0)
    on = result_of(books, case.from_s)
    done = on.priorities["batch"].answered
    result = {
        "regions": len(REGIONS), "endpoints": sum(counts), "online_load": given.load, "ceiling": given.ceiling, "batch_load": given.batch,
        "online_requests": len(case.arrivals), "batch_lines": len(offline), "batch_done": done, "yielded": books.yielded,
        "off": figures(off, gpus), "on": figures(on, gpus),
        "gpu_hours_of_the_day": round(gpus * end_s * SPEED / 3600.0, 1),
        "gpu_hours_saved": round(GPUS_EACH * SPEED * done / one / 3600.0, 1),
    }  # fmt: skip
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if given.output is not None:
        given.output.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
