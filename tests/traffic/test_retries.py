"""What follows a failed attempt: another endpoint, another pool, a place in front of the line, or the end."""

import msgspec
import pytest

from spillway.core.ids import RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, pool, sent_to
from spillway.traffic.effects import Dispatch, Effect, Queued, Refuse, SpillReason
from spillway.traffic.events import Configured, Fault
from spillway.traffic.fleet import BreakerRules, Fleet, ModelSpec, PoolSpec, PrioritySpec, RetryRules
from spillway.traffic.retries import RetryBudget


def sturdy(*parts: PoolSpec | ModelSpec, attempts: int = 3, floor: int = 1000) -> Fleet:
    """Breakers never trip, so that only retries are seen."""
    return msgspec.structs.replace(
        fleet(*parts),
        breaker=BreakerRules(failures=10_000, min_samples=10_000),
        retries=RetryRules(attempts=attempts, budget_floor=floor),
    )


def dispatch(effects: list[Effect]) -> Dispatch:
    found = [effect for effect in effects if isinstance(effect, Dispatch)]
    assert len(found) == 1
    return found[0]


def test_a_retry_goes_to_an_endpoint_that_was_not_tried() -> None:
    stage = Stage(sturdy(pool("east", 10, 3)))
    used = [dispatch(stage.arrive("a"))]
    used += [dispatch(stage.fail("a")) for _ in range(2)]
    assert len({one.endpoint for one in used}) == 3
    assert [one.attempt for one in used] == [1, 2, 3]
    assert stage.fail("a") == [Refuse(RequestId("a"), Outcome.UPSTREAM_ERROR, None)]


def test_then_to_the_next_tier_and_says_that_it_failed() -> None:
    stage = Stage(sturdy(pool("east", 10), pool("west", 10)))
    stage.arrive("a")
    again = dispatch(stage.fail("a"))
    assert (again.pool, again.spill, again.spilled_from) == ("west", SpillReason.FAILED, "east")


def test_and_to_the_same_endpoint_when_there_is_no_other() -> None:
    stage = Stage(sturdy(pool("east", 10)))
    stage.arrive("a")
    assert dispatch(stage.fail("a")).attempt == 2


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.CONNECT, Outcome.UPSTREAM_ERROR),
        (Fault.RESET, Outcome.UPSTREAM_ERROR),
        (Fault.SERVER_ERROR, Outcome.UPSTREAM_ERROR),
        (Fault.MALFORMED, Outcome.UPSTREAM_ERROR),
        (Fault.TIMEOUT, Outcome.UPSTREAM_TIMEOUT),
    ],
)
def test_the_last_fault_names_the_outcome(fault: Fault, outcome: Outcome) -> None:
    stage = Stage(sturdy(pool("east", 10), attempts=1))
    stage.arrive("a")
    assert stage.fail("a", fault) == [Refuse(RequestId("a"), outcome, None)]


def test_what_has_begun_to_answer_is_not_retried() -> None:
    stage = Stage(sturdy(pool("east", 10, 2)))
    stage.arrive("a")
    stage.begin("a")
    assert stage.fail("a") == [Refuse(RequestId("a"), Outcome.UPSTREAM_ERROR, None)]


def test_a_failed_attempt_gives_its_slot_back_once() -> None:
    stage = Stage(sturdy(pool("east", 2), attempts=1))
    stage.arrive("a", Priority.REALTIME)
    stage.fail("a")
    assert stage.fail("a") == []
    assert stage.end("a") == []
    assert stage.brain.counters.anomalies == 2
    assert stage.brain.snapshot().pools[0].in_flight == 0


def test_a_storm_of_failures_gets_the_budget_and_no_more() -> None:
    stage = Stage(sturdy(pool("east", 200), pool("west", 200), floor=10))
    for number in range(100):
        stage.arrive(f"r{number}")
    again = [sent_to(stage.fail(f"r{number}")) for number in range(100)]
    assert sum(map(len, again)) == 10 + 20  # the floor, and a fifth of 100 requests


@pytest.mark.parametrize(("fault", "saved"), [(Fault.CONNECT, 100), (Fault.RESET, 99)])
def test_what_dies_with_an_endpoint_is_not_charged(fault: Fault, saved: int) -> None:
    """Before the breaker opens two resets are charged, of which the budget carries one."""
    world = msgspec.structs.replace(
        fleet(pool("east", 200), pool("west", 200)), retries=RetryRules(budget_floor=1, budget_share=0.0)
    )
    stage = Stage(world)
    names = [f"r{number}" for number in range(100)]
    for name in names:
        stage.arrive(name, Priority.REALTIME)
    again = [sent_to(stage.fail(name, fault)) for name in names]
    assert sum(map(len, again)) == saved


