"""A small world for the simulator's tests: a home pool, a second one, a hosted one, and Poisson arrivals."""

from collections.abc import Sequence

import numpy as np

from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.planner.arrival import Arrival
from spillway.planner.scenario import EngineSpec, GatewaySpec, Incident, Scenario, StepCosts
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Accounting, Capacity, Fleet, ModelSpec, PoolSpec, Slo, TokenShape

MODEL = ModelName("m")
HOME, SECOND, HOSTED = PoolName("home"), PoolName("second"), PoolName("hosted")
RECORD = Capacity(x_s=0.5, y_s=0.02, reference=TokenShape(100, 50))
ENGINE = EngineSpec(StepCosts(base_s=0.01, sequence_s=0.0003, prefill_s=0.00005), max_sequences=64)
PRICE = Price(1.0, 2.0)


def world(
    *incidents: Incident,
    gateways: Sequence[str] = ("",),
    accounting: Accounting = Accounting.EXACT,
    gauge_age_s: float = 0.0,
) -> Scenario:
    def pool(name: PoolName, rtt_s: float, endpoints: int = 2) -> PoolSpec:
        return PoolSpec(
            name,
            None if name == HOSTED else ClusterName(name),
            tuple(EndpointUrl(f"http://{name}-{number}") for number in range(endpoints)),
            24,
            rtt_s=rtt_s,
            capacity=RECORD,
            price=PRICE if name == HOSTED else Price(),
            accounting=accounting,
            own_share=1.0 / len(gateways) if accounting is Accounting.ESTIMATED else 1.0,
        )

    pools = {HOME: pool(HOME, 0.0), SECOND: pool(SECOND, 0.06), HOSTED: pool(HOSTED, 0.1, endpoints=1)}
    fleet = Fleet(pools, {MODEL: ModelSpec(MODEL, ((HOME,), (SECOND,), (HOSTED,)), Slo(ttft_ms=500, tpot_ms=50))})
    views = tuple(GatewaySpec(region, fleet) for region in gateways)
    return Scenario(views, dict.fromkeys(pools, ENGINE), incidents, gauge_age_s=gauge_age_s)


def arrivals(count: int, rate: float, seed: int, regions: Sequence[str] = ("",)) -> list[Arrival]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1.0 / rate, count)).tolist()
    outputs = rng.geometric(1 / 50, count).tolist()
    priorities = list(Priority)
    return [
        Arrival(
            times[number],
            regions[number % len(regions)],
            outputs[number],
            Arrived(
                RequestId(f"r{number}"), MODEL, TenantId(f"t{number % 7}"), priorities[number % 3], 100, 50, 400,
                f"s{number % 101}",
            ),
        )
        for number in range(count)
    ]  # fmt: skip
