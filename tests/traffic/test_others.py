"""What ours run beside in an ESTIMATED pool: all that others hold teaches the line, only what they take beyond their share costs slots."""

import msgspec
import pytest

from spillway.core.ids import EndpointUrl, RequestId
from spillway.core.outcome import Outcome
from spillway.testing.stage import Stage, fleet, pool
from spillway.traffic.events import Ended, FirstToken, Scraped
from spillway.traffic.fleet import Accounting, Capacity, TokenShape
from spillway.traffic.pools import PoolState

RECORD = Capacity(x_s=2.0, y_s=0.05, reference=TokenShape(400, 100))


def stage_of(own_share: float) -> tuple[Stage, PoolState]:
    spec = msgspec.structs.replace(
        pool("p", 100), capacity=RECORD, accounting=Accounting.ESTIMATED, own_share=own_share
    )
    stage = Stage(fleet(spec))
    return stage, stage.brain._world.pools[spec.name]  # pyright: ignore[reportPrivateUsage]


def scraped(stage: Stage, foreign: float) -> None:
    stage.tell(Scraped(EndpointUrl("http://p-0"), foreign))


def test_what_others_hold_within_their_share_costs_no_slot_but_is_known() -> None:
    stage, state = stage_of(0.25)
    before = state.slots[0]
    scraped(stage, 60.0)
    assert (state.foreign, state.others) == (0.0, 60.0)
    assert state.slots[0] > before  # a fresh gauge lifts the ceiling of the uninformed
    scraped(stage, 100.0)
    assert state.others == pytest.approx(80.0)  # a slow correction
    assert state.foreign == pytest.approx(5.0)


def test_without_fresh_gauges_others_are_taken_to_do_as_we_do_and_no_more_than_their_share() -> None:
    stage, state = stage_of(0.25)
    for number in range(10):
        stage.arrive(f"r{number}", tokens=(400, 100))
    state.refresh(stage.now)
    assert state.others == pytest.approx(30.0)
    state.in_flight = 1000
    state.refresh(stage.now)
    assert state.others == pytest.approx(75.0)


@pytest.mark.parametrize("own_share", [0.25, 0.5, 1.0])
def test_the_line_stays_true_where_ours_are_a_part_of_what_runs(own_share: float) -> None:
    """The pool really is as recorded, and all of it is held at 40: what is learned of x and y must not depend on our part."""
    stage, state = stage_of(own_share)
    held = 40.0
    ours = round(held * own_share)
    scraped(stage, held - ours)
    residence_s = RECORD.x_s + RECORD.y_s * held
    for number in range(ours):
        stage.arrive(f"r{number}", tokens=(400, 100))
    for turn in range(300):
        stage.advance(residence_s / ours)
        scraped(stage, held - ours)
        request = RequestId(f"r{turn}")
        if turn >= ours:
            stage.tell(FirstToken(request))
            stage.tell(Ended(request, Outcome.OK, 400, 100))
        else:
            stage.tell(Ended(request, Outcome.CLIENT_LEFT))  # did not run for a whole residence
        stage.arrive(f"r{turn + ours}", tokens=(400, 100))
    x_s, y_s = state.line.corrected()
    assert x_s + y_s * held == pytest.approx(residence_s, rel=0.05)
    assert x_s + y_s * 100 == pytest.approx(RECORD.x_s + RECORD.y_s * 100, rel=0.15)