def test_the_budget_slides_with_time() -> None:
    budget = RetryBudget(RetryRules(budget_share=0.5, budget_floor=1, window_s=10.0))
    for _ in range(4):
        budget.count(0.0)
    assert [budget.take(1.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(6.0) for _ in range(2)] == [False, False]  # the other half still counts
    assert [budget.take(20.0) for _ in range(2)] == [True, False]


def test_when_everything_is_full_a_failed_request_waits_in_front() -> None:
    stage = Stage(sturdy(pool("east", 2, 2)))
    stage.arrive("a", Priority.REALTIME)
    stage.arrive("b", Priority.REALTIME)
    stage.arrive("urgent", Priority.REALTIME)
    stage.arrive("urgent2", Priority.REALTIME)
    stage.arrive("low", Priority.INTERACTIVE)
    effects = stage.fail("a")  # its slot goes to whom it must not overtake: nobody, it is the oldest
    assert sent_to(effects) == [("a", "east")]
    assert sent_to(stage.end("b")) == [("urgent", "east")]


def test_a_failed_request_does_not_overtake_the_more_urgent() -> None:
    stage = Stage(sturdy(pool("east", 1, 1)))
    stage.arrive("low", Priority.INTERACTIVE)
    stage.arrive("low2", Priority.INTERACTIVE)
    stage.arrive("urgent", Priority.REALTIME)
    effects = stage.fail("low")
    assert effects[0] == Queued(RequestId("low"))
    assert sent_to(effects) == [("urgent", "east")]
    assert sent_to(stage.end("urgent")) == [("low", "east")]
    assert sent_to(stage.end("low")) == [("low2", "east")]


def test_all_waits_of_a_request_together_last_no_longer_than_it_may_wait() -> None:
    stage = Stage(sturdy(pool("east", 1), attempts=9))
    stage.arrive("blocking", Priority.REALTIME)
    stage.arrive("a", Priority.REALTIME)
    stage.advance(0.6)
    assert sent_to(stage.end("blocking")) == [("a", "east")]
    stage.advance(50.0)  # an attempt is no wait
    effects = stage.fail("a", Fault.OVERLOADED, retry_after_s=0.3)
    assert effects[0] == Queued(RequestId("a"))
    assert sent_to(stage.advance(0.31)) == [("a", "east")]
    effects = stage.fail("a", Fault.OVERLOADED, retry_after_s=0.3)  # 0.1 s of its second are left
    assert [effect for effect in effects if isinstance(effect, Refuse)] == [
        Refuse(RequestId("a"), Outcome.REFUSED, 1.0)
    ]


def test_the_time_of_an_earlier_wait_does_not_evict_from_a_later_one() -> None:
    stage = Stage(sturdy(pool("east", 1)))
    stage.arrive("blocking")
    stage.arrive("a")  # until 20 s
    stage.advance(1.0)
    assert sent_to(stage.end("blocking")) == [("a", "east")]
    stage.advance(5.0)
    stage.fail("a", Fault.OVERLOADED, retry_after_s=18.0)  # waits again, until 6 + 19 s
    assert sent_to(stage.advance(18.5)) == [("a", "east")]


def test_who_may_not_wait_is_not_kept_after_a_failure_either() -> None:
    world = sturdy(pool("east", 1))
    impatient = {**world.priorities, Priority.BATCH: PrioritySpec(0.7, 0.0)}
    stage = Stage(msgspec.structs.replace(world, priorities=impatient))
    stage.arrive("a", Priority.BATCH)
    stage.arrive("urgent", Priority.REALTIME)
    effects = stage.fail("a")
    assert effects[0] == Refuse(RequestId("a"), Outcome.UPSTREAM_ERROR, None)
    assert sent_to(effects) == [("urgent", "east")]


def test_a_retry_whose_model_is_gone_ends() -> None:
    world = sturdy(pool("east", 1))
    stage = Stage(world)
    stage.arrive("a")
    stage.tell(Configured(msgspec.structs.replace(world, models={})))
    assert stage.fail("a") == [Refuse(RequestId("a"), Outcome.UPSTREAM_ERROR, None)]
