"""What is wrong with a fleet, in words for whoever wrote it. The brain takes no fleet that has a problem."""

from collections import Counter
from collections.abc import Iterator, Sequence

from spillway.core.priority import Priority
from spillway.traffic.fleet import Capacity, Fleet, ModelSpec, PoolSpec, SpillPolicy, allows


def problems(fleet: Fleet) -> list[str]:
    """One sentence for each mistake; empty: the fleet can be used. A limit of 0 is no mistake (a cluster may be closed)."""
    return [
        *(text for name, pool in fleet.pools.items() for text in _of_pool(name, pool)),
        *(text for name, model in fleet.models.items() for text in _of_model(name, model, fleet)),
        *(text for name, policy in fleet.policies.items() for text in _of_policy(f"policy {str(name)!r}", policy)),
        *_of_reach(fleet),
        *_of_priorities(fleet),
        *_of_rules(fleet),
    ]


def _of_pool(name: str, pool: PoolSpec) -> Iterator[str]:
    if pool.name != name:
        yield f"pool {name!r} is filed under another name than its own, {pool.name!r}"
    if not pool.endpoints:
        yield f"pool {name!r} has no endpoints"
    for url in _repeated(pool.endpoints):
        yield f"pool {name!r} names the endpoint {url!r} more than once"
    if pool.limit < 0:
        yield f"pool {name!r}: limit {pool.limit} is negative"
    if not 0.0 <= pool.rtt_s < float("inf"):
        yield f"pool {name!r}: rtt_s {pool.rtt_s} is not a duration"
    if not 0.0 < pool.own_share <= 1.0:
        yield f"pool {name!r}: own_share {pool.own_share} is not above 0 and at most 1"
    if pool.capacity is not None:
        yield from _of_capacity(name, pool.capacity)


def _of_capacity(name: str, capacity: Capacity) -> Iterator[str]:
    for field, seconds in (("x_s", capacity.x_s), ("y_s", capacity.y_s)):
        if not 0.0 <= seconds < float("inf"):
            yield f"pool {name!r}: capacity {field} {seconds} is not a duration"
    for field, count in (("kv_tokens", capacity.kv_tokens), ("max_sequences", capacity.max_sequences)):
        if count is not None and count < 1:
            yield f"pool {name!r}: capacity {field} {count} is less than 1"
    shape = capacity.reference
    if shape is not None and (shape.input_tokens < 0 or shape.output_tokens < 0):
        yield f"pool {name!r}: capacity reference has negative tokens"


def _of_model(name: str, model: ModelSpec, fleet: Fleet) -> Iterator[str]:
    if model.name != name:
        yield f"model {name!r} is filed under another name than its own, {model.name!r}"
    if not model.tiers:
        yield f"model {name!r} has no tiers"
    for place, tier in enumerate(model.tiers, start=1):
        if not tier:
            yield f"model {name!r}: tier {place} is empty"
    named = [pool for tier in model.tiers for pool in tier]
    for pool in _repeated(named):
        yield f"model {name!r} names the pool {pool!r} more than once"
    for pool in sorted(set(named) - fleet.pools.keys()):
        yield f"model {name!r} names the pool {pool!r}, which does not exist"
    for field, limit_ms in (("ttft_ms", model.slo.ttft_ms), ("tpot_ms", model.slo.tpot_ms)):
        if limit_ms is not None and not limit_ms > 0:
            yield f"model {name!r}: slo {field} {limit_ms} is not above 0"

    yield from _of_policy(f"model {name!r}: policy", model.policy)


def _of_policy(whose: str, policy: SpillPolicy) -> Iterator[str]:
    if policy.tiers is not None and policy.tiers < 1:
        yield f"{whose}: tiers {policy.tiers} is less than 1"
    if policy.max_usd is not None and not policy.max_usd >= 0:
        yield f"{whose}: max_usd {policy.max_usd} is not 0 or more"


def _of_reach(fleet: Fleet) -> Iterator[str]:
    """A policy that refuses everything would answer every request with an error. One that refuses a model is meant so."""
    for name, model in fleet.models.items():
        if not leaves_any(model, fleet, model.policy):
            yield f"model {name!r}: its policy refuses every pool"
    for policy, rules in fleet.policies.items():
        if fleet.models and not any(leaves_any(model, fleet, model.policy, rules) for model in fleet.models.values()):
            yield f"policy {str(policy)!r} refuses every pool of every model"


def leaves_any(model: ModelSpec, fleet: Fleet, *policies: SpillPolicy) -> bool:
    return any(
        name in fleet.pools and all(allows(policy, fleet.pools[name], place) for policy in policies)
        for place, tier in enumerate(model.tiers)
        for name in tier
    ) or not any(model.tiers)


def _of_priorities(fleet: Fleet) -> Iterator[str]:
    above: float | None = None
    for priority in Priority:
        spec = fleet.priorities.get(priority)
        if spec is None:
            yield f"priority {priority.value!r} is missing"
            continue
        if not 0.0 < spec.ceiling <= 1.0:
            yield f"priority {priority.value!r}: ceiling {spec.ceiling} is not above 0 and at most 1"
        if above is not None and spec.ceiling > above:
            yield f"priority {priority.value!r}: ceiling {spec.ceiling} is above that of a more urgent priority"
        if not 0.0 <= spec.max_wait_s < float("inf"):
            yield f"priority {priority.value!r}: max_wait_s {spec.max_wait_s} is not a duration"
        above = spec.ceiling


def _of_rules(fleet: Fleet) -> Iterator[str]:
    room, breaker, retries = fleet.waiting_room, fleet.breaker, fleet.retries
    at_least = (
        ("waiting_room.max_requests", room.max_requests, 0),
        ("waiting_room.max_bytes", room.max_bytes, 0),
        ("breaker.failures", breaker.failures, 1),
        ("breaker.min_samples", breaker.min_samples, 1),
        ("retries.attempts", retries.attempts, 1),
        ("retries.budget_floor", retries.budget_floor, 0),
    )
    for field, value, least in at_least:
        if value < least:
            yield f"{field} {value} is less than {least}"
    durations = (
        ("breaker.window_s", breaker.window_s),
        ("breaker.open_s", breaker.open_s),
        ("breaker.max_open_s", breaker.max_open_s),
        ("breaker.trial_gap_s", breaker.trial_gap_s),
        ("retries.window_s", retries.window_s),
    )
    for field, seconds in durations:
        if not 0.0 < seconds < float("inf"):
            yield f"{field} {seconds} is not above 0"
    if breaker.max_open_s < breaker.open_s:
        yield f"breaker.max_open_s {breaker.max_open_s} is less than breaker.open_s {breaker.open_s}"
    if not 0.0 < breaker.failure_share <= 1.0:
        yield f"breaker.failure_share {breaker.failure_share} is not above 0 and at most 1"
    if not 0.0 <= retries.budget_share < float("inf"):
        yield f"retries.budget_share {retries.budget_share} is negative or not finite"


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
