"""The worlds that placements are compared in: a step of load, three regions of one day, and the loss of the largest cluster.

Engines, as measured elsewhere
- SMALL: a model of 8 B parameters on one H100, steps and prompts timed by `benchmarks/gpu_line.py` (`docs/results/gpu-line.json`): 6.96 ms +
  0.00584 ms a sequence + 0.0427 ms a thousand tokens held; prompts 0.0246 ms a token between 512 and 2048.
- LARGE: Llama-2-70B on four H100, by the measured prompt and token times of splitwise-sim (`perf_model.csv`, tensor parallelism 4, MIT;
  Patel et al., ISCA 2024): medians of token time 29.3 ms at batch 1 and 36.9 ms at 32, of 32 prompts of 512 tokens 1726 ms. KV memory:
  0.33 MB a token (80 layers, 8 KV heads of 128, 16 bits) in the 150 GB that weights leave.

What is assumed: the hosted provider is as fast as a lightly loaded engine, answers 80 ms away, and lets an account have
`HOSTED_LIMIT` requests in flight at a price of the kind that providers ask for such models. A pool's limit is the number in flight up
to which 95 % of a saturated pool's answers meet the model's objectives (found by raising it, `tests/planner/test_scenarios`): every
placement works with the same limits.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.planner.arrival import Arrival
from spillway.planner.playback import Cast, play
from spillway.planner.regional import MOST_CV, Shape, day_of
from spillway.planner.scenario import EngineSpec, GatewaySpec, Happening, Incident, Scenario, StepCosts, capacity_of
from spillway.traffic.fleet import Accounting, Capacity, Fleet, ModelSpec, PoolSpec, Slo, TokenShape
from spillway.wire.traces import TraceRecord
from spillway.wire.traces_rates import RateBin

MODEL = ModelName("m")
SMALL = EngineSpec(
    StepCosts(base_s=0.00696, sequence_s=5.84e-6, context_s=4.27e-8, prefill_s=2.46e-5), kv_tokens=400_000
)
LARGE = EngineSpec(StepCosts(base_s=0.0291, sequence_s=0.000245, prefill_s=0.000105), kv_tokens=450_000)
PRICES = {"small": Price(0.18, 0.18), "large": Price(0.88, 0.88)}  # USD per million tokens
HOSTED_LIMIT = 64
HOSTED_RTT_S: Seconds = 0.08
REGIONS = ("east", "west", "south")
BETWEEN_REGIONS_S: Seconds = 0.15
MIX = ((Priority.REALTIME, 0.3), (Priority.INTERACTIVE, 0.5), (Priority.BATCH, 0.2))


class Case(msgspec.Struct, frozen=True):
    """A world with what arrives in it. Figures are of what arrives at `from_s` or later."""

    name: str
    scenario: Scenario
    arrivals: list[Arrival]
    from_s: Seconds = 0.0


class Site(msgspec.Struct, frozen=True):
    """A pool of a case, before each gateway sees it in its own way. `limit`: of the whole pool."""

    name: str
    engine: EngineSpec
    endpoints: int
    limit: int
    shape: TokenShape
    price: Price | None = None  # given: hosted

    def seen(self, rtt_s: Seconds, accounting: Accounting, own_share: float = 1.0) -> PoolSpec:
        x_s, y_s = capacity_of(self.engine, self.shape.input_tokens, self.shape.output_tokens, self.endpoints)
        kv_tokens = None if self.engine.kv_tokens is None else self.engine.kv_tokens * self.endpoints
        return PoolSpec(
            PoolName(self.name),
            None if self.price else ClusterName(self.name),
            tuple(EndpointUrl(f"http://{self.name}-{number}") for number in range(self.endpoints)),
            self.limit,
            rtt_s,
            None if self.price else Capacity(x_s, y_s, kv_tokens, reference=self.shape),
            self.price or Price(),
            accounting=accounting,
            own_share=own_share,
        )


def capacity_rps(site: Site) -> float:
    """Throughput at the limit, requests of the pool's shape per second."""
    x_s, y_s = capacity_of(site.engine, site.shape.input_tokens, site.shape.output_tokens, site.endpoints)
    return site.limit / (x_s + y_s * site.limit)


# A step of load: code completion, home, a second cluster of half its size, a provider

CODE_SLO = Slo(ttft_ms=1000, tpot_ms=50)
CODE_SHAPE = TokenShape(2048, 28)  # the trace's means
CODE_LIMIT = 13  # of an endpoint


