"""What a pool knows of those who use it: their ranks, their routes, where they wait, and what runs."""

from typing import NamedTuple, Protocol

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName
from spillway.core.priority import Priority
from spillway.traffic.fleet import WaitingRoom

RANKS = range(len(Priority))
BATCH_RANK = Priority.BATCH.rank


class RouteKey(NamedTuple):
    """A model, and the pools that its policy leaves (`routes.label_of`)."""

    model: ModelName
    label: str


class Occupant(Protocol):
    """A request that runs in a pool, as the pool sees it."""

    rank: int
    answered_at: Seconds | None


class Waits(Protocol):
    """A waiting room, as a pool sees it."""

    waiting: int
    rules: WaitingRoom


def share_of_limit(ceiling: float, limit: int) -> int:
    """⌊ceiling · limit⌋, at least 1 for a limit of at least 1. 1e-9 keeps 0.29 · 100 from being 28."""
    return max(1, int(ceiling * limit + 1e-9)) if limit > 0 else 0
