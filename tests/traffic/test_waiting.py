"""Waiting at the gateway: bounds, turns of tenants, strict priority with minimum shares, deadlines, predictions."""

from collections import Counter

import msgspec
import pytest

from spillway.core.ids import EndpointUrl, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.effects import Effect, Queued, Refuse, WakeAt
from spillway.traffic.events import DrainSet
from spillway.traffic.fleet import Fleet, PrioritySpec, WaitingRoom, default_priorities

REALTIME, INTERACTIVE, BATCH = Priority


def room(world: Fleet, max_requests: int = 256, max_bytes: int = 1 << 20) -> Fleet:
    return msgspec.structs.replace(world, waiting_room=WaitingRoom(max_requests, max_bytes))


def patient(world: Fleet) -> Fleet:
    """Everybody may wait for an hour."""
    patience = {name: msgspec.structs.replace(spec, max_wait_s=3600.0) for name, spec in default_priorities().items()}
    return msgspec.structs.replace(world, priorities=patience)


def refusal(effects: list[Effect]) -> Refuse:
    found = [effect for effect in effects if isinstance(effect, Refuse)]
    assert len(found) == 1
    return found[0]


def served(stage: Stage, running: list[str], count: int) -> list[str]:
    """Ends what runs, oldest first, `count` times; the requests sent meanwhile, in order."""
    order: list[str] = []
    for _ in range(count):
        sent = [request for request, _ in sent_to(stage.end(running.pop(0)))]
        order += sent
        running += sent
    return order


def test_a_freed_slot_goes_to_who_waits_longest() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("a")
    assert stage.arrive("b") == [Queued(RequestId("b")), WakeAt(20.0)]
    assert stage.arrive("c") == [Queued(RequestId("c"))]
    assert served(stage, ["a"], 2) == ["b", "c"]


def test_a_newcomer_overtakes_nobody_of_its_own_or_a_higher_priority() -> None:
    stage = Stage(patient(fleet(pool("east", 10))))
    for number in range(9):
        stage.arrive(f"r{number}")
    stage.arrive("first", INTERACTIVE)
    assert isinstance(stage.arrive("second", INTERACTIVE)[0], Queued)
    assert isinstance(stage.arrive("third", BATCH)[0], Queued)
    assert sent_to(stage.arrive("urgent", REALTIME)) == [("urgent", "east")]


def test_tenants_take_turns_so_a_flood_delays_nobody_else() -> None:
    stage = Stage(patient(fleet(pool("east", 1))))
    stage.arrive("running")
    for number in range(50):
        stage.arrive(f"flood{number}", tenant="flood")
    stage.arrive("a0", tenant="a")
    stage.arrive("a1", tenant="a")
    stage.arrive("b0", tenant="b")
    assert served(stage, ["running"], 6) == ["flood0", "a0", "b0", "flood1", "a1", "flood2"]


def test_a_flood_leaves_room_for_tenants_that_have_nothing_waiting() -> None:
    stage = Stage(room(fleet(pool("east", 1)), max_requests=100))
    stage.arrive("running")
    outcomes = [type(stage.arrive(f"flood{number}", tenant="flood")[0]) for number in range(200)]
    assert outcomes.count(Queued) == 80  # 4/5 of the room
    for number in range(5):
        assert isinstance(stage.arrive(f"other{number}", tenant=f"t{number}")[0], Queued)


def test_the_room_is_bounded_by_requests() -> None:
    stage = Stage(room(fleet(pool("east", 1)), max_requests=3))
    stage.arrive("running")
    for number in range(3):
        assert isinstance(stage.arrive(f"w{number}", tenant=f"t{number}")[0], Queued)
    refused = refusal(stage.arrive("over", tenant="z"))
    assert (refused.outcome, refused.retry_after_s) == (Outcome.REFUSED, 1.0)


def test_in_a_full_room_the_urgent_take_the_place_of_the_youngest_who_is_less_urgent() -> None:
    stage = Stage(room(fleet(pool("east", 1)), max_requests=3))
    stage.arrive("running")
    for number in range(3):
        stage.arrive(f"w{number}", tenant=f"t{number}")
    effects = stage.arrive("urgent", REALTIME, tenant="y")
    assert (refusal(effects).request, refusal(effects).outcome) == ("w2", Outcome.EVICTED)
    assert Queued(RequestId("urgent")) in effects
    for number in range(2):
        stage.arrive(f"urgent{number}", REALTIME, tenant=f"y{number}")
    last = refusal(stage.arrive("urgent3", REALTIME, tenant="y3"))
    assert (last.request, last.outcome) == ("urgent3", Outcome.REFUSED)


