"""Breakers and penalties, as the brain's caller sees them; and the transition table."""

import msgspec
import pytest

from spillway.core.ids import EndpointUrl, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.breaker import NEXT, Breaker, Turn
from spillway.traffic.effects import BreakerChanged, BreakerState, Dispatch, Effect, Queued, Refuse, SpillReason
from spillway.traffic.events import Configured, DrainSet, Fault, Probed
from spillway.traffic.fleet import BreakerRules, Fleet, RetryRules, SpillRules

CLOSED, OPEN, HALF_OPEN = BreakerState
E0 = EndpointUrl("http://east-0")


def once(world: Fleet, attempts: int = 1) -> Fleet:
    """Nothing is retried, so that every failure is one request's end; what comes back carries all of its share at once."""
    return msgspec.structs.replace(
        world, retries=RetryRules(attempts=attempts, budget_floor=1000), spill=SpillRules(ramp_s=0.0)
    )


def states(effects: list[Effect]) -> list[BreakerState]:
    return [effect.state for effect in effects if isinstance(effect, BreakerChanged)]


def refusals(effects: list[Effect]) -> list[tuple[str, Outcome]]:
    return [(effect.request, effect.outcome) for effect in effects if isinstance(effect, Refuse)]


def open_east(stage: Stage) -> list[Effect]:
    """Three faults in a row at the first endpoint of `east`, which must be the only one that admits."""
    effects: list[Effect] = []
    for number in range(3):
        assert sent_to(stage.arrive(f"sick{number}")) == [(f"sick{number}", "east")]
        effects += stage.fail(f"sick{number}")
    return effects


def test_the_table_names_every_way_and_no_other() -> None:
    assert {(state, after) for (state, _), after in NEXT.items()} == {
        (CLOSED, OPEN), (CLOSED, HALF_OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, CLOSED), (HALF_OPEN, OPEN), (HALF_OPEN, HALF_OPEN),
    }  # fmt: skip
    assert len({turn for _, turn in NEXT}) == len(Turn)


def test_faults_in_a_row_trip_and_a_success_between_them_does_not() -> None:
    breaker = Breaker(BreakerRules(failures=3, min_samples=100))
    assert [breaker.trips_on_fault(0.0) for _ in range(2)] == [False, False]
    breaker.passed()
    assert [breaker.trips_on_fault(0.0) for _ in range(3)] == [False, False, True]


def test_a_share_of_faults_within_the_window_trips() -> None:
    def tripped(gap_s: float) -> bool:
        breaker = Breaker(BreakerRules(failures=100, failure_share=0.5, min_samples=10, window_s=10.0))
        for number in range(6):
            if breaker.trips_on_fault(number * gap_s):
                return True
            breaker.passed()
        return False

    assert tripped(1.0)  # 6 faults and 5 successes within 5 s
    assert not tripped(3.0)  # never 10 of them within 10 s


def test_an_open_breaker_sends_elsewhere_and_says_so() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    assert states(open_east(stage)) == [OPEN]
    sent = stage.arrive("next")[0]
    assert isinstance(sent, Dispatch)
    assert (sent.pool, sent.spill) == ("west", SpillReason.UNHEALTHY)


def test_a_cut_is_a_fault_and_a_client_that_left_is_nothing() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    endings = (Outcome.CUT, Outcome.CLIENT_LEFT, Outcome.CUT, Outcome.INTERNAL, Outcome.CUT)
    seen = []
    for number, outcome in enumerate(endings):
        stage.arrive(f"r{number}")
        seen += states(stage.end(f"r{number}", outcome))
    assert seen == [OPEN]


def test_an_answer_that_blames_the_request_clears_the_endpoint() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    seen = []
    for number, outcome in enumerate((Outcome.CUT, Outcome.CUT, Outcome.CONTEXT_LENGTH_EXCEEDED, Outcome.CUT)):
        stage.arrive(f"r{number}")
        seen += states(stage.end(f"r{number}", outcome))
    assert seen == []


