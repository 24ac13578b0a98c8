"""Batch fills idle room and gives it up: where it goes, how much of it runs, and who yields to whom."""

import msgspec
import pytest

from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.backfill import LEAST, Backfill
from spillway.traffic.effects import Dispatch, Effect, Queued, SpillReason, Yielded
from spillway.traffic.events import Arrived, Scraped
from spillway.traffic.fleet import Capacity, Fleet, ModelSpec, PoolSpec, Slo, WaitingRoom

REALTIME, INTERACTIVE, BATCH = Priority
change = msgspec.structs.replace


def own(name: str, limit: int, **fields: object) -> PoolSpec:
    """A pool on a cluster."""
    return change(pool(name, limit), cluster=ClusterName("c"), **fields)


def roomy(*parts: PoolSpec | ModelSpec) -> Fleet:
    return change(fleet(*parts), waiting_room=WaitingRoom(max_requests=1000))


def filled(world: Fleet, count: int) -> Stage:
    stage = Stage(world)
    for number in range(count):
        stage.arrive(f"b{number}", BATCH)
    return stage


def yielded(effects: list[Effect]) -> list[str]:
    return [effect.request for effect in effects if isinstance(effect, Yielded)]


def running(stage: Stage, priority: Priority) -> int:
    return sum(one.place is not None and one.arrived.priority is priority for one in stage.audit.alive.values())


def test_batch_fills_to_its_ceiling_and_waits() -> None:
    stage = filled(roomy(own("east", 10)), 12)
    assert running(stage, BATCH) == 7
    assert not stage.brain.snapshot().models[0].panic
    stage.advance(5.0)
    assert sent_to(stage.end("b0")) == [("b7", "east")]


def test_an_online_request_that_would_wait_takes_the_slot_of_the_batch_that_was_sent_last() -> None:
    stage = filled(roomy(own("east", 10)), 9)
    for name in ("r0", "r1"):  # up to the ceiling of interactive, 9
        assert yielded(stage.arrive(name)) == []
    effects = stage.arrive("r2")
    assert yielded(effects) == ["b6"]
    assert sent_to(effects) == [("r2", "east")]
    assert Queued(RequestId("b6")) in effects
    assert yielded(stage.arrive("r3", REALTIME)) == []  # the tenth slot
    assert yielded(stage.arrive("r4", REALTIME)) == ["b5"]
    assert [name for end in ("r0", "r1", "r2", "r3", "r4") for name, _ in sent_to(stage.end(end))] == ["b6", "b5"]
    (again,) = [e for e in stage.end("b0") if isinstance(e, Dispatch)]
    assert (again.request, again.attempt) == ("b7", 1)


def test_a_burst_has_its_slots_at_once_and_batch_comes_back_after_it() -> None:
    stage = filled(roomy(own("east", 100)), 200)
    assert running(stage, BATCH) == 70
    for number in range(100):
        stage.arrive(f"r{number}", REALTIME)
        assert f"r{number}" in [request for request, one in stage.audit.alive.items() if one.place is not None]
    assert (running(stage, REALTIME), running(stage, BATCH)) == (100, 0)
    assert stage.brain.counters.yielded == 70
    assert stage.audit.refused == 0
    stage.advance(3.0)
    for number in range(100):
        stage.end(f"r{number}")
    assert running(stage, BATCH) >= 35
    stage.advance(3.0)
    for _ in range(3):  # whatever comes next
        stage.advance(1.0)
        stage.end(next(r for r, one in stage.audit.alive.items() if one.place is not None))
    assert running(stage, BATCH) == 70


def test_home_is_kept_for_online_requests_before_they_spill() -> None:
    stage = filled(roomy(own("east", 10), own("west", 10)), 20)
    assert (stage.brain.snapshot().pools[0].in_flight, stage.brain.snapshot().pools[1].in_flight) == (7, 7)
    for number in range(9):
        effects = stage.arrive(f"r{number}")
        assert sent_to(effects)[0] == (f"r{number}", "east")
    assert sent_to(stage.arrive("r9")) == [("r9", "west")]


def test_what_was_displaced_goes_where_there_is_room() -> None:
    stage = filled(roomy(own("east", 10), own("west", 20)), 21)
    before = stage.brain.snapshot().pools
    assert [one.in_flight for one in before] == [7, 14]
    stage.end(
        next(r for r, one in stage.audit.alive.items() if one.place == (PoolName("west"), EndpointUrl("http://west-0")))
    )
    for name in ("r0", "r1"):
        stage.arrive(name)
    effects = stage.arrive("r2")
    assert sent_to(effects)[0] == ("r2", "east")
    assert sent_to(effects)[1][1] == "west"


