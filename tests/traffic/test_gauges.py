"""What engines and providers say of themselves: a correction of our own books, believed while it is fresh and makes sense."""

from math import inf, nan

import msgspec
import pytest

from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, pool, sent_to
from spillway.traffic.effects import Effect
from spillway.traffic.events import Ended, QuotaSeen, Scraped
from spillway.traffic.fleet import Accounting

REALTIME, INTERACTIVE, BATCH = Priority
EAST = pool("east", 10)
ESTIMATED = msgspec.structs.replace(EAST, accounting=Accounting.ESTIMATED)


def scraped(stage: Stage, foreign: float, kv_usage: float | None = None, age_s: float = 0.0) -> list[Effect]:
    return stage.tell(Scraped(EndpointUrl("http://east-0"), foreign, kv_usage, age_s))


def quota(stage: Stage, requests: int | None, tokens: int | None = None, reset_s: float | None = None) -> list[Effect]:
    return stage.tell(QuotaSeen(PoolName("east"), requests, tokens, reset_s))


def room(stage: Stage, priority: Priority = REALTIME) -> int:
    """How many find room now; all of them have left again when it returns."""
    names = [f"probe{number}" for number in range(20)]
    found = sum(bool(sent_to(stage.arrive(name, priority))) for name in names)
    for name in reversed(names):  # who waits leaves first
        stage.end(name, Outcome.CLIENT_LEFT)
    return found


def test_what_others_hold_takes_slots_from_every_priority() -> None:
    stage = Stage(fleet(EAST))
    scraped(stage, 4.0)
    assert [room(stage, priority) for priority in Priority] == [6, 5, 3]
    assert stage.brain.snapshot().pools[0].foreign == 4.0


def test_a_gauge_is_a_slow_correction_and_who_waits_is_called_in() -> None:
    stage = Stage(fleet(EAST))
    scraped(stage, 8.0)
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        stage.arrive(name, REALTIME)
    sent = [[request for request, _ in sent_to(scraped(stage, 0.0))] for _ in range(2)]
    assert sent == [["c", "d", "e", "f"], ["g"]]  # 8 held by others, then 4, then 2


def test_gauges_close_a_pool_down_to_one_request_but_do_not_shut_it() -> None:
    stage = Stage(fleet(EAST))
    scraped(stage, 1e9)
    assert room(stage) == 1


@pytest.mark.parametrize(("age_s", "fresh_s"), [(0.0, 6.0), (2.0, 4.0), (-5.0, 6.0)])
def test_a_gauge_that_is_too_old_is_forgotten_and_who_waits_is_called_in(age_s: float, fresh_s: float) -> None:
    stage = Stage(fleet(EAST))
    scraped(stage, 9.0, age_s=age_s)
    stage.arrive("running", REALTIME)
    stage.advance(fresh_s - 0.5)
    stage.arrive("waits", REALTIME)
    assert sent_to(stage.advance(0.49)) == []
    assert sent_to(stage.advance(0.01)) == [("waits", "east")]


ONLINE = (Priority.REALTIME, Priority.INTERACTIVE)


def test_an_estimated_pool_without_fresh_gauges_has_a_lower_ceiling_and_is_not_closed() -> None:
    stage = Stage(fleet(ESTIMATED))
    assert [room(stage, priority) for priority in ONLINE] == [8, 8]
    scraped(stage, 0.0, age_s=6.0)  # too late
    assert room(stage) == 8
    scraped(stage, 0.0)
    assert [room(stage, priority) for priority in ONLINE] == [10, 9]
    stage.advance(6.0)
    assert [room(stage, priority) for priority in ONLINE] == [8, 8]


@pytest.mark.parametrize(
    ("foreign", "age_s"), [(nan, 0.0), (inf, 0.0), (-inf, 0.0), (-3.0, 0.0), (0.0, nan), (0.0, inf), (0.0, -inf)]
)
def test_a_gauge_that_makes_no_sense_changes_nothing(foreign: float, age_s: float) -> None:
    stage = Stage(fleet(ESTIMATED))
    scraped(stage, foreign, age_s=age_s)
    assert room(stage) == 8  # it is still uninformed
    scraped(stage, 3.0, kv_usage=nan)
    scraped(stage, foreign, kv_usage=nan, age_s=age_s)
    assert room(stage) == 7


def test_a_quota_closes_a_pool_and_its_reset_opens_it_again() -> None:
    stage = Stage(fleet(EAST))
    stage.arrive("running", REALTIME)
    quota(stage, 2, reset_s=0.9)
    assert room(stage) == 2
    quota(stage, 0, reset_s=0.9)
    stage.arrive("waits", REALTIME)
    assert sent_to(stage.advance(0.89)) == []
    assert sent_to(stage.advance(0.01)) == [("waits", "east")]
    assert room(stage) == 8
    quota(stage, 0)
    assert room(stage) == 0
    quota(stage, None)
    assert room(stage) == 8


def test_tokens_that_are_left_are_so_many_requests_of_the_mean_size() -> None:
    stage = Stage(fleet(EAST))
    for number in range(3):
        stage.arrive(f"r{number}")
        stage.advance(1.0)
        stage.tell(Ended(RequestId(f"r{number}"), Outcome.OK, 400, 100))
    quota(stage, 5, tokens=1600)
    assert room(stage) == 3


@pytest.mark.parametrize(("reset_s", "closed_s"), [(nan, 1.0), (-5.0, 1.0), (1e12, 3600.0), (inf, 3600.0)])
def test_no_reset_closes_a_pool_for_good(reset_s: float, closed_s: float) -> None:
    """A day, or a time of the day taken for a duration: who sends nothing hears nothing, and would never learn better."""
    stage = Stage(fleet(EAST))
    quota(stage, 0, reset_s=reset_s)
    stage.advance(closed_s - 0.01)
    assert room(stage) == 0
    stage.advance(0.01)
    assert room(stage) == 10
