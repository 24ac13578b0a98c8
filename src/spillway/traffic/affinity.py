"""Which endpoint of a pool: two choices by work."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from spillway.core.clock import Seconds
from spillway.traffic.events import Arrived


class Loaded(Protocol):
    """An endpoint, as affinity sees it."""

    work: float
    in_flight: int


Endpoint = TypeVar("Endpoint", bound=Loaded)


FEW = 4  # endpoints that are all looked at; of more, two are drawn


def _load(endpoint: Loaded) -> tuple[float, int]:
    return endpoint.work, endpoint.in_flight


class Affinity:
    __slots__ = ()

    def pick(self, ready: Sequence[Endpoint], arrived: Arrived, draw: int, now: Seconds) -> Endpoint:
        count = len(ready)
        first = draw % count
        if count <= FEW:
            return min((*ready[first:], *ready[:first]), key=_load)
        one, other = ready[first], ready[(first + 1 + (draw >> 8) % (count - 1)) % count]
        return other if _load(other) < _load(one) else one

    def sent(self, arrived: Arrived, endpoint: Loaded) -> None:
        pass

    def warm_tokens(self, arrived: Arrived) -> int:
        return 0