def step_of_code(
    records: Sequence[TraceRecord],
    rng: np.random.Generator,
    *,
    low: float = 0.5,
    high: float = 1.6,
    low_s: Seconds = 240.0,
    high_s: Seconds = 480.0,
    endpoints: int = 4,
) -> Case:
    """Azure's code trace at `low` times what the home cluster gets through, and from one moment to the next at `high` times."""
    home, second, hosted = (
        Site(name, SMALL, count, CODE_LIMIT * count, CODE_SHAPE, PRICES["small"] if price else None)
        for name, count, price in (
            ("home", endpoints, False),
            ("second", endpoints // 2, False),
            ("hosted", 4 * endpoints, True),
        )
    )
    seen = [
        home.seen(0.002, Accounting.EXACT),
        second.seen(0.04, Accounting.EXACT),
        hosted.seen(HOSTED_RTT_S, Accounting.EXACT),
    ]
    model = ModelSpec(MODEL, tuple((spec.name,) for spec in seen), CODE_SLO)
    fleet = Fleet({spec.name: spec for spec in seen}, {MODEL: model})
    engines = {PoolName(site.name): site.engine for site in (home, second, hosted)}
    rate = capacity_rps(home)
    stepped = in_steps(records, ((low * rate, low_s), (high * rate, high_s)))
    arrivals = list(play(stepped, Cast(MODEL, tenants=24, priorities=MIX, max_tokens=64), rng))
    return Case("step", Scenario((GatewaySpec("", fleet),), engines), arrivals, from_s=60.0)


def in_steps(records: Sequence[TraceRecord], steps: Sequence[tuple[float, Seconds]]) -> list[TraceRecord]:
    """The trace, from its beginning again where it ends, run so fast that each step (requests per second, how long) has its mean rate.
    Its bursts stay what they are in relation to that rate."""
    mean_rps = len(records) / records[-1].offset_s
    end_s, played, begun_s, done = records[-1].offset_s, [], 0.0, 0.0
    for rate_rps, lasts_s in steps:
        speed = rate_rps / mean_rps
        played += [
            msgspec.structs.replace(record, offset_s=begun_s + (round_s + record.offset_s - done) / speed)
            for round_s in _rounds(done, done + lasts_s * speed, end_s)
            for record in records
            if done <= round_s + record.offset_s < done + lasts_s * speed
        ]
        begun_s, done = begun_s + lasts_s, done + lasts_s * speed
    return sorted(played, key=lambda record: record.offset_s)


def _rounds(from_s: Seconds, until_s: Seconds, length_s: Seconds) -> list[Seconds]:
    first = int(from_s // length_s)
    last = int(until_s // length_s)
    return [number * length_s for number in range(first, last + 1)]


# Three regions of one day, and the loss of the largest cluster

CHAT_SLO = Slo(ttft_ms=2000, tpot_ms=80)
CHAT_SHAPE = TokenShape(512, 128)
CHAT_LIMIT = 64  # of an endpoint
CHAT = Shape(input_tokens=512, output_tokens=128, input_sigma=0.8, output_sigma=0.6)
HOME_SHARE = 1.0
GUEST_SHARE = 1.0


def three_regions(
    bins: Sequence[RateBin],
    rng: np.random.Generator,
    *,
    load: float = 0.75,
    endpoints: Sequence[int] = (2, 2, 2),
    day: int = 1,
    speed: float = 24.0,
    hours: tuple[float, float] = (0.0, 24.0),
    hosted_limit: int = HOSTED_LIMIT,
    most_cv: float = MOST_CV,
    name: str = "regions",
) -> Case:
    """Three clusters, each the first tier of its own region's gateway and the second of the two others. Regions live the same day
    8 h apart, each with a mean rate of `load` times what its cluster gets through."""
    sites = [
        Site(f"{region}-pool", LARGE, count, CHAT_LIMIT * count, CHAT_SHAPE)
        for region, count in zip(REGIONS, endpoints, strict=True)
    ]
    hosted = Site("hosted", LARGE, 8, hosted_limit, CHAT_SHAPE, PRICES["large"])
    gateways = tuple(
        GatewaySpec(region, _regional_fleet(number, sites, hosted, hosted_limit > 0))
        for number, region in enumerate(REGIONS)
    )
    engines = {PoolName(site.name): site.engine for site in (*sites, hosted)}
    if not hosted_limit:
        del engines[PoolName("hosted")]
    rates = {region: load * capacity_rps(site) for region, site in zip(REGIONS, sites, strict=True)}
    arrivals = day_of(
        bins, rates, rng, shape=CHAT, model=MODEL, priorities=MIX, day=day, speed=speed, hours=hours, most_cv=most_cv
    )
    return Case(name, Scenario(gateways, engines, gauge_age_s=2.0), arrivals, from_s=60.0)


def loss_at_peak(bins: Sequence[RateBin], rng: np.random.Generator) -> Case:
    """The largest cluster, of four endpoints beside two of two, is lost for five minutes in its region's busiest hours, and its engines
    take a minute to start. Six hours of the day, eight times as fast."""
    case = three_regions(bins, rng, endpoints=(4, 2, 2), load=0.7, speed=8.0, hours=(17.0, 23.0), name="loss")
    lost = Incident(Happening.DOWN, PoolName("east-pool"), 1200.0, 1500.0)
    engines = dict(case.scenario.engines)
    engines[lost.pool] = msgspec.structs.replace(LARGE, start_up_s=60.0)
    return msgspec.structs.replace(
        case, scenario=msgspec.structs.replace(case.scenario, engines=engines, incidents=(lost,))
    )


def _regional_fleet(home: int, sites: Sequence[Site], hosted: Site, has_hosted: bool) -> Fleet:
    pools = [
        site.seen(0.002, Accounting.ESTIMATED, HOME_SHARE)
        if number == home
        else site.seen(BETWEEN_REGIONS_S, Accounting.ESTIMATED, GUEST_SHARE)
        for number, site in enumerate(sites)
    ]
    first, others = pools[home], [spec for number, spec in enumerate(pools) if number != home]
    tiers = [(first.name,), tuple(spec.name for spec in others)]
    if has_hosted:
        quota = msgspec.structs.replace(hosted, limit=hosted.limit // len(sites))
        pools.append(quota.seen(HOSTED_RTT_S, Accounting.EXACT))
        tiers.append((PoolName(hosted.name),))
    return Fleet({spec.name: spec for spec in pools}, {MODEL: ModelSpec(MODEL, tuple(tiers), CHAT_SLO)})