def test_after_open_s_one_trial_finds_out_and_its_first_token_closes() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    open_east(stage)
    assert states(stage.advance(1.9)) == []
    assert states(stage.advance(0.2)) == [HALF_OPEN]
    assert sent_to(stage.arrive("trial")) == [("trial", "east")]
    assert sent_to(stage.arrive("other")) == [("other", "west")]
    assert states(stage.begin("trial")) == [CLOSED]
    assert sent_to(stage.arrive("third")) == [("third", "east")]


def test_realtime_is_spared_the_trial_while_another_may_take_it() -> None:
    stage = Stage(once(fleet(pool("east", 10, 2), pool("west", 10))))
    for number in range(40):
        if not states(stage.arrive(f"r{number}")) and stage.audit.alive[RequestId(f"r{number}")].place == ("east", E0):
            stage.fail(f"r{number}")
        else:
            stage.end(f"r{number}")
    assert stage.brain.snapshot().pools[0].endpoints[0].breaker is OPEN
    stage.advance(2.0)
    for number in range(2):
        stage.arrive(f"urgent{number}", Priority.REALTIME)
    assert stage.brain.snapshot().pools[0].endpoints[0].in_flight == 0
    stage.arrive("trial", Priority.BATCH)
    assert stage.brain.snapshot().pools[0].endpoints[0].in_flight == 1
    stage.end("trial", Outcome.CLIENT_LEFT)
    stage.advance(2.0)  # nobody else came: realtime takes it rather than leave it out for ever
    stage.arrive("late", Priority.REALTIME)
    assert stage.brain.snapshot().pools[0].endpoints[0].in_flight == 1


def test_a_failed_trial_doubles_the_time_up_to_its_bound() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    open_east(stage)
    seen: list[float] = []
    for number in range(6):
        before = stage.now
        while stage.brain.snapshot().pools[0].endpoints[0].breaker is OPEN:
            stage.advance(0.5)
        seen.append(stage.now - before)
        assert sent_to(stage.arrive(f"trial{number}")) == [(f"trial{number}", "east")]
        assert states(stage.fail(f"trial{number}")) == [OPEN]
    assert seen == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_what_was_sent_before_it_opened_changes_nothing() -> None:
    stage = Stage(once(fleet(pool("east", 20), pool("west", 10))))
    for number in range(18):
        stage.arrive(f"r{number}")
    assert [state for number in range(9) for state in states(stage.fail(f"r{number}", Fault.RESET))] == [OPEN]
    assert states(stage.advance(2.0)) == [HALF_OPEN]  # not longer for the other six
    assert [state for number in range(9, 14) for state in states(stage.fail(f"r{number}", Fault.RESET))] == []
    assert [state for number in range(14, 18) for state in states(stage.end(f"r{number}"))] == []


def test_a_trial_that_ends_without_a_verdict_makes_way_for_another() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    open_east(stage)
    stage.advance(2.0)
    stage.arrive("left")
    assert states(stage.end("left", Outcome.CLIENT_LEFT)) == []
    assert sent_to(stage.arrive("again")) == [("again", "east")]


def test_probes() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    assert [state for _ in range(3) for state in states(stage.tell(Probed(E0, healthy=False)))] == [OPEN]
    assert states(stage.tell(Probed(E0, healthy=True))) == []  # its time is not over
    assert states(stage.tell(Probed(E0, healthy=False))) == []
    stage.now += 2.0
    assert states(stage.tell(Probed(E0, healthy=True))) == [HALF_OPEN, CLOSED]
    assert stage.tell(Probed(EndpointUrl("http://nowhere"), healthy=True)) == []
    assert stage.brain.counters.anomalies == 1


def test_a_well_health_page_does_not_hide_sick_answers() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    for number in range(2):
        stage.arrive(f"r{number}")
        stage.fail(f"r{number}")
    stage.tell(Probed(E0, healthy=True))
    stage.arrive("r2")
    assert states(stage.fail("r2")) == [OPEN]
    stage.advance(2.0)
    assert states(stage.tell(Probed(E0, healthy=True))) == [CLOSED]
    for number in range(3):
        stage.arrive(f"again{number}")
        stage.fail(f"again{number}")
    stage.advance(2.0)
    assert states(stage.tell(Probed(E0, healthy=True))) == [CLOSED]


