"""The long form of killing in the middle of a batch, with ten kills; and that its audit sees what it is there to see."""

import msgspec
import pytest

from tests.needs import needs_postgres
from tests.soak.batches import Kill, Outcome, run

pytestmark = [pytest.mark.server, pytest.mark.slow]

GOOD = Outcome(
    store="sqlite", lines=10, missing=0, twice=0, out_of_order=0, wrong=0, failed=0, totals_differ=False, repeated=3,
    billed=10, billed_twice=0, unbilled=0, kills=(Kill("store", 1.0, 5),), seconds=1.0,
)  # fmt: skip


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=needs_postgres)])
def test_ten_kills_lose_double_and_mix_up_nothing(store: str) -> None:
    outcome = run(10, lines=5000, seed=1, store=store, span_s=12.0)
    assert outcome.passed, outcome
    assert {kill.target for kill in outcome.kills} >= {"batch worker", "gateway worker", "gateway", "freeze", "store"}
    assert all(kill.in_flight for kill in outcome.kills[:4])  # later ones may come while the gateway is not up yet


@pytest.mark.parametrize(
    "field", ["missing", "twice", "out_of_order", "wrong", "failed", "totals_differ", "billed_twice", "unbilled"]
)
def test_what_the_audit_minds(field: str) -> None:
    assert GOOD.passed
    assert not msgspec.structs.replace(GOOD, **{field: 1}).passed
