"""What happens again and again: gateways are told what engines hold, and the books take a sample."""

from spillway.planner.simulation import Gateway, Simulation
from spillway.traffic.events import Scraped
from spillway.traffic.fleet import Accounting


def plan_rounds(simulation: Simulation) -> None:
    """Samples from the beginning on; gauges only where a gateway has ESTIMATED pools."""
    simulation.at(simulation.scenario.sample_s, _sample, simulation)
    for gateway, seen in zip(simulation.gateways, simulation.scenario.gateways, strict=True):
        if any(spec.accounting is Accounting.ESTIMATED for spec in seen.fleet.pools.values()):
            simulation.at(0.0, _gauge, simulation, gateway)


def _sample(simulation: Simulation, _: object) -> None:
    holds = dict.fromkeys(simulation.books.pools, 0)
    for (pool, _url), site in simulation.sites.items():
        holds[pool] += site.engine.holds
    waiting = dict.fromkeys(simulation.books.regions, 0)
    for gateway in simulation.gateways:
        waiting[gateway.region] += simulation.waiting(gateway)
    simulation.books.sample(simulation.now, list(holds.values()), list(waiting.values()))
    if simulation.more:
        simulation.at(simulation.now + simulation.scenario.sample_s, _sample, simulation)


def _gauge(simulation: Simulation, gateway: Gateway) -> None:
    """Everything it estimates is read now, and told when it has grown as old as it gets."""
    scenario = simulation.scenario
    fleet = scenario.gateways[gateway.number].fleet
    for (pool, _), site in simulation.sites.items():
        spec = fleet.pools.get(pool)
        if spec is not None and spec.accounting is Accounting.ESTIMATED and site.answers(gateway.region):
            heard = site.gauge(gateway.number, scenario.gauge_age_s)
            simulation.at(simulation.now + scenario.gauge_age_s, _told, (simulation, gateway), heard)
    if simulation.more:
        simulation.at(simulation.now + scenario.gauge_period_s, _gauge, simulation, gateway)


def _told(whom: tuple[Simulation, Gateway], heard: Scraped) -> None:
    simulation, gateway = whom
    simulation.tell(gateway, heard)
