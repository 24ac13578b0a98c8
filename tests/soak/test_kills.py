"""The long form of killing, with three kills; and that its audit sees what it is there to see."""

import msgspec
import pytest

from tests.soak.kills import run
from tests.soak.ledger import Books, Delivered, Finished, Log, Row, audit

pytestmark = pytest.mark.server

COST = 2 * 150 + 3 * 600
ROW = Row("r", "ok", 2, 3, COST)
BOOKS = Books((ROW,), (1, 2, 3, COST))
EMPTY = Books((), (0, 0, 0, 0))
DELIVERED = [Delivered("r", 10.0)]
LOGS = [Log((Finished("r", 9.99, 2, 3),), frozenset())]


def test_three_kills_lose_and_double_nothing() -> None:
    outcome = run(["worker", "parent", "east"], seed=1, longest_gap_s=0.5)
    assert outcome.audit.passed, outcome
    assert outcome.audit.delivered > 60
    assert [kill.target for kill in outcome.kills] == ["worker", "parent", "east"]


def test_witnesses_that_agree() -> None:
    assert audit(DELIVERED, LOGS, BOOKS, []).passed


@pytest.mark.parametrize(("kill_s", "excused"), [(9.99, 1), (10.04, 1), (10.1, 0), (9.9, 0)])
def test_only_a_kill_just_after_the_answer_excuses_a_missing_record(kill_s: float, excused: int) -> None:
    found = audit(DELIVERED, LOGS, EMPTY, [kill_s])
    assert (found.missing, found.missing_excused) == (1, excused)
    assert found.passed == (excused == 1)


def test_an_upstream_that_was_killed_may_not_have_written_that_it_finished() -> None:
    logs = [Log((), frozenset({"r"}))]
    assert audit(DELIVERED, logs, BOOKS, []).passed
    assert audit([], [], BOOKS, []).invented == 1


@pytest.mark.parametrize(
    ("books", "field"),
    [
        (Books((ROW,), (2, 4, 6, 2 * COST)), "counted_twice"),
        (Books((ROW, ROW), (2, 4, 6, 2 * COST)), "counted_twice"),
        (Books((ROW, msgspec.structs.replace(ROW, request="s")), (2, 4, 6, 2 * COST)), "invented"),
        (Books((msgspec.structs.replace(ROW, completion_tokens=4),), (1, 2, 4, COST)), "wrong_tokens"),
        (Books((msgspec.structs.replace(ROW, cost_nano_usd=1),), (1, 2, 3, 1)), "wrong_cost"),
        (Books((ROW,), (1, 2, 3, COST + 1)), "sums_differ"),
    ],
)
def test_witnesses_that_do_not_agree(books: Books, field: str) -> None:
    found = audit(DELIVERED, LOGS, books, [])
    assert getattr(found, field) == 1
    assert not found.passed