def test_the_room_is_bounded_by_bytes() -> None:
    stage = Stage(room(fleet(pool("east", 1)), max_bytes=1000))
    stage.arrive("running", body_bytes=5000)
    assert isinstance(stage.arrive("a", body_bytes=600, tenant="a")[0], Queued)
    assert refusal(stage.arrive("b", body_bytes=500, tenant="b")).outcome is Outcome.REFUSED
    assert isinstance(stage.arrive("c", body_bytes=400, tenant="c")[0], Queued)
    stage.end("a", Outcome.CLIENT_LEFT)
    assert isinstance(stage.arrive("d", body_bytes=600, tenant="d")[0], Queued)


def test_each_model_has_a_room_of_its_own() -> None:
    stage = Stage(room(fleet(pool("east", 1), model("m", "east"), model("n", "east")), max_requests=1))
    stage.arrive("running")
    assert isinstance(stage.arrive("a", model="m")[0], Queued)
    assert isinstance(stage.arrive("b", model="n")[0], Queued)
    assert refusal(stage.arrive("c", model="m")).outcome is Outcome.REFUSED


def test_models_that_share_a_pool_take_turns() -> None:
    stage = Stage(patient(fleet(pool("east", 1), model("m", "east"), model("n", "east"))))
    stage.arrive("running")
    for number in range(3):
        stage.arrive(f"m{number}", model="m")
    for number in range(3):
        stage.arrive(f"n{number}", model="n")
    assert served(stage, ["running"], 6) == ["m0", "n0", "m1", "n1", "m2", "n2"]


def test_who_waits_too_long_is_evicted_on_time() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("running")
    assert stage.arrive("urgent", REALTIME)[-1] == WakeAt(1.0)
    stage.arrive("patient", INTERACTIVE)
    assert [effect for effect in stage.advance(0.99) if isinstance(effect, Refuse)] == []
    assert refusal(stage.advance(0.02)) == Refuse(RequestId("urgent"), Outcome.EVICTED, 1.0)
    assert sent_to(stage.end("running")) == [("patient", "east")]
    assert stage.brain.counters.evicted == 1
    assert not [effect for effect in stage.advance(100.0) if isinstance(effect, Refuse)]


def test_what_falls_due_is_done_before_any_event_even_without_a_wake() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("running")
    stage.arrive("urgent", REALTIME)
    stage.now = 5.0
    assert refusal(stage.end("running")).request == "urgent"


def test_who_leaves_the_room_is_forgotten_at_once() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("running")
    for number in range(3):
        stage.arrive(f"w{number}")
    assert stage.end("w0", Outcome.CLIENT_LEFT) == []
    assert stage.end("w0", Outcome.CLIENT_LEFT) == []
    assert stage.brain.counters.anomalies == 1
    assert served(stage, ["running"], 2) == ["w1", "w2"]


def busy(stage: Stage, seconds: float, count: int = 20) -> None:
    """`count` requests that each stayed `seconds`, one after the other."""
    for number in range(count):
        stage.arrive(f"earlier{number}")
        stage.advance(seconds)
        stage.end(f"earlier{number}")


def test_a_wait_that_is_predicted_to_be_too_long_is_refused_at_once() -> None:
    stage = Stage(fleet(pool("east", 4)))
    busy(stage, 6.0)
    for number in range(3):
        stage.arrive(f"running{number}")  # 3 slots of 6 s: one comes free every 2 s
    waiting = [type(stage.arrive(f"w{number}")[0]) for number in range(12)]
    assert waiting.count(Queued) == 10  # the k-th waits (k − ½) · 2 s ≤ 20 s
    refused = refusal(stage.arrive("more"))
    assert refused.outcome is Outcome.REFUSED
    assert refused.retry_after_s == pytest.approx(10.5 * 2.0)


def test_the_prediction_counts_turns_so_a_tenant_without_a_line_may_still_wait() -> None:
    stage = Stage(fleet(pool("east", 4)))
    busy(stage, 6.0)
    for number in range(3):
        stage.arrive(f"running{number}")
    while isinstance(stage.arrive(f"flood{stage.audit.arrived}", tenant="flood")[0], Queued):
        pass
    assert isinstance(stage.arrive("other", tenant="other")[0], Queued)


