"""Who spills and how much: sessions that stay together, heavy keys that are divided, and a share that neither lags nor swings."""

import random
from collections import defaultdict, deque
from collections.abc import Callable
from math import inf, nan
from statistics import mean, pstdev

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.testing.virtual_pool import VirtualPool
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Capacity, SpillRules
from spillway.traffic.heavy import MOST, HeavyKeys
from spillway.traffic.offered import OfferedRate
from spillway.traffic.spill import DAY_S, SpillShare, key_of

CAPACITY = Capacity(x_s=2.0, y_s=0.015)
LIMIT = 200
PER_S = LIMIT / (CAPACITY.x_s + CAPACITY.y_s * LIMIT)  # requests, at the limit
RULES = SpillRules()


def arrival(name: str, session: str = "", user: str = "", prefix: tuple[int, ...] = ()) -> Arrived:
    return Arrived(
        RequestId(name),
        ModelName("m"),
        TenantId("t"),
        Priority.INTERACTIVE,
        session=session,
        user=user,
        prefix=prefix,
    )


SESSIONS = [arrival(f"r{number}", session=f"s{number}") for number in range(2000)]


def spilled(share: SpillShare, part: float) -> set[str]:
    share.share = part
    return {arrived.session for arrived in SESSIONS if share.spills(arrived)}


# Who


def test_a_session_stays_together_and_the_first_that_is_known_of_it_is_its_key() -> None:
    share = SpillShare("p", RULES)
    share.share = 0.5
    for session in ("a", "b", "c", "d"):
        assert len({share.spills(arrival(f"r{number}", session)) for number in range(50)}) == 1
    assert key_of(arrival("r", "s", "u", (7, 8))) == "s"
    assert key_of(arrival("r", "", "u", (7, 8))) == "u"
    assert key_of(arrival("r", "", "", (7, 8))) == "7"
    assert key_of(arrival("r")) == "r"


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.text(max_size=20))
def test_more_share_only_adds_sessions(one: float, other: float, pool: str) -> None:
    share = SpillShare(pool, RULES)
    assert spilled(share, min(one, other)) <= spilled(share, max(one, other))


@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 1.0])
def test_the_share_is_a_share_of_sessions(part: float) -> None:
    assert len(spilled(SpillShare("p", RULES), part)) / len(SESSIONS) == pytest.approx(part, abs=0.04)


def test_pools_spill_different_sessions_and_others_on_another_day() -> None:
    """Independent halves have a quarter in common; checksums with different starts alone would have all or nothing."""
    pools = [spilled(SpillShare(name, RULES), 0.5) for name in ("east", "west", "north", "south")]
    days = [spilled(SpillShare("east", RULES, wall_offset_s=float(day * DAY_S)), 0.5) for day in range(1, 4)]
    sets = pools + days
    for place, one in enumerate(sets):
        for other in sets[place + 1 :]:
            assert len(one & other) / len(SESSIONS) == pytest.approx(0.25, abs=0.05)


def test_gateways_whose_clocks_began_at_other_times_draw_the_same_sessions() -> None:
    here, there = SpillShare("p", RULES, 1e9), SpillShare("p", RULES, 1e9 - 5e5)
    here.tick(100.0, 0.5, PER_S)
    there.tick(5e5 + 100.0, 0.5, PER_S)
    assert spilled(here, 0.4) == spilled(there, 0.4)


def test_the_day_turns_while_it_runs() -> None:
    share = SpillShare("p", RULES)
    share.tick(0.0, 0.5, PER_S)
    before = spilled(share, 0.4)
    for step in range(1, 30):
        share.tick(step * 3600.0, 0.5, PER_S)
    assert spilled(share, 0.4) != before


def test_a_heavy_session_is_divided_by_request_and_no_other() -> None:
    share = SpillShare("p", RULES)
    share.tick(0.0, 0.5, PER_S)
    for number in range(1000):
        share.offered(arrival(f"r{number}", "heavy" if number % 5 == 0 else f"s{number % 200}"), 1.0)
    share.tick(3.0, 0.5, PER_S)
    share.share = 0.4
    heavy = [share.spills(arrival(f"q{number}", "heavy")) for number in range(1000)]
    assert mean(heavy) == pytest.approx(0.4, abs=0.06)
    for session in range(200):
        assert len({share.spills(arrival(f"q{number}", f"s{session}")) for number in range(10)}) == 1


