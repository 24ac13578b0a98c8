"""What a request may use, or used, and what the gate says of it."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from spillway.core.clock import Seconds
from spillway.quota.rules import MeterSpec, Unit


class Charge(NamedTuple):
    """What a request may use, or used; in the order of `INDEX`. In flight 0: it is over."""

    requests: int
    tokens: int
    nano_usd: int
    in_flight: int = 1


INDEX = {Unit.REQUESTS: 0, Unit.TOKENS: 1, Unit.NANO_USD: 2, Unit.IN_FLIGHT: 3}


class Refusal(msgspec.Struct, frozen=True):
    """`spec`: the meter that has not enough. `retry_s` 0: nobody can say when it will. `cut_off`: the ledger did not answer, or
    does not know yet what was used of the period."""

    spec: MeterSpec
    retry_s: Seconds
    cut_off: bool


Answer = Callable[[Refusal | None], None]
"""Told to a request that waited: None, it passes; else why it does not."""
