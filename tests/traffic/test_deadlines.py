"""Deadlines: who waits until when, batch that goes on as interactive, and refusals that say when to come back."""

import random

import pytest

from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, pool, sent_to
from spillway.traffic.effects import Dispatch, Effect, Queued, Refuse
from spillway.traffic.events import Arrived, Ended

REALTIME, INTERACTIVE, BATCH = Priority


def ask(name: str, priority: Priority, deadline_s: float | None, tenant: str = "t") -> Arrived:
    return Arrived(RequestId(name), ModelName("m"), TenantId(tenant), priority, 100, 50, deadline_s=deadline_s)


def refused(effects: list[Effect]) -> list[tuple[str, Outcome]]:
    return [(effect.request, effect.outcome) for effect in effects if isinstance(effect, Refuse)]


def full() -> Stage:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("running")
    return stage


def test_batch_with_a_deadline_waits_until_that_and_no_longer_than_its_priority_without() -> None:
    stage = full()
    stage.tell(ask("due", BATCH, 300.0))
    stage.tell(ask("free", BATCH, None))
    assert refused(stage.advance(61.0)) == [("free", Outcome.EVICTED)]
    assert refused(stage.advance(238.0)) == []
    assert refused(stage.advance(2.0)) == [("due", Outcome.EVICTED)]


def test_who_is_more_urgent_waits_as_its_priority_says_or_its_deadline_if_that_is_sooner() -> None:
    stage = full()
    stage.tell(ask("soon", INTERACTIVE, 5.0))
    stage.tell(ask("late", INTERACTIVE, 300.0))
    assert refused(stage.advance(6.0)) == [("soon", Outcome.EVICTED)]
    assert refused(stage.advance(15.0)) == [("late", Outcome.EVICTED)]


def test_batch_near_its_deadline_goes_on_as_interactive() -> None:
    stage = full()
    stage.tell(ask("due", BATCH, 60.0, tenant="a"))
    stage.advance(39.0)
    assert stage.brain.counters.promoted == 0
    stage.advance(2.0)  # 20 s before its last chance, as long as interactive requests wait
    assert stage.brain.counters.promoted == 1
    stage.tell(ask("interactive", INTERACTIVE, None, tenant="b"))
    stage.tell(ask("realtime", REALTIME, None, tenant="c"))
    order = [sent_to(stage.end(name))[0][0] for name in ("running", "realtime", "due")]
    assert order == ["realtime", "due", "interactive"]


def test_a_short_deadline_buys_nothing_in_its_first_half() -> None:
    stage = full()
    stage.tell(ask("hasty", BATCH, 10.0, tenant="a"))
    stage.tell(ask("interactive", INTERACTIVE, None, tenant="b"))
    stage.advance(4.9)
    assert stage.brain.counters.promoted == 0
    assert sent_to(stage.end("running")) == [("interactive", "east")]
    stage.advance(0.2)
    assert stage.brain.counters.promoted == 1


def test_what_is_promoted_finds_the_room_that_its_new_priority_may_use() -> None:
    stage = Stage(fleet(pool("east", 10)))
    for number in range(7):
        stage.arrive(f"r{number}")
    assert isinstance(stage.tell(ask("due", BATCH, 30.0))[0], Queued)  # 7 of 10: the ceiling of batch
    assert sent_to(stage.advance(16.0)) == [("due", "east")]


@pytest.mark.parametrize("seed", range(3))
def test_who_comes_back_when_told_to_finds_room(seed: int) -> None:
    """A burst at three times what the pool serves, then three quarters of it: of those who were told when to come back and do so, at
    least 90 % are let in."""
    chance = random.Random(seed)
    stage = Stage(fleet(pool("east", 8)))
    again: list[tuple[float, str]] = []
    ends: list[tuple[float, str]] = []
    found = {"in": 0, "out": 0}

    def tell(event: Arrived | Ended) -> None:
        for effect in stage.tell(event):
            if isinstance(effect, Dispatch):
                ends.append((stage.now + chance.uniform(0.5, 1.5), effect.request))
            elif isinstance(effect, Refuse) and effect.retry_after_s is not None and effect.request.count("+") < 1:
                again.append((stage.now + effect.retry_after_s, f"{effect.request}+"))

    for number in range(6000):
        stage.advance(0.01)
        ends.sort()
        while ends and ends[0][0] <= stage.now:
            tell(Ended(RequestId(ends.pop(0)[1]), Outcome.OK, 100, 50))
        burst = number % 3000 < 500
        if chance.random() < (0.24 if burst else 0.04):
            tell(ask(f"r{number}", INTERACTIVE, 5.0, tenant=f"t{number % 9}"))
        again.sort()
        while again and again[0][0] <= stage.now:
            name = again.pop(0)[1]
            before = stage.brain.counters.refused
            tell(ask(name, INTERACTIVE, 5.0, tenant=name[-3:]))
            found["out" if stage.brain.counters.refused > before else "in"] += 1
    assert sum(found.values()) > 20, found
    assert found["in"] >= 0.9 * sum(found.values()), found
