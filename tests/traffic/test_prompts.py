"""A pool with too many prompts before the next one sends it on: what counts, where it goes, and that the books come back to 0."""

import msgspec
import numpy as np
import pytest

from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.effects import Dispatch, SpillReason
from spillway.traffic.events import Arrived, AttemptFailed, Configured, Ended, Fault, FirstToken
from spillway.traffic.fleet import Capacity, Fleet, Slo, SpillRules, TokenShape

# y / work = 0.1 / 1000 s: 0.1 ms for a token of input. Of a TTFT objective of 1 s a tenth is 1000 tokens
RECORD = Capacity(x_s=1.0, y_s=0.1, reference=TokenShape(600, 100))


def world(*, second: bool = True, ttft_ms: float | None = 1000.0) -> Fleet:
    pools = [msgspec.structs.replace(pool("home", 100), capacity=RECORD), *([pool("second", 100)] if second else [])]
    served = model("m", *(one.name for one in pools))
    return fleet(*pools, msgspec.structs.replace(served, slo=Slo(ttft_ms=ttft_ms, tpot_ms=50.0)))


def went(stage: Stage, request: str, input_tokens: int) -> str:
    return sent_to(stage.arrive(request, tokens=(input_tokens, 10)))[0][1]


def test_prompts_beyond_a_tenth_of_the_objective_are_sent_on_and_come_home_once_answers_begin() -> None:
    stage = Stage(world())
    assert [went(stage, f"r{number}", 600) for number in range(3)] == ["home", "home", "second"]
    stage.begin("r0")
    assert went(stage, "r3", 600) == "home"
    assert went(stage, "r4", 600) == "second"


def test_who_is_sent_on_has_spilled_from_a_saturated_pool() -> None:
    stage = Stage(world())
    stage.arrive("r0", tokens=(5000, 10))
    effect = next(effect for effect in stage.arrive("r1", tokens=(10, 10)) if isinstance(effect, Dispatch))
    assert (effect.spill, effect.spilled_from) == (SpillReason.SATURATED, "home")


def test_one_long_prompt_is_taken_whole_by_an_idle_pool() -> None:
    assert went(Stage(world()), "r0", 1_000_000) == "home"


@pytest.mark.parametrize("alone", [world(second=False), world(ttft_ms=None)])
def test_nothing_is_sent_on_where_nobody_else_takes_it_or_no_objective_says_how_late_is_late(alone: Fleet) -> None:
    stage = Stage(alone)
    assert {went(stage, f"r{number}", 600) for number in range(50)} == {"home"}


def test_a_full_second_pool_leaves_requests_at_home() -> None:
    small = world()
    second = small.pools[pool("second", 1).name]
    stage = Stage(
        msgspec.structs.replace(small, pools={**small.pools, second.name: msgspec.structs.replace(second, limit=1)})
    )
    places = [went(stage, f"r{number}", 600) for number in range(6)]
    assert places == ["home", "home", "second", "home", "home", "home"]


def test_with_a_share_of_zero_there_is_one_prompt_at_a_time() -> None:
    stage = Stage(msgspec.structs.replace(world(), spill=SpillRules(prompt_share=0.0)))
    assert [went(stage, f"r{number}", 600) for number in range(2)] == ["home", "second"]


def test_however_attempts_end_no_prompt_is_left_in_the_books() -> None:
    rng = np.random.default_rng(11)
    stage = Stage(world())
    state = stage.brain._world.pools  # pyright: ignore[reportPrivateUsage]
    open_ones: list[str] = []
    for number in range(2000):
        name = f"r{number}"
        stage.now += float(rng.exponential(0.02))
        stage.arrive(name, tokens=(int(rng.integers(1, 3000)), 10))
        open_ones.append(name)
        while len(open_ones) > int(rng.integers(0, 60)):
            request = RequestId(open_ones.pop(int(rng.integers(len(open_ones)))))
            ways = rng.integers(4)
            if ways in (0, 1):
                stage.tell(FirstToken(request))
            if ways == 1:
                stage.tell(FirstToken(request))  # told twice
            if ways == 2:
                stage.tell(AttemptFailed(request, Fault.OVERLOADED, 1.0))
            stage.tell(Ended(request, Outcome.OK))
    for name in open_ones:
        stage.tell(Ended(RequestId(name), Outcome.CLIENT_LEFT))
    stage.advance(120.0)
    assert {name: pool.prompt_tokens for name, pool in state.items()} == {"home": 0, "second": 0}


def test_a_new_configuration_keeps_what_waits_and_changes_the_bound() -> None:
    stage = Stage(world())
    assert [went(stage, f"r{number}", 600) for number in range(3)] == ["home", "home", "second"]
    stage.tell(Configured(world(ttft_ms=2000.0)))
    assert [went(stage, f"s{number}", 600) for number in range(3)] == ["home", "home", "second"]


def test_warm_tokens_need_not_be_computed() -> None:
    stage = Stage(world())
    for number in range(10):
        arrived = Arrived(
            RequestId(f"r{number}"), ModelName("m"), TenantId("t"), Priority.INTERACTIVE, 1000, 10, prefix=(1, 2), block_tokens=500
        )  # fmt: skip
        assert sent_to(stage.tell(arrived))[0][1] == "home"