def test_nothing_is_predicted_before_enough_was_seen() -> None:
    stage = Stage(fleet(pool("east", 2)))
    busy(stage, 100.0, count=7)
    stage.arrive("running")
    assert isinstance(stage.arrive("w")[0], Queued)


def test_a_priority_that_may_not_wait_is_refused_at_once() -> None:
    world = fleet(pool("east", 1))
    impatient = {**world.priorities, BATCH: PrioritySpec(0.7, 0.0)}
    stage = Stage(msgspec.structs.replace(world, priorities=impatient))
    stage.arrive("running")
    assert refusal(stage.arrive("b", BATCH)).outcome is Outcome.REFUSED


def test_without_any_usable_endpoint_a_request_is_unavailable() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.tell(DrainSet(EndpointUrl("http://east-0"), draining=True))
    assert stage.arrive("a") == [Refuse(RequestId("a"), Outcome.UNAVAILABLE, None)]


def test_who_waits_is_sent_when_an_endpoint_comes_back() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("running")
    stage.arrive("w")
    stage.tell(DrainSet(EndpointUrl("http://east-0"), draining=True))
    assert sent_to(stage.end("running")) == []
    assert sent_to(stage.tell(DrainSet(EndpointUrl("http://east-0"), draining=False))) == [("w", "east")]


def steady(priorities: tuple[Priority, ...], rounds: int, limit: int) -> Counter[Priority]:
    """A pool that is always full, with every one of the priorities always waiting: how often each is sent."""
    stage = Stage(patient(fleet(pool("east", limit))))
    running = [f"start{number}" for number in range(limit)]
    for name in running:
        stage.arrive(name, REALTIME)
    counts, number = Counter[Priority](), 0
    of: dict[str, Priority] = {}
    for priority in priorities * 2:
        number += 1
        of[f"w{number}"] = priority
        stage.arrive(f"w{number}", priority)
    for _ in range(rounds):
        sent = [request for request, _ in sent_to(stage.end(running.pop(0)))]
        running += sent
        for request in sent:
            priority = of.pop(request)
            counts[priority] += 1
            number += 1
            of[f"w{number}"] = priority
            stage.arrive(f"w{number}", priority)
    return counts


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_minimum_shares_hold_for_the_less_urgent_and_cost_no_more_than_that(limit: int) -> None:
    counts = steady((REALTIME, INTERACTIVE, BATCH), 2000, limit)
    assert counts.total() == 2000
    assert 0.10 <= (counts[INTERACTIVE] + 1) / 2000 <= 0.105
    assert 0.02 <= (counts[BATCH] + 1) / 2000 <= 0.022


def test_batch_keeps_its_share_beside_interactive() -> None:
    counts = steady((INTERACTIVE, BATCH), 1000, 10)
    assert 0.02 <= (counts[BATCH] + 1) / counts.total() <= 0.025


def test_arrivals_that_never_wait_count_against_the_share_of_those_who_do() -> None:
    stage = Stage(patient(fleet(pool("east", 10))))
    running = [f"start{number}" for number in range(9)]
    for name in running:
        stage.arrive(name, REALTIME)
    for number in range(20):
        stage.arrive(f"w{number}", INTERACTIVE)
    sent = 0
    for number in range(100):
        assert sent_to(stage.arrive(f"u{number}", REALTIME))
        running.append(f"u{number}")
        freed = [request for request, _ in sent_to(stage.end(running.pop(0)))]
        sent += len(freed)
        running += freed
        if freed:
            stage.end(running.pop(0))
    assert 9 <= sent <= 11
    assert stage.brain.counters.owed == sent


def test_what_a_priority_was_owed_is_forgotten_when_nobody_waits() -> None:
    stage = Stage(patient(fleet(pool("east", 100))))
    for number in range(90):
        stage.arrive(f"start{number}", REALTIME)
    stage.arrive("left", INTERACTIVE)
    for number in range(10):
        stage.arrive(f"u{number}", REALTIME)  # a tenth of 10 is owed, and no slot came free to pay it
    stage.end("left", Outcome.CLIENT_LEFT)
    stage.arrive("next", INTERACTIVE)
    assert sent_to(stage.end("start0")) == []
    for number in range(10):
        stage.arrive(f"v{number}", REALTIME)
        stage.end(f"start{number + 1}")
    assert stage.brain.counters.owed == 1
