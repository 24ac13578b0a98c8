"""Back from the dead: an endpoint that was OPEN carries a tenth of its share, then more. Who finds out whether it is well."""

import msgspec
import pytest

from spillway.core.ids import EndpointUrl, PoolName
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, pool, sent_to
from spillway.traffic.effects import BreakerChanged, BreakerState
from spillway.traffic.events import LimitSet, Probed
from spillway.traffic.fleet import Capacity

REALTIME, INTERACTIVE, BATCH = Priority
OPEN, HALF_OPEN, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED
WEST = pool("west", 100)
STEP = 5  # percent of the ramp: the limit follows in such steps


def probed(stage: Stage, name: str, *, healthy: bool) -> list[BreakerState]:
    effects = stage.tell(Probed(EndpointUrl(f"http://{name}-0"), healthy))
    return [effect.state for effect in effects if isinstance(effect, BreakerChanged)]


def falls(stage: Stage, name: str = "east") -> BreakerState:
    """Three unhealthy probes of the pool's first endpoint; where they lead."""
    return [probed(stage, name, healthy=False) for _ in range(3)][-1][0]


def rises(stage: Stage, name: str = "east", after_s: float = 2.0) -> None:
    stage.advance(after_s)
    assert probed(stage, name, healthy=True) == [CLOSED]


def limit(stage: Stage, place: int = 0) -> int:
    return stage.brain.snapshot().pools[place].limit


@pytest.mark.parametrize(("x_s", "ramp_s"), [(None, 30.0), (2.0, 30.0), (20.0, 100.0)])
def test_it_grows_from_a_tenth_to_all_over_thirty_seconds_or_five_times_x(x_s: float | None, ramp_s: float) -> None:
    record = None if x_s is None else Capacity(x_s, 0.1)
    stage = Stage(fleet(msgspec.structs.replace(pool("east", 100), capacity=record), WEST))
    assert falls(stage) is OPEN
    rises(stage)
    assert limit(stage) == 10
    for part in range(1, 13):
        stage.advance(ramp_s / 13)
        percent = 10 + 90 * part / 13
        assert percent - STEP - 1 <= limit(stage) <= percent
    stage.advance(ramp_s / 13 - 0.01 * ramp_s)
    assert limit(stage) < 100
    stage.advance(0.01 * ramp_s + 0.001)
    assert limit(stage) == 100


def test_in_a_pool_of_two_the_other_one_carries_its_share_meanwhile() -> None:
    stage = Stage(fleet(pool("east", 100, 2)))
    seen = [limit(stage)]
    assert falls(stage) is OPEN
    seen.append(limit(stage))  # nothing
    stage.advance(2.0)
    seen.append(limit(stage))  # on trial: a tenth
    rises(stage, after_s=0.0)
    seen.append(limit(stage))  # the ramp begins
    stage.advance(30.001)
    assert [*seen, limit(stage)] == [100, 50, 55, 55, 100]


def test_who_waits_is_called_in_as_the_limit_grows() -> None:
    stage = Stage(fleet(pool("east", 20), WEST))
    falls(stage)
    rises(stage)
    stage.tell(LimitSet(PoolName("west"), 0))
    running = sum(len(sent_to(stage.arrive(f"r{number}", BATCH))) for number in range(14))
    assert running == 1
    for tenth in range(1, 11):
        running += len(sent_to(stage.advance(3.0 + 0.001 * (tenth == 10))))
        percent = 10 + 9 * tenth
        assert 14 * (percent - STEP) - 200 <= 100 * running <= 14 * percent
    assert running == 14


def test_a_second_fall_begins_the_ramp_anew() -> None:
    stage = Stage(fleet(pool("east", 100), WEST))
    falls(stage)
    rises(stage)
    stage.advance(27.0)
    assert limit(stage) > 85
    assert falls(stage) is OPEN
    rises(stage)
    assert limit(stage) == 10


def test_the_last_of_a_model_carries_all_of_it_at_once_while_the_others_ramp() -> None:
    stage = Stage(fleet(pool("east", 100), WEST))
    assert [falls(stage), falls(stage, "west")] == [OPEN, HALF_OPEN]
    rises(stage)
    rises(stage, "west", after_s=0.0)
    assert (limit(stage, 0), limit(stage, 1)) == (10, 100)


def who_tries(stage: Stage) -> list[str]:
    return [name for name, followed in stage.audit.alive.items() if followed.place == ("east", "http://east-0")]


def test_a_trial_is_taken_from_batch_and_realtime_is_spared() -> None:
    stage = Stage(fleet(pool("east", 4, 2)))
    assert falls(stage) is OPEN
    for name in ("a", "b"):
        stage.arrive(name, REALTIME)
    stage.arrive("batch0", BATCH)
    stage.advance(1.5)
    stage.arrive("urgent0", REALTIME)
    stage.advance(0.5)
    assert [sent_to(stage.end(name)) for name in ("a", "b")] == [[("urgent0", "east")], []]
    assert sent_to(stage.end("urgent0")) == [("batch0", "east")]
    assert who_tries(stage) == ["batch0"]
    stage.end("urgent0")
    stage.arrive("urgent1", REALTIME)
    stage.arrive("batch1", BATCH)
    assert who_tries(stage) == ["batch0"]  # one at a time
