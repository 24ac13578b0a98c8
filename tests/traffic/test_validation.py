"""Every mistake in a fleet is named, and a sound fleet has none."""

import msgspec
import pytest

from spillway.core.ids import EndpointUrl, ModelName, PoolName
from spillway.core.priority import Priority
from spillway.testing.stage import fleet, model, pool
from spillway.traffic.fleet import (
    BreakerRules,
    Capacity,
    Fleet,
    PrioritySpec,
    RetryRules,
    Slo,
    WaitingRoom,
    default_priorities,
)
from spillway.traffic.validation import problems

EAST = pool("east", 4)
change = msgspec.structs.replace


def of_pool(**changes: object) -> Fleet:
    return fleet(change(EAST, **changes), model("m", "east"))


def of_fleet(**changes: object) -> Fleet:
    return change(fleet(EAST), **changes)


def of_realtime(ceiling: float = 1.0, max_wait_s: float = 1.0) -> Fleet:
    return of_fleet(priorities={**default_priorities(), Priority.REALTIME: PrioritySpec(ceiling, max_wait_s)})


def test_sound_fleets_have_no_problems() -> None:
    assert problems(fleet(EAST, pool("west", 0, 3), model("m", "east west"), model("n", "west", "east"))) == []
    assert problems(Fleet(pools={}, models={})) == []
    assert problems(of_pool(capacity=Capacity(0.9, 0.02, 65536, 64))) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (of_pool(endpoints=()), "has no endpoints"),
        (of_pool(endpoints=(EndpointUrl("http://a"), EndpointUrl("http://a"))), "more than once"),
        (of_pool(limit=-1), "limit -1 is negative"),
        (of_pool(rtt_s=-1.0), "rtt_s"),
        (of_pool(capacity=Capacity(-1.0, 0.0)), "x_s"),
        (of_pool(capacity=Capacity(0.0, float("nan"))), "y_s"),
        (of_pool(capacity=Capacity(1.0, 0.0, kv_tokens=0)), "kv_tokens"),
        (of_pool(capacity=Capacity(1.0, 0.0, max_sequences=0)), "max_sequences"),
        (of_fleet(pools={PoolName("west"): EAST}, models={}), "another name"),
        (of_fleet(models={ModelName("x"): model("m", "east")}), "another name"),
        (of_fleet(models={ModelName("m"): model("m")}), "no tiers"),
        (of_fleet(models={ModelName("m"): model("m", "east", "")}), "tier 2 is empty"),
        (of_fleet(models={ModelName("m"): model("m", "east", "east")}), "'east' more than once"),
        (of_fleet(models={ModelName("m"): model("m", "east", "west")}), "'west', which does not exist"),
        (of_fleet(models={ModelName("m"): change(model("m", "east"), slo=Slo(ttft_ms=0.0))}), "ttft_ms"),
        (of_fleet(priorities={}), "'realtime' is missing"),
        (of_realtime(ceiling=0.0), "ceiling 0.0"),
        (of_realtime(ceiling=1.1), "ceiling 1.1"),
        (of_realtime(ceiling=0.8), "above that of a more urgent"),
        (of_realtime(max_wait_s=float("inf")), "max_wait_s"),
        (of_fleet(waiting_room=WaitingRoom(max_requests=-1)), "max_requests"),
        (of_fleet(breaker=BreakerRules(failures=0)), "failures"),
        (of_fleet(breaker=BreakerRules(failure_share=0.0)), "failure_share"),
        (of_fleet(breaker=BreakerRules(open_s=0.0)), "open_s"),
        (of_fleet(breaker=BreakerRules(open_s=60.0)), "max_open_s 30.0 is less"),
        (of_fleet(retries=RetryRules(attempts=0)), "attempts"),
        (of_fleet(retries=RetryRules(budget_share=-0.1)), "budget_share"),
    ],
)
def test_each_mistake_is_named_once(wrong: Fleet, words: str) -> None:
    assert len([text for text in problems(wrong) if words in text]) == 1