def test_batch_goes_where_it_is_cheapest_whatever_the_tier_and_never_to_a_provider_that_others_spare() -> None:
    dear, cheap = Price(1.0, 1.0), Price(0.1, 0.1)
    world = roomy(own("east", 10, price=dear), own("west", 2, price=cheap), pool("hosted", 100))
    stage = Stage(world)
    effects = [stage.arrive(f"b{number}", BATCH, tokens=(100, 100)) for number in range(12)]
    places = [where for one in effects for _, where in sent_to(one)]
    assert places == ["west", *["east"] * 7]
    (first,) = [effect for effect in effects[0] if isinstance(effect, Dispatch)]
    assert first.spill is SpillReason.IDLE


def test_a_provider_serves_batch_where_there_is_nothing_else_and_it_does_not_yield_there() -> None:
    stage = filled(roomy(pool("hosted", 10)), 9)
    for number in range(2):
        stage.arrive(f"r{number}")
    effects = stage.arrive("r2")
    assert (yielded(effects), sent_to(effects)) == ([], [])


def test_batch_near_its_deadline_may_go_to_a_provider() -> None:
    stage = filled(roomy(own("east", 1), pool("hosted", 10)), 1)
    due = Arrived(RequestId("due"), ModelName("m"), TenantId("t"), BATCH, deadline_s=100.0)
    assert sent_to(stage.tell(due)) == []
    effects = stage.advance(90.0)
    assert sent_to(effects) == [("due", "hosted")]


def test_who_has_a_part_of_its_answer_does_not_yield() -> None:
    stage = filled(roomy(own("east", 2)), 1)
    stage.begin("b0")
    stage.arrive("r0")
    assert yielded(stage.arrive("r1", REALTIME)) == []
    assert yielded(stage.arrive("r2", REALTIME)) == []


def test_kv_tokens_of_several_make_room_for_one() -> None:
    capacity = Capacity(x_s=1.0, y_s=0.01, kv_tokens=1000)
    stage = Stage(roomy(own("east", 100, capacity=capacity)))
    for number in range(9):
        stage.arrive(f"b{number}", BATCH, tokens=(100, 0))
    assert running(stage, BATCH) == 7  # 0.7 · 0.9 · 1000 tokens and the one that goes over it
    stage.arrive("r0", tokens=(200, 0))
    effects = stage.arrive("r1", tokens=(200, 0))
    assert sent_to(effects)[0] == ("r1", "east")
    assert yielded(effects) == ["b6"]


def test_none_yields_where_it_would_not_be_enough() -> None:
    stage = filled(roomy(own("east", 10)), 1)
    for number in range(9):
        stage.arrive(f"r{number}", REALTIME)
    stage.tell(Scraped(EndpointUrl("http://east-0"), 9.0))  # others fill its engine
    assert yielded(stage.arrive("late", REALTIME)) == []


def test_misses_of_online_requests_take_room_from_batch_and_give_it_back_slowly() -> None:
    world = roomy(own("east", 100), change(model("m", "east"), slo=Slo(ttft_ms=100.0)))
    stage = filled(world, 200)
    for second in range(4):
        stage.arrive(f"r{second}", REALTIME)
        stage.advance(0.5)
        stage.begin(f"r{second}")  # five times its objective
        stage.advance(0.6)
        stage.end(f"r{second}")
    for number in range(50):
        stage.end(f"b{number}")
    low = running(stage, BATCH)
    assert low < 40
    served = [request for request, one in stage.audit.alive.items() if one.place is not None]
    for request in served[:8]:
        stage.advance(1.1)
        stage.end(request)
    assert low <= running(stage, BATCH) <= low + 15


def test_the_budget_follows_what_was_seen() -> None:
    backfill = Backfill()
    backfill.tick(0.0)
    for second in range(1, 30):
        backfill.seen(missed=True)
        backfill.tick(float(second))
    assert backfill.theta == LEAST
    for second in range(30, 80):
        for _ in range(8):
            backfill.arrived()
            backfill.seen(missed=False)
        backfill.tick(float(second))
    assert backfill.theta == 1.0
    assert backfill.rate == pytest.approx(8.0)
    assert backfill.reserve == 3  # 8 · 0.25, and √2 for the spread
    backfill.tick(90.0)
    assert backfill.reserve == 0


def test_an_owed_share_is_not_taken_back() -> None:
    stage = Stage(roomy(own("east", 10)))
    for number in range(9):
        stage.arrive(f"r{number}", tokens=(10, 10))
    stage.arrive("b0", BATCH, tokens=(10, 10))
    for number in range(9, 400):  # interactive never stops
        stage.arrive(f"r{number}", tokens=(10, 10))
        stage.end(f"r{number - 9}")
        stage.advance(0.1)
        if stage.audit.alive.get(RequestId("b0")) is None or stage.audit.alive[RequestId("b0")].place is not None:
            break
    assert stage.brain.counters.owed >= 1
    assert stage.brain.counters.yielded == 0
    assert not yielded(stage.arrive("more"))
    assert not yielded(stage.arrive("urgent", REALTIME))
    stage.end("b0", Outcome.OK)
