"""One simulation from beginning to end: the driver with its rounds and incidents, and the two models of an engine by name."""

import enum
from collections.abc import Iterable
from math import inf

from spillway.core.clock import Seconds
from spillway.planner.arrival import Arrival
from spillway.planner.books import Books
from spillway.planner.incidents import plan_incidents
from spillway.planner.rounds import plan_rounds
from spillway.planner.scenario import Scenario
from spillway.planner.simulation import MakeEngine, MakePlacement, Simulation, ours
from spillway.planner.stepped_engine import SteppedEngine
from spillway.planner.summary_engine import SummaryEngine


class EngineModel(enum.StrEnum):
    SUMMARY = "summary"
    STEPPED = "stepped"


def simulate(
    scenario: Scenario,
    arrivals: Iterable[Arrival],
    *,
    placement: MakePlacement = ours,
    engine: EngineModel = EngineModel.SUMMARY,
    until_s: Seconds = inf,
) -> Books:
    """What became of the arrivals, which come in order of time. `placement` is called once for each gateway.

    The same arguments give the same books. Raises ConfigError for a scenario with problems, ValueError for arrivals out of order.
    """
    make_engine: MakeEngine = SummaryEngine if engine is EngineModel.SUMMARY else SteppedEngine
    simulation = Simulation(scenario, make_engine, placement)
    plan_rounds(simulation)
    plan_incidents(simulation)
    return simulation.run(arrivals, until_s)
