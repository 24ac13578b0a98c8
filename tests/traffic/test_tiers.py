"""Where a request is sent: tiers in order, ceilings, the roomier pool, the emptier endpoint, and why it spilled."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.effects import Dispatch, Queued, Refuse, SpillReason
from spillway.traffic.events import DrainSet, LimitSet
from spillway.traffic.fleet import Capacity
from spillway.traffic.pools import share_of_limit
from spillway.traffic.validation import problems


def sent_count(stage: Stage, priority: Priority, tries: int = 40) -> int:
    """How many of `tries` arrivals in a row are sent."""
    effects = [stage.arrive(f"{priority}{number}", priority) for number in range(tries)]
    return sum(isinstance(those[0], Dispatch) for those in effects)


def test_the_first_tier_serves_until_its_ceiling_then_the_next() -> None:
    stage = Stage(fleet(pool("east", 10), pool("west", 10)))
    pools = [sent_to(stage.arrive(f"r{number}"))[0][1] for number in range(18)]
    assert pools == ["east"] * 9 + ["west"] * 9
    assert isinstance(stage.arrive("over")[0], Queued)


@pytest.mark.parametrize(
    ("limit", "realtime", "interactive", "batch"),
    [(1, 1, 1, 1), (2, 2, 1, 1), (4, 4, 3, 2), (10, 10, 9, 7), (0, 0, 0, 0)],
)
def test_each_priority_fills_a_pool_up_to_its_own_ceiling(
    limit: int, realtime: int, interactive: int, batch: int
) -> None:
    expected = {Priority.REALTIME: realtime, Priority.INTERACTIVE: interactive, Priority.BATCH: batch}
    for priority, slots in expected.items():
        assert sent_count(Stage(fleet(pool("east", limit))), priority) == slots


@given(st.floats(0.01, 1.0), st.integers(0, 100_000))
def test_slots_are_the_ceiling_rounded_down_but_never_none(ceiling: float, limit: int) -> None:
    slots = share_of_limit(ceiling, limit)
    assert min(1, limit) <= slots <= limit
    assert slots <= max(1, ceiling * limit + 1e-6)
    assert slots + 1 > ceiling * limit - 1e-6


def test_ceilings_do_not_lose_a_slot_to_the_form_of_floats() -> None:
    assert [share_of_limit(0.29, 100), share_of_limit(0.7, 10), share_of_limit(0.1, 30)] == [29, 7, 3]


def test_more_urgent_requests_find_room_above_the_ceilings_of_others() -> None:
    stage = Stage(fleet(pool("east", 10)))
    assert sent_count(stage, Priority.BATCH, 8) == 7
    assert sent_count(stage, Priority.INTERACTIVE, 3) == 2
    assert sent_count(stage, Priority.REALTIME, 2) == 1


def test_in_a_tier_pools_fill_by_load_index_not_by_count() -> None:
    stage = Stage(fleet(pool("big", 60), pool("small", 20), model("m", "big small")))
    counts = {"big": 0, "small": 0}
    for number in range(40):
        counts[sent_to(stage.arrive(f"r{number}"))[0][1]] += 1
    assert abs(counts["big"] / 60 - counts["small"] / 20) <= 0.05


def test_a_wide_tier_is_filled_evenly_and_to_the_last_slot() -> None:
    names = [f"p{number}" for number in range(12)]
    stage = Stage(fleet(*(pool(name, 10) for name in names), model("m", " ".join(names))))
    for number in range(60):
        stage.arrive(f"r{number}")
    held = [pool.in_flight for pool in stage.brain.snapshot().pools]
    assert max(held) - min(held) <= 3  # two choices; one alone would spread twice as far
    assert sent_count(stage, Priority.INTERACTIVE, 60) == 48


@pytest.mark.parametrize("endpoints", [2, 4, 16])
def test_in_a_pool_the_endpoint_with_least_in_flight_is_taken(endpoints: int) -> None:
    stage = Stage(fleet(pool("east", 200, endpoints)))
    for number in range(160):
        stage.arrive(f"r{number}")
    held = [endpoint.in_flight for endpoint in stage.brain.snapshot().pools[0].endpoints]
    assert max(held) - min(held) <= (1 if endpoints <= 4 else 4)


def test_an_idle_pool_does_not_always_send_to_its_first_endpoint() -> None:
    stage = Stage(fleet(pool("east", 10, 4)))
    used = set[EndpointUrl]()
    for number in range(40):
        effect = stage.arrive(f"r{number}")[0]
        assert isinstance(effect, Dispatch)
        used.add(effect.endpoint)
        stage.end(f"r{number}")
    assert len(used) == 4


def test_why_it_spilled_is_told() -> None:
    stage = Stage(fleet(pool("east", 1), pool("west", 1), pool("hosted", 5)))
    first, second = stage.arrive("a")[0], stage.arrive("b")[0]
    assert first == Dispatch(RequestId("a"), PoolName("east"), EndpointUrl("http://east-0"), 1)
    assert second == Dispatch(
        RequestId("b"), PoolName("west"), EndpointUrl("http://west-0"), 1, SpillReason.SATURATED, PoolName("east")
    )
    for name in ("east", "west"):
        stage.tell(DrainSet(EndpointUrl(f"http://{name}-0"), draining=True))
    third = stage.arrive("c")[0]
    assert isinstance(third, Dispatch)
    assert (third.spill, third.spilled_from) == (SpillReason.UNHEALTHY, "east")


def test_an_override_of_the_limit_holds_until_it_is_given_back() -> None:
    stage = Stage(fleet(pool("east", 10)))
    stage.tell(LimitSet(PoolName("east"), 2))
    assert sent_count(stage, Priority.REALTIME, 3) == 2
    assert stage.brain.snapshot().pools[0].limit == 2
    effects = stage.tell(LimitSet(PoolName("east"), None))
    assert sent_to(effects) == [("realtime2", "east")]
    assert stage.tell(LimitSet(PoolName("nowhere"), 1)) == []
    assert stage.brain.counters.anomalies == 1


def test_a_limit_below_what_runs_sends_nothing_until_enough_has_ended() -> None:
    stage = Stage(fleet(pool("east", 10)))
    sent_count(stage, Priority.REALTIME, 10)
    stage.tell(LimitSet(PoolName("east"), 4))
    stage.arrive("next", Priority.REALTIME)
    sent = [sent_to(stage.end(f"realtime{number}")) for number in range(7)]
    assert sent == [[]] * 6 + [[("next", "east")]]


def test_kv_tokens_bound_a_pool_with_a_capacity_record() -> None:
    capacity = Capacity(0.1, 0.01, kv_tokens=1000)
    stage = Stage(fleet(msgspec.structs.replace(pool("east", 100), capacity=capacity)))
    for number in range(6):  # 100 + 100 / 2 each, of 0.9 · 1000, realtime up to all of it
        assert sent_to(stage.arrive(f"r{number}", Priority.REALTIME, tokens=(100, 100)))
    assert stage.brain.snapshot().pools[0].load_index == pytest.approx(1.0)
    assert isinstance(stage.arrive("r6", Priority.REALTIME, tokens=(100, 100))[0], Queued)
    assert sent_to(stage.end("r0")) == [("r6", "east")]


def test_a_request_larger_than_the_kv_bound_runs_alone_rather_than_never() -> None:
    capacity = Capacity(0.1, 0.01, kv_tokens=1000)
    stage = Stage(fleet(msgspec.structs.replace(pool("east", 100), capacity=capacity)))
    assert sent_to(stage.arrive("huge", tokens=(5000, 0)))
    assert isinstance(stage.arrive("next")[0], Queued)
    assert sent_to(stage.end("huge")) == [("next", "east")]


def test_the_engines_sequences_bound_a_pool_whatever_the_limit_says() -> None:
    capacity = Capacity(0.1, 0.01, max_sequences=3)
    stage = Stage(fleet(msgspec.structs.replace(pool("east", 100), capacity=capacity)))
    assert sent_count(stage, Priority.REALTIME) == 3
    assert stage.brain.snapshot().pools[0].limit == 3


def test_an_unknown_model_is_unavailable_and_a_repeated_id_is_ignored() -> None:
    stage = Stage(fleet(pool("east", 10)))
    assert stage.arrive("a", model="x") == [Refuse(RequestId("a"), "unavailable", None)]  # pyright: ignore[reportArgumentType]
    stage.arrive("b")
    assert stage.arrive("b") == []
    assert stage.brain.counters.anomalies == 1
    assert stage.brain.snapshot().pools[0].in_flight == 1


def test_a_clock_that_goes_back_is_taken_as_standing_still() -> None:
    stage = Stage(fleet(pool("east", 1)))
    stage.advance(10.0)
    stage.arrive("a")
    stage.now = 5.0
    stage.arrive("b", Priority.REALTIME)
    assert stage.audit.wake_at == 11.0


@given(st.integers(0, 200), st.integers(1, 200), st.integers(1, 100_000), st.integers(1, 8))
def test_workers_together_hold_no_more_than_the_pool(limit: int, sequences: int, kv_tokens: int, workers: int) -> None:
    capacity = Capacity(x_s=1.0, y_s=0.1, kv_tokens=kv_tokens, max_sequences=sequences)
    whole = fleet(msgspec.structs.replace(pool("east", limit), capacity=capacity))
    slices = [whole.sliced(member, workers) for member in range(workers)]
    assert not any(map(problems, slices))
    shares = [each.pools[PoolName("east")] for each in slices]
    assert sum(share.limit for share in shares) == min(limit, sequences)
    held = [share.capacity.kv_tokens or 0 for share in shares if share.capacity is not None]
    assert sum(held) == kv_tokens or (max(held) == kv_tokens < workers)
    assert all(share.capacity is not None and share.capacity.y_s == pytest.approx(0.1 * workers) for share in shares)
    assert workers > 1 or slices[0].pools[PoolName("east")].capacity == capacity
