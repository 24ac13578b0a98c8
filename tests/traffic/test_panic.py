"""Panic: when all tiers together can't carry the demand, ceilings are lifted and what is turned away is turned away by priority."""

import msgspec

from spillway.core.ids import ClusterName, EndpointUrl
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.effects import BreakerState, Refuse
from spillway.traffic.events import DrainSet, Probed
from spillway.traffic.fleet import Accounting, Fleet, SpillPolicy, WaitingRoom, default_priorities

REALTIME, INTERACTIVE, BATCH = Priority
change = msgspec.structs.replace


def filled(world: Fleet, until: int = 9) -> Stage:
    """`until` interactive requests run. Everybody may wait for an hour."""
    patience = {name: change(spec, max_wait_s=3600.0) for name, spec in default_priorities().items()}
    stage = Stage(change(world, priorities=patience))
    for number in range(until):
        assert sent_to(stage.arrive(f"r{number}"))
    return stage


def panics(stage: Stage) -> bool:
    return stage.brain.snapshot().models[0].panic


def panicking() -> Stage:
    """Ten slots, all taken, and two that wait, "second" and "third"."""
    stage = filled(fleet(pool("east", 10)))
    stage.arrive("first")
    stage.advance(1.0)
    stage.arrive("second")
    stage.arrive("third")
    assert panics(stage)
    return stage


def test_it_begins_when_no_room_was_found_for_a_second_and_lifts_the_ceilings() -> None:
    stage = filled(fleet(pool("east", 10)))
    stage.arrive("first")
    stage.advance(0.75)
    assert sent_to(stage.arrive("urgent", REALTIME)) == [("urgent", "east")]  # room: the second begins anew
    stage.end("urgent")
    stage.advance(0.5)
    stage.arrive("second")
    stage.advance(0.99)
    assert sent_to(stage.arrive("third")) == []
    assert not panics(stage)
    stage.advance(0.01)
    assert sent_to(stage.arrive("fourth")) == [("first", "east")]  # the tenth slot, above the ceiling of 9
    assert panics(stage)
    assert stage.brain.counters.panics == 1


def test_the_discount_for_old_gauges_is_lifted_too() -> None:
    stage = filled(fleet(change(pool("east", 10), accounting=Accounting.ESTIMATED)), until=8)
    stage.arrive("first", REALTIME)
    stage.advance(1.0)
    assert sent_to(stage.arrive("second", REALTIME)) == [("first", "east"), ("second", "east")]


def test_in_panic_the_more_urgent_are_called_in_first() -> None:
    stage = panicking()
    stage.arrive("batch", BATCH)
    stage.arrive("urgent", REALTIME)
    order = [sent_to(stage.end(f"r{number}")) for number in range(3)]
    assert order == [[(name, "east")] for name in ("urgent", "second", "third")]
    assert [sent_to(stage.end(f"r{number}")) for number in range(3, 7)] == [
        [],
        [],
        [],
        [("batch", "east")],
    ]  # its ceiling stays


def test_in_panic_the_less_urgent_are_turned_away() -> None:
    stage = filled(change(fleet(pool("east", 1)), waiting_room=WaitingRoom(max_requests=2)), until=1)
    stage.arrive("b0", BATCH, tenant="a")
    stage.advance(1.0)
    stage.arrive("b1", BATCH, tenant="b")
    assert not panics(stage)  # batch waits: that is no want of capacity
    turned_away: list[tuple[str, Outcome]] = []
    for name, priority in (("urgent", REALTIME), ("soon", INTERACTIVE), ("late", BATCH), ("later", INTERACTIVE)):
        effects = stage.arrive(name, priority, tenant=name)
        turned_away += [(effect.request, effect.outcome) for effect in effects if isinstance(effect, Refuse)]
    evicted, refused = Outcome.EVICTED, Outcome.REFUSED
    assert turned_away == [("b1", evicted), ("b0", evicted), ("late", refused), ("later", refused)]
    stage.advance(1.0)
    stage.arrive("last", INTERACTIVE)
    assert panics(stage)


def test_it_ends_when_all_found_room_for_five_seconds_and_the_ceilings_are_back() -> None:
    stage = panicking()
    for number in range(4):
        stage.end(f"r{number}")  # of twelve
    for name in ("calm0", "calm1", "over"):  # the last finds no room: the five seconds begin anew
        stage.arrive(name)
        stage.advance(1.5)
    for number in range(4, 9):
        stage.end(f"r{number}")  # of fifteen
    for seconds in (4.99, 0.01):
        assert sent_to(stage.arrive(f"before{seconds}"))
        stage.advance(seconds)
        assert panics(stage)
    stage.advance(0.001)
    assert sent_to(stage.arrive("after"))
    assert not panics(stage)
    assert sent_to(stage.arrive("more")) == []  # nine run: the ceiling


def test_breakers_drains_and_policies_stay_in_force() -> None:
    names = ("east", "drained", "broken")
    pools = [change(pool(name, 10), cluster=ClusterName(name)) for name in names]
    home = change(model("m", *names, "hosted"), policy=SpillPolicy(hosted=False))
    stage = filled(fleet(*pools, pool("hosted", 10), home), until=0)
    stage.tell(DrainSet(EndpointUrl("http://drained-0"), draining=True))
    for _ in range(3):
        stage.tell(Probed(EndpointUrl("http://broken-0"), healthy=False))
    assert stage.brain.snapshot().pools[2].endpoints[0].breaker is BreakerState.OPEN
    sent: list[str] = []
    for number in range(30):
        sent += [where for _, where in sent_to(stage.arrive(f"r{number}"))]
        stage.advance(0.06)  # 1.8 s in all: shorter than the breaker stays open
    assert stage.brain.counters.panics == 1
    assert sent == ["east"] * 10
