"""Which pool of a tier: headroom, predicted cost, warm prefixes; what an ESTIMATED pool sends on, and where; the load index."""

from collections import Counter
from math import isfinite

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Price
from spillway.testing.stage import Stage, fleet, model, pool, sent_to
from spillway.traffic.choice import among, candidates
from spillway.traffic.effects import Dispatch, SpillReason
from spillway.traffic.events import Arrived, Ended
from spillway.traffic.fleet import Accounting, Capacity, Fleet, TokenShape
from spillway.traffic.pools import EndpointState, PoolState

RECORD = Capacity(x_s=2.0, y_s=0.05, reference=TokenShape(400, 100))
INTERACTIVE = Priority.INTERACTIVE.rank


def arrival(
    name: str, session: str = "", prefix: tuple[int, ...] = (), tokens: tuple[int, int] = (400, 100)
) -> Arrived:
    return Arrived(
        RequestId(name), ModelName("m"), TenantId("t"), Priority.INTERACTIVE, *tokens, session=session, prefix=prefix
    )


def stands(name: str, limit: int = 100, held: int = 0, **fields: object) -> PoolState:
    """A pool that takes requests, with so many in flight."""
    spec = msgspec.structs.replace(pool(name, limit), **fields)
    world = Fleet({spec.name: spec}, {})
    state = PoolState(spec, world)
    for url in spec.endpoints:
        state.endpoints[url] = EndpointState(url, state, world.breaker)
    state.in_flight = held
    state.refresh(0.0)
    return state


def chosen(*tier: PoolState, tries: int = 2000, arrived: Arrived | None = None) -> Counter[str]:
    """How often each pool comes first."""
    counts = Counter[str]()
    for draw in range(0, tries * 2_654_435, 2_654_435):
        first, _ = candidates(tier, INTERACTIVE, arrived or arrival("r"), draw & 0xFFFFFFFF)
        counts["" if first is None else first.spec.name] += 1
    return counts


# Two candidates, the lower cost


def test_the_nearer_the_cheaper_and_the_idler_of_two_equals_wins() -> None:
    plain = stands("plain", capacity=RECORD)
    for worse in (
        stands("far", capacity=RECORD, rtt_s=0.1),
        stands("dear", capacity=RECORD, price=Price(1.0, 2.0)),
        stands("busy", capacity=RECORD, held=30),
        stands("slow", capacity=msgspec.structs.replace(RECORD, x_s=4.0)),
    ):
        assert set(chosen(plain, worse)) == set(chosen(worse, plain)) == {"plain"}


def test_a_second_and_a_dollar_are_weighed() -> None:
    """(400 · 1 + 100 · 2) / 1e6 dollars at 0.01 dollars a second are 0.06 s."""
    plain = stands("plain", rtt_s=0.05)
    dear = stands("dear", price=Price(1.0, 2.0))
    assert dear.cost_s(arrival("r")) == pytest.approx(0.06)
    assert set(chosen(plain, dear)) == {"plain"}
    plain = stands("plain", rtt_s=0.07)
    assert set(chosen(plain, dear)) == {"dear"}


def test_a_warm_prefix_draws_a_request_to_a_pool_until_that_is_busy() -> None:
    cold, warm = stands("cold", capacity=RECORD), stands("warm", capacity=RECORD, held=5)
    arrived = arrival("r", prefix=(1, 2), tokens=(1200, 100))
    assert set(chosen(cold, warm, arrived=arrived)) == {"cold"}
    warm.affinity.sent(arrived, warm.spec.endpoints[0])
    assert set(chosen(cold, warm, arrived=arrived)) == {"warm"}
    assert warm.cost_s(arrived) < cold.cost_s(arrived)


def test_a_full_pool_is_no_candidate_and_two_full_ones_leave_none() -> None:
    full, free = stands("full", held=90), stands("free", held=89, rtt_s=10.0)
    assert set(chosen(full, free)) == set(chosen(free, full)) == {"free"}
    assert set(chosen(full, full)) == set(chosen(full, full, full)) == {""}
    free.kv_held = free.kv_slots[INTERACTIVE]
    assert set(chosen(full, free)) == {""}


