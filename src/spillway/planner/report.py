"""What `spillway simulate` hands out: the same arrivals under one policy or several."""

import msgspec

from spillway.core.clock import Seconds
from spillway.planner.results import PolicyResult
from spillway.planner.series import TimeSeries


class SimulationReport(msgspec.Struct, frozen=True):
    """`wall_s`: real seconds that it took; all else is the same whenever the same is asked for. `bad_lines`: of the trace, left out.
    `settings`: of each policy the ones that were best by goodput, of those that were tried."""

    arrivals: int
    wall_s: Seconds
    seed: int
    engine: str
    gateways: int
    gauge_age_s: Seconds
    bad_lines: int
    policies: dict[str, PolicyResult]
    settings: dict[str, dict[str, float]]
    series: dict[str, TimeSeries]