def test_the_last_usable_endpoint_is_tried_one_at_a_time_with_gaps() -> None:
    stage = Stage(once(fleet(pool("east", 10))))
    for number in range(9):
        stage.arrive(f"r{number}")
    assert states(stage.fail("r0") + stage.fail("r1") + stage.fail("r2")) == [HALF_OPEN]
    for number in range(20):
        assert isinstance(stage.arrive(f"w{number}", tenant=f"t{number}")[0], Queued)
    for number in range(5):
        effects = stage.advance(0.25)
        assert sent_to(effects) == [(f"w{number}", "east")]
        failed = stage.fail(f"w{number}")
        assert refusals(failed) == [(f"w{number}", Outcome.UPSTREAM_ERROR)]
        assert sent_to(failed) == []  # the others wait for the next trial instead of failing too
    assert sent_to(stage.advance(0.25)) == [("w5", "east")]
    back = stage.begin("w5")
    assert states(back) == [CLOSED]
    assert len(sent_to(back)) == 2  # 6 streams from before and w5 hold 7 of 9 slots
    stage.audit.check(stage.brain.snapshot(), stage.now)


def test_the_last_of_one_model_does_not_open_though_another_model_has_more() -> None:
    world = once(fleet(pool("east", 10), pool("west", 10), model("m", "east"), model("n", "west", "east")))
    assert states(open_east(Stage(world))) == [HALF_OPEN]


def test_a_pool_without_slots_is_no_way_out() -> None:
    assert states(open_east(Stage(once(fleet(pool("east", 10), pool("west", 0)))))) == [HALF_OPEN]


def test_once_another_endpoint_is_usable_a_failed_trial_opens() -> None:
    stage = Stage(once(fleet(pool("east", 10), pool("west", 10))))
    stage.tell(DrainSet(EndpointUrl("http://west-0"), draining=True))
    assert states(open_east(stage)) == [HALF_OPEN]
    stage.tell(DrainSet(EndpointUrl("http://west-0"), draining=False))
    stage.advance(0.25)
    stage.arrive("trial")
    assert states(stage.fail("trial")) == [OPEN]


def all_open(open_s: float) -> Stage:
    """East OPEN, west drained: nothing can be used until east's time is over."""
    world = once(fleet(pool("east", 10), pool("west", 10)))
    stage = Stage(msgspec.structs.replace(world, breaker=BreakerRules(open_s=open_s)))
    open_east(stage)
    stage.tell(DrainSet(EndpointUrl("http://west-0"), draining=True))
    return stage


def test_while_nothing_may_be_used_only_those_wait_who_can_wait_for_the_next_trial() -> None:
    stage = all_open(open_s=5.0)
    assert stage.arrive("urgent", Priority.REALTIME) == [Refuse(RequestId("urgent"), Outcome.UNAVAILABLE, 5.0)]
    assert isinstance(stage.arrive("patient")[0], Queued)
    assert sent_to(stage.advance(5.0)) == [("patient", "east")]


def test_a_drained_endpoint_that_was_open_finds_its_way_back() -> None:
    stage = all_open(open_s=2.0)
    stage.tell(DrainSet(E0, draining=True))
    stage.advance(10.0)
    assert refusals(stage.arrive("a")) == [("a", Outcome.UNAVAILABLE)]
    stage.tell(DrainSet(E0, draining=False))
    assert sent_to(stage.arrive("b")) == [("b", "east")]


def test_an_endpoint_that_is_drained_may_open_for_it_is_nobodys_last() -> None:
    stage = Stage(once(fleet(pool("east", 10))))
    for number in range(3):
        stage.arrive(f"r{number}")
    stage.tell(DrainSet(E0, draining=True))
    assert [state for number in range(3) for state in states(stage.fail(f"r{number}"))] == [OPEN]


def test_of_an_endpoint_that_left_the_configuration_nothing_is_learned() -> None:
    both, rest = once(fleet(pool("east", 10), pool("west", 10))), once(fleet(pool("west", 10)))
    stage = Stage(both)
    for number in range(5):
        stage.arrive(f"r{number}")
    stage.tell(Configured(rest))
    assert [state for number in range(4) for state in states(stage.fail(f"r{number}"))] == []
    stage.tell(Configured(both))
    assert sent_to(stage.arrive("a")) == [("a", "east")]


