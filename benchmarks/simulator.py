"""How fast the simulator is: requests per second of CPU time on one core, 20 pools, for both models of an engine. Prints JSON.

    python benchmarks/simulator.py [--requests 200000] [--rounds 3]

One model with four tiers of five pools, two endpoints each; Poisson arrivals at 0.9 × the first tier's capacity and at 1.6 × (then tiers are
spilled over). Arrivals are made before. Best of the rounds: the machine is noisy upwards only.
"""

import argparse
import gc
import json
import time

import numpy as np

from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.arrival import Arrival
from spillway.planner.rounds import plan_rounds
from spillway.planner.scenario import EngineSpec, GatewaySpec, Scenario, StepCosts
from spillway.planner.simulation import MakeEngine, Simulation
from spillway.planner.stepped_engine import SteppedEngine
from spillway.planner.summary_engine import SummaryEngine
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Capacity, Fleet, ModelSpec, PoolSpec, Slo, TokenShape

MODEL = ModelName("m")
TIERS, PER_TIER, ENDPOINTS, LIMIT = 4, 5, 2, 64
INPUT, OUTPUT = 512, 128
ENGINE = EngineSpec(StepCosts(base_s=0.007, sequence_s=0.00001, prefill_s=0.00003), max_sequences=128)
RECORD = Capacity(x_s=0.9, y_s=0.0165 / ENDPOINTS, reference=TokenShape(INPUT, OUTPUT))


def scenario() -> Scenario:
    names = [[PoolName(f"pool-{tier}-{place}") for place in range(PER_TIER)] for tier in range(TIERS)]
    pools = {
        name: PoolSpec(
            name,
            ClusterName(name),
            tuple(EndpointUrl(f"http://{name}-{n}") for n in range(ENDPOINTS)),
            LIMIT,
            capacity=RECORD,
        )
        for tier in names
        for name in tier
    }
    model = ModelSpec(MODEL, tuple(tuple(tier) for tier in names), Slo(ttft_ms=1000, tpot_ms=50))
    return Scenario((GatewaySpec("", Fleet(pools, {MODEL: model})),), dict.fromkeys(pools, ENGINE))


def arrivals(count: int, load: float, seed: int) -> list[Arrival]:
    rng = np.random.default_rng(seed)
    per_pool = LIMIT / (RECORD.x_s + RECORD.y_s * LIMIT)
    times = np.cumsum(rng.exponential(1.0 / (load * PER_TIER * per_pool), count)).tolist()
    tenants = rng.integers(0, 500, count).tolist()
    outputs = np.maximum(1, rng.normal(OUTPUT, 40, count)).astype(int).tolist()
    return [
        Arrival(
            at_s, "", outputs[n],
            Arrived(RequestId(f"r{n}"), MODEL, TenantId(f"t{tenants[n]}"), Priority.INTERACTIVE, INPUT, OUTPUT, 2000, f"s{n % 5000}"),
        )
        for n, at_s in enumerate(times)
    ]  # fmt: skip


def rate(made: list[Arrival], make_engine: MakeEngine) -> tuple[float, float]:
    """Requests per CPU second, and the share that was answered."""
    simulation = Simulation(scenario(), make_engine)
    plan_rounds(simulation)
    gc.collect()
    gc.disable()
    began = time.process_time()
    books = simulation.run(made)
    spent = time.process_time() - began
    gc.enable()
    return len(made) / spent, sum(e2e_s == e2e_s for e2e_s in books.e2e_s) / len(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    result = {}
    for load in (0.9, 1.6):
        for make_engine, count in ((SummaryEngine, given.requests), (SteppedEngine, given.requests // 10)):
            made = arrivals(count, load, seed=1)
            rates = [rate(made, make_engine) for _ in range(given.rounds)]
            best = max(rates)
            result[f"{make_engine.__name__} at {load}"] = {
                "requests_per_cpu_s": round(best[0]),
                "answered": round(best[1], 4),
            }
    print(json.dumps({"pools": TIERS * PER_TIER, "endpoints": TIERS * PER_TIER * ENDPOINTS, **result}, indent=1))


if __name__ == "__main__":
    main()