@given(st.integers(0, 10_000), st.floats(1.3, 2.5))
def test_no_key_above_the_threshold_is_missed_and_none_far_below_is_named(seed: int, tail: float) -> None:
    rng, heavy, works = random.Random(seed), HeavyKeys(), defaultdict[str, float](float)
    for _ in range(5000):
        key, work = str(int(min(1e9, rng.paretovariate(tail - 1.0)))), rng.uniform(0.0, 100.0)
        heavy.add(key, work)
        works[key] += work
    heavy.judge(0.0, 0.02)
    total = sum(works.values())
    assert {key for key, work in works.items() if work > 0.02 * total} <= heavy.named
    assert all(works[key] > (0.02 - 2.0 / MOST) * total for key in heavy.named)


def test_who_was_heavy_is_forgotten_when_it_falls_silent_and_nobody_is_named_of_a_few_requests() -> None:
    heavy = HeavyKeys()
    heavy.add("a", 100.0)
    heavy.judge(2.0, 0.02)
    assert heavy.named == frozenset()
    for number in range(500):
        heavy.add("a", 1.0)
        heavy.add(f"s{number}", 1.0)
    heavy.judge(2.0, 0.02)
    assert heavy.named == {"a"}
    for step in range(400):
        for number in range(10):
            heavy.add(f"t{step}-{number}", 1.0)
        heavy.judge(2.0, 0.02)
    assert heavy.named == frozenset()


# How much


class Row(msgspec.Struct):
    at: Seconds
    load_index: float
    share: float


def run(
    seed: int,
    rate_of: Callable[[Seconds], float],
    *,
    delay_s: Seconds,
    top: float | None = None,
    until: Seconds = 240.0,
    rules: SpillRules = RULES,
) -> list[Row]:
    """Poisson arrivals of `rate_of` times the pool's capacity, steered by a load index `delay_s` old; nothing else holds them back.
    `top`: the part of the load that is one session; None: every request is one of its own."""
    rng, pool, share = random.Random(seed), VirtualPool(CAPACITY), SpillShare("p", rules)
    known: deque[tuple[Seconds, float]] = deque([(0.0, 0.0)])
    rows: list[Row] = []
    arrives, ticks, count = 0.0, 0.2, 0
    while ticks < until:
        if pool.next_due() < min(arrives, ticks):
            pool.pop()
        elif arrives < ticks:
            count += 1
            session = "" if top is None else "top" if rng.random() < top else f"s{rng.randrange(5000)}"
            arrived = arrival(f"{seed}-{count}", session)
            share.offered(arrived, 1.0)
            if not share.spills(arrived):
                pool.start(arrived.request, arrives, 0.5, max(0.1, rng.gauss(1.0, 0.05)))
            arrives += rng.expovariate(rate_of(arrives) * PER_S)
        else:
            known.append((ticks, pool.running / LIMIT))
            while len(known) > 1 and known[1][0] <= ticks - delay_s:
                known.popleft()
            share.tick(ticks, known[0][1], PER_S)
            rows.append(Row(ticks, pool.running / LIMIT, share.share))
            ticks += 0.2
    return rows


def reversals(values: list[float], least: float = 0.02) -> int:
    """How often the direction changes, swings of at most `least` left out."""
    count, direction, low, high = 0, 0, values[0], values[0]
    for value in values:
        low, high = min(low, value), max(high, value)
        if direction >= 0 and value < high - least:
            count, direction, low = count + (direction > 0), -1, value
            high = value
        elif direction <= 0 and value > low + least:
            count, direction, high = count + (direction < 0), 1, value
            low = value
    return count


def step(at: Seconds) -> float:
    return 0.5 if at < 60.0 else 1.6


