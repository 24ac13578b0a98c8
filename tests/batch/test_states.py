"""The table of a batch's states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.batch.jobs import Batch, State
from spillway.batch.states import MOVES, OVER, WrongMoveError, moved
from spillway.core.ids import BatchId, FileId, KeyId, OrganizationId, TenantId

BATCH = Batch(
    id=BatchId("b"), tenant=TenantId("t"), organization=OrganizationId(""), key=KeyId("k"), endpoint="/v1/embeddings",
    input_file=FileId("f"), window="24h", window_s=10.0, created_at_s=0.0, expires_at_s=10.0,
)  # fmt: skip


def test_the_states_are_those_of_the_contract() -> None:
    assert {state.value for state in State} == {
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
    }  # fmt: skip
    assert MOVES.keys() == set(State)
    assert {State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED} == OVER


@given(wishes=st.lists(st.sampled_from(State), max_size=12))
def test_it_moves_as_the_table_says_and_keeps_when(wishes: list[State]) -> None:
    batch = BATCH
    for at_s, to in enumerate(wishes):
        if to in MOVES[batch.state]:
            batch = moved(batch, to, float(at_s))
            assert (batch.state, batch.entered[to]) == (to, at_s)
        else:
            with pytest.raises(WrongMoveError):
                moved(batch, to, float(at_s))
    assert batch.state in OVER or MOVES[batch.state]
