"""What is simulated: the gateways as they are configured, the engines as they really are, and what goes wrong when."""

import enum
from collections.abc import Iterator, Mapping

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.core.ids import EndpointUrl, PoolName
from spillway.traffic.fleet import Accounting, Capacity, Fleet, PoolSpec


class StepCosts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one step of an engine takes: base_s + sequence_s · n + context_s · (tokens held) + prefill_s · (prompt tokens computed).

    It decodes a token for each of n sequences, over all the tokens that they hold, and computes part of the prompts that came.
    """

    base_s: Seconds
    sequence_s: Seconds = 0.0
    context_s: Seconds = 0.0
    prefill_s: Seconds = 0.0

    def step_s(self, sequences: int, held_tokens: float, prompt_tokens: float = 0.0) -> Seconds:
        return self.base_s + self.sequence_s * sequences + self.context_s * held_tokens + self.prefill_s * prompt_tokens


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One endpoint of a pool, as it really is.

    `pace`: a step takes at least this, too (`spillway engine --pace-ms A --pace-per-seq-ms B`). `max_sequences` run together, the others wait in the engine; where `queue` more wait it answers 429. `kv_tokens`: what its
    memory holds. `prefix_tokens`: prompt tokens that its prefix cache keeps. `prefill_chunk`: tokens that one step computes at most, of
    prompts and of sequences (vLLM: max_num_batched_tokens).
    `start_up_s`: from the end of a failure until it serves again.
    """

    costs: StepCosts
    pace: StepCosts = StepCosts(0.0)
    max_sequences: int = 256
    queue: int = 1 << 30
    kv_tokens: int | None = None
    prefix_tokens: int = 0
    prefill_chunk: int = 2048
    start_up_s: Seconds = 0.0


class Happening(enum.StrEnum):
    DOWN = "down"  # its connections break, new ones are refused
    STALL = "stall"  # it takes requests and answers nothing
    SLOW = "slow"  # every step takes `factor` times as long
    LIMIT = "limit"  # an operator sets the pool's limit to `factor`


class Incident(msgspec.Struct, frozen=True):
    """From `from_s` until `until_s` this happens to all endpoints of a pool, or to the one that is named. `regions`: only for
    gateways of these (a cut network is a STALL of some regions); empty: for all."""

    happening: Happening
    pool: PoolName
    from_s: Seconds
    until_s: Seconds
    endpoint: EndpointUrl | None = None
    factor: float = 1.0
    regions: tuple[str, ...] = ()


class GatewaySpec(msgspec.Struct, frozen=True):
    """One gateway: the arrivals of its region (shared with its other gateways by a checksum of the request id) and its view."""

    region: str
    fleet: Fleet


class Patience(msgspec.Struct, frozen=True):
    """Time-outs of the gateways' attempts."""

    first_content_s: Seconds = 60.0
    between_chunks_s: Seconds = 30.0


class Scenario(msgspec.Struct, frozen=True):
    """`engines`: by pool, the same for each of its endpoints. `gauge_period_s`, `gauge_age_s`: how often gateways are told what
    engines hold, and how old that is then; only ESTIMATED pools are gauged. `sample_s`: grid of the time series."""

    gateways: tuple[GatewaySpec, ...]
    engines: Mapping[PoolName, EngineSpec]
    incidents: tuple[Incident, ...] = ()
    gauge_period_s: Seconds = 2.0
    gauge_age_s: Seconds = 0.0
    probe_period_s: Seconds = 2.0
    patience: Patience = Patience()
    sample_s: Seconds = 1.0
    come_back: bool = False

    @property
    def pools(self) -> dict[PoolName, PoolSpec]:
        """Of all gateways' views, one for each name."""
        return {name: spec for gateway in reversed(self.gateways) for name, spec in gateway.fleet.pools.items()}


