"""Two smaller studies: who spills when one client is much of the load, and what affinity is worth in one pool."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.alternative_endpoints import AnyEndpoint, LeastLoaded
from spillway.planner.arrival import Arrival
from spillway.planner.playback import Cast, play
from spillway.planner.results import PolicyResult, result_of
from spillway.planner.scenario import GatewaySpec, Scenario
from spillway.planner.scenarios import (
    CHAT_LIMIT,
    CHAT_SHAPE,
    CHAT_SLO,
    CODE_SHAPE,
    HOSTED_RTT_S,
    LARGE,
    MODEL,
    PRICES,
    SMALL,
    Case,
    Site,
    capacity_rps,
)
from spillway.planner.simulate import simulate
from spillway.planner.simulation import MakePlacement, ours
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Accounting, Fleet, ModelSpec, Slo, SpillRules
from spillway.wire.traces import TraceRecord

TOP_SHARES = (0.16, 0.3, 0.5)
RULES = {"session": "session", "tenant": "tenant", "request": "request"}  # what is hashed
GATEWAYS = 4
MINUTES = 20


class Spilled(msgspec.Struct, frozen=True):
    """Load of the home pool, requests in it over its limit; `turned`: the share of requests that spilled or were shed."""

    mean_load: float
    sd_load: float
    max_load: float
    goodput_rps: float
    turned: float


def spilled_set(top_share: float, rule: str, rng: np.random.Generator) -> Spilled:
    """Four gateways send 1.3 × what a home pool gets through; gauges are 5 s old; the largest of 40 clients makes `top_share` of it.

    `rule`: `session` hashes sessions and divides heavy ones, as it is configured by default; `tenant` hashes whole clients;
    `request` hashes each request."""
    home = Site("home", LARGE, 4, 4 * CHAT_LIMIT, CHAT_SHAPE)
    hosted = Site("hosted", LARGE, 16, 16 * CHAT_LIMIT, CHAT_SHAPE, PRICES["large"])
    pools = (home.seen(0.002, Accounting.ESTIMATED, 1.0 / GATEWAYS), hosted.seen(HOSTED_RTT_S, Accounting.EXACT))
    rules = SpillRules(stale_s=15.0, heavy_share=1.0 if rule == "tenant" else SpillRules().heavy_share)
    model = ModelSpec(MODEL, tuple((pool.name,) for pool in pools), CHAT_SLO)
    fleet = Fleet({pool.name: pool for pool in pools}, {MODEL: model}, spill=rules)
    engines = {pool.name: LARGE for pool in pools}
    scenario = Scenario(tuple(GatewaySpec("", fleet) for _ in range(GATEWAYS)), engines, gauge_age_s=5.0)
    arrivals = _crowd(top_share, rule, 1.3 * capacity_rps(home), MINUTES * 60.0, rng)
    result = result_of(simulate(scenario, arrivals), from_s=60.0)
    load = result.pools["home"]
    return Spilled(load.mean_load, load.sd_load, load.max_load, result.goodput_rps, result.spilled_share)


def _crowd(top_share: float, rule: str, rate_rps: float, lasts_s: Seconds, rng: np.random.Generator) -> list[Arrival]:
    count = int(rate_rps * lasts_s)
    at_s = np.sort(rng.uniform(0.0, lasts_s, count)).tolist()
    shares = np.array([top_share, *([(1.0 - top_share) / 39] * 39)])
    clients = rng.choice(40, count, p=shares).tolist()
    chats = rng.integers(0, 64, count).tolist()
    sizes = np.maximum(
        1, rng.lognormal(-0.18, 0.6, (2, count)) * [[CHAT_SHAPE.input_tokens], [CHAT_SHAPE.output_tokens]]
    )
    inputs, outputs = sizes.astype(int).tolist()
    made: list[Arrival] = []
    for number, (at, client, chat) in enumerate(zip(at_s, clients, chats, strict=True)):
        key = {"session": f"{client}/{chat}", "tenant": str(client), "request": f"r{number}"}[rule]
        arrived = Arrived(
            RequestId(f"r{number}"), MODEL, TenantId(str(client)), Priority.INTERACTIVE, inputs[number], CHAT_SHAPE.output_tokens, 0, key
        )  # fmt: skip
        made.append(Arrival(at, "", outputs[number], arrived))
    return made


# Affinity

SPEEDS = (1.0, 2.0, 3.0)
CHOICES: Mapping[str, MakePlacement] = {"spillway": ours, "random": AnyEndpoint, "least_load": LeastLoaded}
ENDPOINTS = 8
CACHE_TOKENS = 200_000


def prefixes(records: Sequence[TraceRecord], rng: np.random.Generator, *, speed: float) -> Case:
    """Mooncake's trace, so many times as fast, on one pool of eight endpoints, each of which keeps 200,000 tokens of prompts. Nobody waits
    at the gateway, so that the endpoint is all that is chosen."""
    engine = msgspec.structs.replace(SMALL, prefix_tokens=CACHE_TOKENS, kv_tokens=None)
    site = Site("pool", engine, ENDPOINTS, 4096, CODE_SHAPE)
    spec = msgspec.structs.replace(site.seen(0.0, Accounting.EXACT), capacity=None)
    fleet = Fleet({spec.name: spec}, {MODEL: ModelSpec(ModelName(MODEL), ((spec.name,),), Slo(ttft_ms=2000))})
    cast = Cast(MODEL, tenants=1, sessions_per_tenant=1, priorities=((Priority.REALTIME, 1.0),))
    arrivals = [_without_session(arrival) for arrival in play(records, cast, rng, speed=speed)]
    return Case("prefixes", Scenario((GatewaySpec("", fleet),), {spec.name: engine}), arrivals)


def by_endpoint(case: Case, choice: str) -> PolicyResult:
    return result_of(simulate(case.scenario, case.arrivals, placement=CHOICES[choice]))


def _without_session(arrival: Arrival) -> Arrival:
    """The trace names none; its prefixes are what is known."""
    return msgspec.structs.replace(arrival, arrived=msgspec.structs.replace(arrival.arrived, session=""))


# Tables


def spilled_table(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [
        "| largest client | hashed | load: mean ± sd | peak | spilled | goodput /s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {share} | {rule} | {one['mean_load']:.2f} ± {one['sd_load']:.2f} | {one['max_load']:.2f} | {100 * one['turned']:.1f} % "
        f"| {one['goodput_rps']:.2f} |"
        for share, rules in figures.items()
        for rule, one in rules.items()
    ]
    return "\n".join(lines)


def affinity_table(figures: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    lines = [
        "| trace × | endpoint by | input tokens warm | TTFT p50 ms | TTFT p95 ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {speed} | {choice} | {100 * (one['warm_share'] or 0):.1f} % | {one['ttft_p50_ms'] or 0:.0f} | {one['ttft_p95_ms'] or 0:.0f} |"
        for speed, choices in figures.items()
        for choice, one in choices.items()
    ]
    return "\n".join(lines)
