"""A new configuration while requests run and wait."""

import msgspec
import pytest

from spillway.core.errors import ConfigError
from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.controller import Controller
from spillway.traffic.effects import BreakerState, Queued, Refuse
from spillway.traffic.events import Arrived, Configured, DrainSet, LimitSet
from spillway.traffic.fleet import WaitingRoom


def held(stage: Stage) -> dict[str, int]:
    return {pool.name: pool.in_flight for pool in stage.brain.snapshot().pools}


def test_a_removed_pool_is_accounted_for_until_it_is_empty() -> None:
    stage = Stage(fleet(pool("east", 10), pool("west", 10)))
    stage.arrive("a")
    stage.arrive("b")
    stage.tell(Configured(fleet(pool("west", 10))))
    assert held(stage) == {"east": 2, "west": 0}
    assert stage.brain.snapshot().pools[0].limit == 0
    assert sent_to(stage.arrive("c")) == [("c", "west")]
    stage.end("a")
    stage.end("b")
    assert held(stage) == {"west": 1}


def test_a_pool_that_comes_back_comes_back_with_what_runs_there() -> None:
    both = fleet(pool("east", 2), pool("west", 10))
    stage = Stage(both)
    stage.arrive("a", Priority.REALTIME)
    stage.arrive("b", Priority.REALTIME)
    stage.tell(Configured(fleet(pool("west", 10))))
    stage.end("a")
    stage.tell(Configured(both))
    assert held(stage) == {"east": 1, "west": 0}
    assert sent_to(stage.arrive("c", Priority.REALTIME)) == [("c", "east")]
    assert sent_to(stage.arrive("d", Priority.REALTIME)) == [("d", "west")]


def test_a_removed_endpoint_gets_nothing_and_keeps_its_count() -> None:
    two = pool("east", 10, 2)
    stage = Stage(fleet(two))
    for number in range(6):
        stage.arrive(f"r{number}")
    one = msgspec.structs.replace(two, endpoints=two.endpoints[:1])
    stage.tell(Configured(fleet(one)))
    for number in range(6, 9):
        stage.arrive(f"r{number}")
    endpoints = {view.url: view.in_flight for view in stage.brain.snapshot().pools[0].endpoints}
    assert endpoints == {"http://east-0": 6, "http://east-1": 3}
    assert held(stage) == {"east": 9}
    for number in range(9):
        stage.end(f"r{number}")
    assert [view.url for view in stage.brain.snapshot().pools[0].endpoints] == ["http://east-0"]


def test_more_room_goes_to_those_who_wait_in_the_order_of_tiers() -> None:
    stage = Stage(fleet(pool("east", 1), pool("west", 1)))
    for number in range(6):
        stage.arrive(f"r{number}")
    effects = stage.tell(Configured(fleet(pool("east", 3), pool("west", 3))))
    assert sent_to(effects) == [("r2", "east"), ("r3", "west")]


def test_a_shrunken_limit_stops_nothing_that_runs() -> None:
    stage = Stage(fleet(pool("east", 10)))
    for number in range(9):
        stage.arrive(f"r{number}")
    assert stage.tell(Configured(fleet(pool("east", 2)))) == []
    assert held(stage) == {"east": 9}
    assert isinstance(stage.arrive("w")[0], Queued)


def test_who_waits_for_a_model_that_is_gone_is_refused() -> None:
    both = fleet(pool("east", 1), model("m", "east"), model("n", "east"))
    stage = Stage(both)
    stage.arrive("running", model="m")
    stage.arrive("a", model="m")
    stage.arrive("b", model="n")
    effects = stage.tell(Configured(fleet(pool("east", 1), model("n", "east"))))
    assert effects == [Refuse(RequestId("a"), Outcome.UNAVAILABLE, None)]
    assert sent_to(stage.end("running")) == [("b", "east")]


def test_who_waits_keeps_waiting_when_its_tiers_move() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.arrive("running")
    stage.arrive("a")
    effects = stage.tell(Configured(fleet(pool("east", 1), pool("west", 1), model("m", "west"))))
    assert sent_to(effects) == [("a", "west")]


def test_a_smaller_waiting_room_sends_nobody_away() -> None:
    stage = Stage(fleet(pool("east", 1)))
    for number in range(5):
        stage.arrive(f"r{number}")
    world = msgspec.structs.replace(fleet(pool("east", 1)), waiting_room=WaitingRoom(max_requests=1))
    assert stage.tell(Configured(world)) == []
    assert isinstance(stage.arrive("late", tenant="z")[0], Refuse)
    assert sent_to(stage.end("r0")) == [("r1", "east")]


def test_overrides_drains_and_breakers_outlive_a_reload() -> None:
    world = fleet(pool("east", 10, 2), pool("west", 10))
    stage = Stage(world)
    stage.tell(LimitSet(PoolName("west"), 4))
    stage.tell(DrainSet(EndpointUrl("http://east-1"), draining=True))
    for number in range(3):
        stage.arrive(f"r{number}")
        stage.end(f"r{number}", Outcome.CUT)
    stage.tell(Configured(world))
    east, west = stage.brain.snapshot().pools
    assert west.limit == 4
    assert [view.draining for view in east.endpoints] == [False, True]
    assert east.endpoints[0].breaker is BreakerState.OPEN


def test_a_drain_follows_an_endpoint_to_another_pool() -> None:
    east, west = pool("east", 10), pool("west", 10)
    stage = Stage(fleet(east, west))
    stage.tell(DrainSet(east.endpoints[0], draining=True))
    moved = msgspec.structs.replace(west, endpoints=east.endpoints)
    other = msgspec.structs.replace(east, endpoints=west.endpoints)
    stage.tell(Configured(fleet(other, moved)))
    assert [pool.endpoints[0].draining for pool in stage.brain.snapshot().pools] == [False, True]


def test_a_fleet_with_problems_changes_nothing() -> None:
    stage = Stage(fleet(pool("east", 10)))
    with pytest.raises(ConfigError, match="no endpoints"):
        stage.brain.handle(Configured(fleet(pool("east", 10, 0))), 1.0)
    assert sent_to(stage.arrive("a")) == [("a", "east")]


def test_before_any_configuration_everything_is_unavailable() -> None:
    arrived = Arrived(RequestId("a"), ModelName("m"), TenantId("t"), Priority.REALTIME)
    assert Controller().handle(arrived, 0.0) == [Refuse(RequestId("a"), Outcome.UNAVAILABLE, None)]
