"""Where a request may be served, by its fleet's configuration alone: derived here once more, for the audit."""

from spillway.core.ids import PoolName
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Fleet, SpillPolicy


def permitted(fleet: Fleet, arrived: Arrived) -> tuple[PoolName, ...]:
    """In tiers' order; empty: nowhere."""
    model = fleet.models.get(arrived.model)
    if model is None or (arrived.policy and arrived.policy not in fleet.policies):
        return ()
    policies = [model.policy, *([fleet.policies[arrived.policy]] if arrived.policy else [])]
    return tuple(
        name
        for place, tier in enumerate(model.tiers)
        for name in tier
        if not (arrived.hops and place) and all(_permits(policy, fleet, name, place, arrived) for policy in policies)
    )


def _permits(policy: SpillPolicy, fleet: Fleet, name: PoolName, place: int, arrived: Arrived) -> bool:
    pool = fleet.pools[name]
    if policy.tiers is not None and place >= policy.tiers:
        return False
    if pool.cluster is None and not policy.hosted:
        return False
    if not set(policy.residency) <= set(pool.residency):
        return False
    if policy.max_usd is None:
        return True
    price = pool.price
    usd = (arrived.input_tokens * price.input_usd_per_mtok + arrived.output_tokens * price.output_usd_per_mtok) / 1e6
    return usd <= policy.max_usd