def test_load_is_no_fault_but_moves_traffic_on_for_as_long_as_was_asked() -> None:
    stage = Stage(fleet(pool("east", 10), pool("west", 10)))
    for number in range(5):
        stage.arrive(f"r{number}")
    effects = stage.fail("r0", Fault.OVERLOADED, retry_after_s=3.0)
    assert sent_to(effects) == [("r0", "west")]
    assert [state for number in range(1, 5) for state in states(stage.fail(f"r{number}", Fault.OVERLOADED, 3.0))] == []
    sent = stage.arrive("next")[0]
    assert isinstance(sent, Dispatch)
    assert (sent.pool, sent.spill) == ("west", SpillReason.SATURATED)
    stage.advance(2.9)
    assert sent_to(stage.arrive("still")) == [("still", "west")]
    stage.advance(0.2)
    assert sent_to(stage.arrive("back")) == [("back", "east")]


@pytest.mark.parametrize(("asked_s", "penalty_s"), [(None, 1.0), (0.0, 0.1), (1000.0, 30.0), (2.5, 2.5)])
def test_a_penalty_is_bounded(asked_s: float | None, penalty_s: float) -> None:
    stage = Stage(once(fleet(pool("east", 10)), attempts=2))
    stage.arrive("a", Priority.BATCH)
    assert isinstance(stage.fail("a", Fault.OVERLOADED, asked_s)[0], Queued)
    assert sent_to(stage.advance(penalty_s * 0.99)) == []
    assert sent_to(stage.advance(penalty_s * 0.02)) == [("a", "east")]


def test_a_shorter_penalty_does_not_cut_a_longer_one() -> None:
    stage = Stage(fleet(pool("east", 10), pool("west", 10)))
    stage.arrive("a")
    stage.arrive("b")
    stage.fail("a", Fault.OVERLOADED, retry_after_s=5.0)
    stage.fail("b", Fault.OVERLOADED, retry_after_s=0.5)
    stage.advance(1.0)
    assert sent_to(stage.arrive("c")) == [("c", "west")]


def test_only_the_endpoint_that_is_full_is_left_alone() -> None:
    stage = Stage(fleet(pool("east", 20, 2)))
    first = stage.arrive("a")[0]
    assert isinstance(first, Dispatch)
    again = stage.fail("a", Fault.OVERLOADED)[0:]
    for number in range(5):
        stage.arrive(f"r{number}")
    held = {endpoint.url: endpoint.in_flight for endpoint in stage.brain.snapshot().pools[0].endpoints}
    assert held.pop(first.endpoint) == 0
    assert list(held.values()) == [6]
    assert sent_to(again) == [("a", "east")]


def test_who_cannot_wait_out_a_penalty_is_refused_with_the_time_to_come_back() -> None:
    stage = Stage(once(fleet(pool("east", 10))))
    stage.arrive("a")
    refused = stage.fail("a", Fault.OVERLOADED, retry_after_s=7.0)
    assert Refuse(RequestId("a"), Outcome.REFUSED, 7.0) in refused
    assert Refuse(RequestId("b"), Outcome.REFUSED, 7.0) in stage.arrive("b", Priority.REALTIME)
    assert isinstance(stage.arrive("c", Priority.INTERACTIVE)[0], Queued)


def test_one_server_in_two_pools_has_a_breaker_in_each_and_one_drain_for_both() -> None:
    shared = msgspec.structs.replace(pool("west", 10), endpoints=(E0,))
    stage = Stage(once(fleet(pool("east", 10), shared, model("m", "east", "west"), model("n", "west"))))
    assert states(open_east(stage)) == [OPEN]
    assert sent_to(stage.arrive("a")) == [("a", "west")]
    stage.tell(DrainSet(E0, draining=True))
    assert refusals(stage.arrive("b", model="n")) == [("b", Outcome.UNAVAILABLE)]
