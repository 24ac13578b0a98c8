"""Policies on the same arrivals: ours, and each alternative with the best of nine settings of its own."""

from collections.abc import Callable, Iterable, Mapping
from itertools import product

import msgspec

from spillway.planner.alternatives import ErrorTriggered, LeastKv, LocalOnly, RoundRobin, Threshold
from spillway.planner.results import PolicyResult, result_of
from spillway.planner.scenario import GatewaySpec, Scenario
from spillway.planner.scenarios import Case
from spillway.planner.simulate import simulate
from spillway.planner.simulation import MakePlacement, ours
from spillway.traffic.choice import Placement
from spillway.traffic.fleet import Fleet

OURS = "spillway"


class Policy(msgspec.Struct, frozen=True):
    """A placement with one setting. `first_tier_only`: its gateways know no other tier, so that who waits stays too."""

    name: str
    setting: Mapping[str, float]
    make: MakePlacement
    first_tier_only: bool = False


def policies() -> dict[str, tuple[Policy, ...]]:
    """By name, each with its settings, in order; the first of equals is the best. Ours has its defaults, local only nothing to set."""
    return {
        OURS: (Policy(OURS, {}, ours),),
        "local_only": (Policy("local_only", {}, LocalOnly, first_tier_only=True),),
        "round_robin": _grid("round_robin", RoundRobin, by_limit=(0.0, 0.5, 1.0), hosted=(0.0, 0.25, 1.0)),
        "error_triggered": _grid("error_triggered", ErrorTriggered, cooldown_s=(0.25, 1.0, 5.0), errors=(1, 3, 10)),
        "threshold": tuple(
            Policy("threshold", {"leave": leave, "back": back}, _made(Threshold, leave=leave, back=back))
            for leave, gap in product((0.5, 0.7, 0.85), (0.0, 0.1, 0.3))
            for back in (round(leave - gap, 2),)
        ),
        "least_kv": _grid("least_kv", LeastKv, kv=(0.0, 0.5, 1.0), margin=(0.0, 0.1, 0.3)),
    }


def _grid(name: str, make: Callable[..., Placement], **values: tuple[float, ...]) -> tuple[Policy, ...]:
    return tuple(
        Policy(name, setting, _made(make, **setting))
        for point in product(*values.values())
        for setting in (dict(zip(values, point, strict=True)),)
    )


def _made(make: Callable[..., Placement], **setting: float) -> MakePlacement:
    return lambda: make(**setting)


def played(case: Case, policy: Policy) -> PolicyResult:
    """The figures of one policy."""
    scenario = only_first_tier(case.scenario) if policy.first_tier_only else case.scenario
    return result_of(simulate(scenario, case.arrivals, placement=policy.make), case.from_s)


def best(tried: Iterable[tuple[Policy, PolicyResult]]) -> tuple[Policy, PolicyResult]:
    """By goodput; of equals the first."""
    return max(tried, key=lambda one: one[1].goodput_rps)


def only_first_tier(scenario: Scenario) -> Scenario:
    """The same gateways with the first tier of each model alone; pools that no tier names keep standing, unused."""
    return msgspec.structs.replace(
        scenario, gateways=tuple(GatewaySpec(seen.region, _first_tier(seen.fleet)) for seen in scenario.gateways)
    )


def _first_tier(fleet: Fleet) -> Fleet:
    models = {name: msgspec.structs.replace(spec, tiers=spec.tiers[:1]) for name, spec in fleet.models.items()}
    return msgspec.structs.replace(fleet, models=models)
