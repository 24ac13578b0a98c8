"""Slots of a pool that gateways share: the brain keeps to its slice."""

from spillway.core.ids import PoolName
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, pool
from spillway.traffic.effects import Dispatch
from spillway.traffic.events import LimitSet, Sliced


def test_a_slice_bounds_whatever_the_limit_is_and_more_of_it_lets_those_in_who_wait() -> None:
    stage = Stage(fleet(pool("east", 8)))
    stage.tell(Sliced(PoolName("east"), 2))
    sent = [effect for number in range(5) for effect in stage.arrive(f"r{number}", Priority.REALTIME)]
    assert sum(isinstance(effect, Dispatch) for effect in sent) == 2
    assert sum(isinstance(effect, Dispatch) for effect in stage.tell(Sliced(PoolName("east"), 4))) == 2
    assert stage.brain.snapshot().pools[0].limit == 4
    stage.tell(LimitSet(PoolName("east"), 3))
    assert stage.brain.snapshot().pools[0].limit == 3
    stage.tell(LimitSet(PoolName("east"), None))
    assert sum(isinstance(effect, Dispatch) for effect in stage.tell(Sliced(PoolName("east"), None))) == 1
    assert stage.brain.snapshot().pools[0].limit == 8
    stage.tell(Sliced(PoolName("nowhere"), 1))
