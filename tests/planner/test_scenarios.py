"""The worlds are what they say: rates, shapes, limits that keep objectives, regions hours apart, a cluster that is lost."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from spillway.core.ids import PoolName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.load.trace_files import load_rates, load_trace
from spillway.planner.arrival import Arrival
from spillway.planner.regional import profiles, renewal
from spillway.planner.results import result_of
from spillway.planner.scenario import EngineSpec, GatewaySpec, Happening, Scenario
from spillway.planner.scenarios import (
    CHAT_LIMIT,
    CHAT_SHAPE,
    CHAT_SLO,
    CODE_LIMIT,
    CODE_SHAPE,
    CODE_SLO,
    LARGE,
    MODEL,
    REGIONS,
    SMALL,
    Site,
    capacity_rps,
    in_steps,
    loss_at_peak,
    step_of_code,
    three_regions,
)
from spillway.planner.simulate import simulate
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Accounting, Fleet, ModelSpec, PrioritySpec, Slo, TokenShape

CODE = load_trace("azure-code").records
BINS = load_rates("servegen-rates").bins


def kept_when_saturated(
    engine: EngineSpec, shape: TokenShape, slo: Slo, limit: int, sizes: list[tuple[int, int]]
) -> float:
    """Of the answers of one endpoint that is always full: the part that meets the objectives. Nobody waits at the gateway."""
    site = Site("p", engine, 1, limit, shape)
    spec = msgspec.structs.replace(site.seen(0.0, Accounting.EXACT), capacity=None)
    at_once = dict.fromkeys(Priority, PrioritySpec(ceiling=1.0, max_wait_s=0.0))
    fleet = Fleet({spec.name: spec}, {MODEL: ModelSpec(MODEL, ((spec.name,),), slo)}, priorities=at_once)
    rng = np.random.default_rng(3)
    at_s = np.cumsum(rng.exponential(1.0 / (1.5 * capacity_rps(site)), len(sizes))).tolist()
    arrivals = [
        Arrival(at, "", n_out, Arrived(RequestId(f"r{n}"), MODEL, TenantId("t"), Priority.REALTIME, n_in, n_out))
        for n, (at, (n_in, n_out)) in enumerate(zip(at_s, sizes, strict=True))
    ]
    result = result_of(simulate(Scenario((GatewaySpec("", fleet),), {spec.name: engine}), arrivals), from_s=at_s[300])
    return result.goodput_rps / result.throughput_rps


def test_limits_are_what_keeps_objectives_for_about_95_of_100() -> None:
    code = [(record.input_tokens, record.output_tokens) for record in CODE[:4000]]
    assert kept_when_saturated(SMALL, CODE_SHAPE, CODE_SLO, CODE_LIMIT, code) == pytest.approx(0.95, abs=0.02)
    rng = np.random.default_rng(5)
    sizes = np.maximum(1, rng.lognormal([[-0.32], [-0.18]], [[0.8], [0.6]], (2, 4000)) * [[512], [128]]).astype(int)
    chat = list(zip(*sizes.tolist(), strict=True))
    assert kept_when_saturated(LARGE, CHAT_SHAPE, CHAT_SLO, CHAT_LIMIT, chat) == pytest.approx(0.96, abs=0.03)


def test_a_step_has_its_rates_and_the_trace_its_order_of_sizes() -> None:
    stepped = in_steps(CODE, ((20.0, 100.0), (60.0, 200.0)))
    first = [record for record in stepped if record.offset_s < 100.0]
    assert len(first) / 100.0 == pytest.approx(20.0, rel=0.15)  # its bursts are long
    assert (len(stepped) - len(first)) / 200.0 == pytest.approx(60.0, rel=0.1)
    assert [record.input_tokens for record in stepped[:50]] == [record.input_tokens for record in CODE[:50]]
    assert all(one.offset_s <= other.offset_s for one, other in pairwise(stepped))


def test_the_code_case_steps_from_half_to_1_6_times_home() -> None:
    case = step_of_code(CODE, np.random.default_rng(1))
    at_s = np.array([arrival.at_s for arrival in case.arrivals])
    home = case.scenario.pools[PoolName("home")]
    capacity = home.limit / (home.capacity.x_s + home.capacity.y_s * home.limit)  # pyright: ignore[reportOptionalMemberAccess]
    assert (at_s < 240.0).sum() / 240.0 == pytest.approx(0.5 * capacity, rel=0.15)
    assert (at_s >= 240.0).sum() / 480.0 == pytest.approx(1.6 * capacity, rel=0.1)


def test_regions_live_the_same_day_eight_hours_apart_at_their_rate() -> None:
    case = three_regions(BINS, np.random.default_rng(1))
    at_s = {region: np.array([a.at_s for a in case.arrivals if a.region == region]) for region in REGIONS}
    shapes = {region: np.histogram(times, 24, (0.0, 3600.0))[0] for region, times in at_s.items()}
    for place, region in enumerate(REGIONS):
        aligned = np.corrcoef(np.roll(shapes[REGIONS[0]], 8 * place), shapes[region])[0, 1]
        assert aligned > 0.7, region
        assert len(at_s[region]) / 3600.0 == pytest.approx(0.75 * 13.9, rel=0.15)  # of what two endpoints get through
    for gateway in case.scenario.gateways:
        assert gateway.fleet.models[MODEL].tiers[0] == (PoolName(f"{gateway.region}-pool"),)


def test_one_client_is_a_third_of_a_region_as_in_the_trace() -> None:
    case = three_regions(BINS, np.random.default_rng(1))
    east = [a.arrived.tenant for a in case.arrivals if a.region == "east"]
    top = max(east.count(tenant) for tenant in set(east))
    weights = [float(profile.mean()) for profile, _ in profiles(BINS, 1).values()]
    assert sum(weights) == pytest.approx(1.0)
    assert top / len(east) == pytest.approx(max(weights), abs=0.06)
    assert max(weights) > 0.15


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_keep_their_cv_and_the_bins_their_rate(cv: float) -> None:
    times = renewal(np.full(144, 2.0), cv, np.random.default_rng(9), speed=1.0)
    gaps = np.diff(times)
    assert len(times) / 86_400.0 == pytest.approx(2.0, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_no_rate_no_arrivals() -> None:
    assert len(renewal(np.zeros(144), 2.0, np.random.default_rng(9), speed=1.0)) == 0


def test_the_largest_cluster_is_lost_in_its_busiest_hours() -> None:
    case = loss_at_peak(BINS, np.random.default_rng(1))
    (lost,) = case.scenario.incidents
    limits = {name: spec.limit for name, spec in case.scenario.pools.items() if not spec.hosted}
    assert lost.happening is Happening.DOWN
    assert lost.pool == max(limits, key=lambda name: limits[name])
    east = np.array([a.at_s for a in case.arrivals if a.region == "east"])
    during = ((east >= lost.from_s) & (east < lost.until_s)).sum() / (lost.until_s - lost.from_s)
    assert during > 1.2 * 0.7 * 27.8  # well above the day's mean


def test_the_same_seed_makes_the_same_arrivals() -> None:
    one, other = (three_regions(BINS, np.random.default_rng(4), hours=(0.0, 2.0)) for _ in range(2))
    assert one.arrivals == other.arrivals
    assert one.arrivals != three_regions(BINS, np.random.default_rng(5), hours=(0.0, 2.0)).arrivals
