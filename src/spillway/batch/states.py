"""The states of a batch, and how it moves between them.

    validating ─▶ in_progress ─▶ finalizing ─▶ completed
        │             │    └───────────────▶ expired        what is finished is delivered, the rest is in the error file
        ├─▶ failed    │            │
        └─────────────┴────────────┴─▶ cancelling ─▶ cancelled   what is finished is delivered

Rules:
1. A batch that is over never changes again.
2. `cancelling` may be asked for while it is not over; asking twice changes nothing.
3. It expires only while lines may still be unfinished: one that is finalizing is finished, however late.
"""

import msgspec

from spillway.batch.jobs import Batch, State
from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError

MOVES: dict[State, frozenset[State]] = {
    State.VALIDATING: frozenset((State.IN_PROGRESS, State.FAILED, State.CANCELLING, State.EXPIRED)),
    State.IN_PROGRESS: frozenset((State.FINALIZING, State.EXPIRED, State.CANCELLING)),
    State.FINALIZING: frozenset((State.COMPLETED, State.CANCELLING)),
    State.CANCELLING: frozenset((State.CANCELLED,)),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.EXPIRED: frozenset(),
    State.CANCELLED: frozenset(),
}

OVER = frozenset(state for state, following in MOVES.items() if not following)


class WrongMoveError(SpillwayError):
    """A batch cannot go from its state to the one that was asked for."""


def moved(batch: Batch, to: State, now_s: Seconds) -> Batch:
    """The batch in another state, with the time of it. WrongMoveError where the table has no such move."""
    if to not in MOVES[batch.state]:
        raise WrongMoveError(f"batch {batch.id} is {batch.state.value}, it cannot become {to.value}")
    return msgspec.structs.replace(batch, state=to, entered={**batch.entered, to: now_s})
