"""One request of a simulated world: what the gateway would tell the brain of it, and what only its end will show."""

import msgspec

from spillway.core.clock import Seconds
from spillway.traffic.events import Arrived


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """`arrived` is told to the brain as it stands, estimates and all; `output_tokens` is what will really be generated."""

    at_s: Seconds
    region: str  # gateways of this region take it
    output_tokens: int
    arrived: Arrived