def problems(scenario: Scenario) -> Iterator[str]:
    """One sentence for each mistake."""
    if not scenario.gateways:
        yield "there is no gateway"
    for name in scenario.pools:
        if name not in scenario.engines:
            yield f"pool {name!r}: nothing says how fast its engines are; give it a capacity record with a reference shape"
    for incident in scenario.incidents:
        spec = scenario.pools.get(incident.pool)
        if spec is None:
            yield f"an incident names the pool {incident.pool!r}, which does not exist"
        elif incident.endpoint is not None and incident.endpoint not in spec.endpoints:
            yield f"an incident names {incident.endpoint!r}, which is no endpoint of {incident.pool!r}"
        if not incident.from_s < incident.until_s:
            yield f"an incident of {incident.pool!r} ends at {incident.until_s} s, before it begins"
    for name, seconds in (("gauge_period_s", scenario.gauge_period_s), ("sample_s", scenario.sample_s)):
        if not seconds > 0:
            yield f"{name} must be above 0"


def checked(scenario: Scenario) -> Scenario:
    """Raises ConfigError with all problems."""
    if wrong := list(problems(scenario)):
        raise ConfigError("; ".join(wrong))
    return scenario


def engine_of(capacity: Capacity, endpoints: int = 1) -> EngineSpec:
    """Engines that have this record, each of so many endpoints carrying an equal part. Raises ConfigError without a reference.

    With n_out steps of base + sequence · b, and b prompts computed meanwhile, T(b) = n_out · base + b · (n_in · prefill +
    n_out · sequence). So base = x / n_out, and y is divided between input and output tokens as their work is, 1 : 4. A pool of
    k endpoints that holds b requests has b / k in each: k times the slope.
    """
    shape = capacity.reference
    if shape is None or shape.output_tokens < 1:
        raise ConfigError("a capacity record needs a reference shape with output tokens to be simulated")
    each = endpoints * capacity.y_s / (shape.input_tokens + 4 * shape.output_tokens)
    costs = StepCosts(base_s=capacity.x_s / shape.output_tokens, sequence_s=4 * each, prefill_s=each)
    sequences = 256 if capacity.max_sequences is None else max(1, capacity.max_sequences // endpoints)
    kv_tokens = None if capacity.kv_tokens is None else max(1, capacity.kv_tokens // endpoints)
    return EngineSpec(costs, max_sequences=sequences, kv_tokens=kv_tokens)


def capacity_of(engine: EngineSpec, input_tokens: int, output_tokens: int, endpoints: int = 1) -> tuple[float, float]:
    """(x_s, y_s) of a pool of such engines for requests of this shape: the inverse of `engine_of`, contexts included."""
    costs = engine.costs
    held = input_tokens + output_tokens / 2
    x_s = output_tokens * costs.base_s
    y_s = output_tokens * (costs.sequence_s + costs.context_s * held) + input_tokens * costs.prefill_s
    return x_s, y_s / endpoints


def of_config(fleet: Fleet, *, gateways: int = 1, **rest: object) -> Scenario:
    """The world that a configuration describes: engines as its capacity records say, and so many gateways with equal slices.

    Of ESTIMATED pools every gateway counts on its share of `own_share`, of others it has slots of its own. Raises ConfigError where
    a record is missing.
    """
    engines: dict[PoolName, EngineSpec] = {}
    for name, spec in fleet.pools.items():
        if spec.capacity is None:
            raise ConfigError(f"pool {name!r} has no capacity record: measure one with `spillway calibrate`")
        try:
            engines[name] = engine_of(spec.capacity, len(spec.endpoints))
        except ConfigError as error:
            raise ConfigError(f"pool {name!r}: {error}") from None
    views = tuple(GatewaySpec("", _seen_by(fleet, member, gateways)) for member in range(gateways))
    return checked(msgspec.structs.replace(Scenario(views, engines), **rest))


def _seen_by(fleet: Fleet, member: int, members: int) -> Fleet:
    if members == 1:
        return fleet
    sliced = fleet.sliced(member, members)
    pools = {
        name: sliced.pools[name]
        if spec.accounting is Accounting.EXACT
        else msgspec.structs.replace(spec, own_share=spec.own_share / members)
        for name, spec in fleet.pools.items()
    }
    return msgspec.structs.replace(fleet, pools=pools)