@pytest.mark.parametrize("delay_s", [5.0, 15.0])
@pytest.mark.parametrize("top", [None, 0.16, 0.3, 0.5])
def test_a_step_spills_what_is_too_much_whoever_sends_it(top: float | None, delay_s: Seconds) -> None:
    rows = run(1, step, delay_s=delay_s, top=top)
    settled = [row.load_index for row in rows if row.at >= 120.0]
    told = f"top {top}, {delay_s} s: {mean(settled):.2f} ± {pstdev(settled):.2f}, peak {max(settled):.2f}"
    assert 0.7 <= mean(settled) <= 0.92, told
    assert pstdev(settled) <= 0.18, told
    assert max(row.load_index for row in rows) <= 1.3, told
    assert max(row.share for row in rows if row.at <= 64.0) >= 0.3, "four seconds after the step it spills"


def test_one_undivided_session_would_overload_the_pool() -> None:
    """What the division by request is for."""
    undivided = run(1, step, delay_s=5.0, top=0.5, rules=msgspec.structs.replace(RULES, heavy_share=1.0))
    assert max(row.load_index for row in undivided) > 1.4


@pytest.mark.parametrize("rate", [0.8, 0.9, 1.0, 1.2])
@pytest.mark.parametrize("delay_s", [0.0, 5.0, 15.0])
def test_at_constant_load_near_the_limit_the_share_hardly_turns(rate: float, delay_s: Seconds) -> None:
    rows = run(2, lambda at: rate, delay_s=delay_s, top=0.3, until=300.0)
    shares = [row.share for row in rows if row.at >= 60.0]
    assert reversals(shares) / 4.0 <= 2.0


def test_reversals_are_counted() -> None:
    assert reversals([0.1, 0.2, 0.1, 0.2, 0.1]) == 3
    assert reversals([0.1, 0.2, 0.19, 0.3, 0.29]) == 0
    assert reversals([0.1, 0.11] * 50) == 0


def test_it_returns_slowly_and_wholly() -> None:
    rows = run(3, lambda at: 1.6 if at < 60.0 else 0.4, delay_s=5.0)
    high = next(row.share for row in rows if row.at >= 59.9)
    later = [row for row in rows if row.at >= 60.0]
    gone_at = next(row.at for row in later if row.share == 0.0)
    assert gone_at - 60.0 >= high / RULES.fall_per_s - 1.0
    assert all(row.share == 0.0 for row in rows if row.at >= gone_at + 60.0)


def test_without_a_known_capacity_nothing_spills() -> None:
    share = SpillShare("p", RULES)
    for number in range(100):
        share.offered(arrival(str(number)), 5.0)
        share.tick(0.2 * number, 2.0, 0.0)
    assert share.share == 0.0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("factor", [0.3, 0.7, 1.4, 3.0])
def test_the_offered_rate_is_steady_in_noise_and_quick_in_change(seed: int, factor: float) -> None:
    rng, rate = random.Random(seed), OfferedRate()
    for _ in range(600):
        rate.step(rng.gauss(20.0, 5.0), 0.2, 2.0)
    assert rate.rate == pytest.approx(100.0, rel=0.15)
    for _ in range(50):
        rate.step(factor * rng.gauss(20.0, 5.0), 0.2, 2.0)
    assert rate.rate == pytest.approx(100.0 * factor, rel=0.25, abs=15.0)


WILD = st.one_of(st.floats(), st.sampled_from([nan, inf, -inf, -1.0, 1e300]))


@given(st.lists(st.tuples(WILD, WILD, st.floats(-10.0, 1e7)), max_size=60), WILD)
def test_no_input_breaks_it(steps: list[tuple[float, float, float]], offset: float) -> None:
    share = SpillShare("p", RULES, offset)
    for load_index, per_s, now in steps:
        share.offered(arrival("r"), 1e12)
        share.tick(now, load_index, per_s)
        share.spills(arrival("q"))
        assert 0.0 <= share.share <= 1.0
    share.wall_offset_s = 0.0
    for number in range(400):
        share.offered(arrival(str(number)), 1.0)
        share.tick(1e8 + 0.2 * number, 0.5, 1e6)
    assert share.share == 0.0  # it is well again