def test_of_many_they_are_drawn_by_headroom() -> None:
    """Free slots 9 : 9 : 72. With p of the slots the big one is drawn, first or second, in all but the draws of both others."""
    pools = [stands("a", 10), stands("b", 10), stands("big", 80)]
    drawn = Counter[str]()
    for draw in range(0, 4000 * 2_654_435, 2_654_435):
        first, second = candidates(tuple(pools), INTERACTIVE, arrival("r"), draw & 0xFFFFFFFF)
        assert first is not None
        assert second is not None
        assert first is not second
        drawn.update((first.spec.name, second.spec.name))
    assert drawn["big"] / 4000 == pytest.approx(1.0 - 2 * 0.1 * 9 / 81, abs=0.03)
    assert drawn["a"] == pytest.approx(drawn["b"], rel=0.1)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=8), st.integers(0, (1 << 32) - 1)
)
def test_candidates_admit_and_some_are_found_where_there_are_any(pools: list[tuple[int, int]], draw: int) -> None:
    tier = tuple(stands(f"p{number}", limit, held) for number, (limit, held) in enumerate(pools))
    found = [one for one in candidates(tier, INTERACTIVE, arrival("r"), draw) if one is not None]
    assert all(one.admits(INTERACTIVE) for one in found)
    assert len(found) == len(set(map(id, found))) == min(2, sum(one.admits(INTERACTIVE) for one in tier))


# What is sent on


def test_what_one_pool_of_a_tier_sends_on_its_equal_takes() -> None:
    one, other = (stands(name, accounting=Accounting.ESTIMATED, capacity=RECORD) for name in ("east", "west"))
    assert one.share is not None
    one.share.share = 1.0
    picked = {among((one, other), INTERACTIVE, arrival(f"r{number}"), number)[0] for number in range(50)}
    assert picked == {other}
    assert other.share is not None
    other.share.share = 1.0
    assert all(among((one, other), INTERACTIVE, arrival(f"r{number}"), number)[1] for number in range(50))


def test_an_overloaded_estimated_pool_sends_sessions_to_the_next_tier_before_it_is_full() -> None:
    """40 requests a second for 4 s where 12 are possible: those that are sent on are whole sessions."""
    home = msgspec.structs.replace(pool("home", 1000), accounting=Accounting.ESTIMATED, capacity=RECORD)
    home = msgspec.structs.replace(home, capacity=msgspec.structs.replace(RECORD, y_s=0.1))
    stage = Stage(fleet(home, pool("away", 1000), model("m", "home", "away")))
    where: dict[str, set[str]] = {}
    for number in range(160):
        stage.advance(0.025)
        arrived = arrival(f"r{number}", session=f"s{number % 100}")
        (dispatch,) = [effect for effect in stage.tell(arrived) if isinstance(effect, Dispatch)]
        if number >= 120:
            where.setdefault(arrived.session, set()).add(dispatch.pool)
        if dispatch.pool == "away":
            assert dispatch.spill is SpillReason.SATURATED
    assert {name for names in where.values() for name in names} == {"home", "away"}
    assert stage.brain.snapshot().pools[0].in_flight < 900


def test_a_session_that_no_later_tier_takes_comes_back() -> None:
    home = msgspec.structs.replace(pool("home", 100), accounting=Accounting.ESTIMATED, capacity=RECORD)
    stage = Stage(fleet(home))
    stage.advance(1.0)
    assert sent_to(stage.tell(arrival("r"))) == [("r", "home")]


# The load index


def test_the_load_index_is_the_worst_of_slots_memory_and_work() -> None:
    record = msgspec.structs.replace(RECORD, kv_tokens=100_000)
    one = stands("p", 100, 20, capacity=record)
    assert one.load_index == pytest.approx(0.2)
    one.kv_held = 45_000
    assert one.load_index == pytest.approx(0.5)
    one.work = 0.7 * 100 * 800
    assert one.load_index == pytest.approx(0.7)
    one = stands("p", 100, 20)
    one.work = 1e9  # without a record nothing says what much work is
    assert one.load_index == pytest.approx(0.2)


def test_who_waits_is_load() -> None:
    stage = Stage(fleet(pool("p", 2)))
    for number in range(33):
        stage.arrive(f"r{number}")
    (view,) = stage.brain.snapshot().pools
    assert view.load_index == pytest.approx(max(0.5, 32 / 256))
    for number in range(100):
        stage.arrive(f"q{number}", tenant=f"t{number}")
    (view,) = stage.brain.snapshot().pools
    assert view.load_index == pytest.approx(132 / 256)


HUGE = st.one_of(st.integers(-10, 10**6), st.just(10**30))


@given(st.lists(st.tuples(HUGE, HUGE), min_size=1, max_size=20))
def test_no_estimate_breaks_the_choice(sizes: list[tuple[int, int]]) -> None:
    specs = [msgspec.structs.replace(pool(name, 10, 2), capacity=RECORD) for name in ("a", "b")]
    stage = Stage(fleet(*specs, model("m", "a b")))
    for number, tokens in enumerate(sizes):
        arrived = arrival(f"r{number}", "s", (number, 1), tokens)
        if any(isinstance(effect, Dispatch) for effect in stage.tell(arrived)):
            stage.begin(f"r{number}")
            stage.tell(Ended(RequestId(f"r{number}"), Outcome.OK, *tokens))
    assert all(isfinite(view.load_index) and view.in_flight == 0 for view in stage.brain.snapshot().pools)
