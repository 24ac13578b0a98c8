"""The adaptive limit: rules one by one, and a pool that grows slower in mid-run and recovers, through the whole brain."""

import random
from math import inf, nan
from statistics import mean, median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.virtual_pool import END, VirtualPool
from spillway.traffic.capacity import b_star, slo_s
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Dispatch, Effect, WakeAt
from spillway.traffic.events import Arrived, Configured, Ended, FirstToken, Woke
from spillway.traffic.fleet import (
    Capacity,
    Fleet,
    ModelSpec,
    PoolSpec,
    PrioritySpec,
    Slo,
    TokenShape,
    default_priorities,
)
from spillway.traffic.limits import ENOUGH, MOST, OVERLOAD_CUT, AdaptiveLimit

SHAPE = TokenShape(input_tokens=400, output_tokens=100)
RECORD = Capacity(x_s=2.0, y_s=0.05, reference=SHAPE)
SLO = Slo(ttft_ms=2475.0, tpot_ms=25.0)  # b* = 59 by either, and by their sum
MODEL = ModelName("m")


def limit_of(ratio: float, *, start: int = 50, used: int = 50, windows: int = 1, most: float = inf) -> float:
    search = AdaptiveLimit(start, most)
    for _ in range(windows):
        for _ in range(ENOUGH):
            search.output(ratio)
        search.tick(used)
    return search.raw


def test_it_grows_by_a_part_of_its_root_while_all_is_well() -> None:
    assert limit_of(0.5) == pytest.approx(50 + 0.2 * 50**0.5)


def test_it_holds_between_well_and_the_objective_and_falls_above() -> None:
    assert limit_of(0.97) == 50.0
    assert limit_of(1.25) == pytest.approx(0.8 * 50 + 0.2 * 50 / 1.25)
    assert limit_of(100.0) == pytest.approx(0.8 * 50 + 0.2 * 50 * 0.5)


def test_it_does_not_grow_while_less_than_half_is_used() -> None:
    assert limit_of(0.5, used=25) == 50.0
    assert limit_of(0.5, used=26) > 50.0


def test_it_stays_below_its_bound_and_bounds_that_are_no_numbers_bound_nothing() -> None:
    assert limit_of(0.1, windows=100, most=60.0) == 60.0
    assert limit_of(0.1, windows=100, used=10**9, most=nan) > 100.0


def test_the_worse_of_both_medians_counts() -> None:
    search = AdaptiveLimit(50)
    for _ in range(ENOUGH):
        search.first_token(0.2)
        search.output(1.5)
    search.tick(50)
    assert search.raw < 50.0


def test_a_window_with_too_few_samples_goes_on() -> None:
    search = AdaptiveLimit(50)
    for _ in range(ENOUGH - 1):
        search.output(2.0)
    search.tick(50)
    assert search.raw == 50.0
    search.output(2.0)
    search.tick(50)
    assert search.raw < 50.0


def test_overload_cuts_once_in_a_round_trip_and_a_second() -> None:
    search = AdaptiveLimit(100, gap_s=1.25)
    for now in (10.0, 10.5, 11.2):
        search.overloaded(now)
    assert search.raw == pytest.approx(OVERLOAD_CUT * 100)
    search.overloaded(11.25)
    assert search.raw == pytest.approx(OVERLOAD_CUT**2 * 100)


@given(
    st.integers(-5, 10**30),
    st.lists(st.tuples(st.sampled_from(["first", "output", "cut", "tick", "most"]), st.floats()), max_size=80),
)
def test_no_input_breaks_it(start: int, steps: list[tuple[str, float]]) -> None:
    search = AdaptiveLimit(start)
    for number, (what, value) in enumerate(steps):
        if what == "first":
            search.first_token(value)
        elif what == "output":
            search.output(value)
        elif what == "cut":
            search.overloaded(float(number))
        elif what == "most":
            search.most = value
        else:
            search.tick(number)
        assert 1 <= search.limit <= MOST
        assert 1.0 <= search.raw <= MOST


# A pool that drifts


class Drift:
    """One adaptive pool whose waiting room is never empty. `phases`: (seconds, y). Of each the limit and the TPOT at its end."""

    def __init__(self, seed: int, record: Capacity | None, start: int) -> None:
        self.rng = random.Random(seed)
        self.brain = Controller()
        self.engines = VirtualPool(RECORD)
        self.sent_at: dict[RequestId, Seconds] = {}
        self.first_at: dict[RequestId, Seconds] = {}
        self.tpots: list[tuple[Seconds, float]] = []
        self.limits: list[tuple[Seconds, int]] = []
        self.wake_at: Seconds = inf
        self.count = 0
        spec = PoolSpec(PoolName("p"), None, (EndpointUrl("http://p"),), start, capacity=record, adaptive=True)
        patient = {priority: PrioritySpec(ceiling=1.0, max_wait_s=1e6) for priority in default_priorities()}
        model = ModelSpec(MODEL, ((spec.name,),), SLO)
        self.tell(Configured(Fleet({spec.name: spec}, {MODEL: model}, patient)), 0.0)
        for _ in range(250):
            self.arrive(0.0)

    def tell(self, event: Configured | Arrived | FirstToken | Ended | Woke, now: Seconds) -> None:
        for effect in self.brain.handle(event, now):
            self.carry_out(effect, now)

    def carry_out(self, effect: Effect, now: Seconds) -> None:
        if isinstance(effect, Dispatch):
            size = max(0.1, self.rng.gauss(1.0, 0.05))
            self.sent_at[effect.request] = now
            self.engines.start(effect.request, now, 0.5 * size, size)
        elif isinstance(effect, WakeAt):
            self.wake_at = effect.at

    def arrive(self, now: Seconds) -> None:
        self.count += 1
        name = RequestId(f"r{self.count}")
        tokens = (SHAPE.input_tokens, SHAPE.output_tokens)
        self.tell(Arrived(name, MODEL, TenantId("t"), Priority.REALTIME, *tokens), now)

    def run(self, until: Seconds) -> None:
        while min(self.engines.next_due(), self.wake_at) < until:
            if self.wake_at <= self.engines.next_due():
                now, self.wake_at = self.wake_at, inf
                self.tell(Woke(), now)
                self.limits.append((now, self.brain.snapshot().pools[0].limit))
                continue
            now, name, what = self.engines.pop()
            if what != END:
                self.first_at[name] = now
                self.tell(FirstToken(name), now)
                continue
            self.tpots.append((now, (now - self.first_at.pop(name)) / (SHAPE.output_tokens - 1)))
            self.tell(Ended(name, Outcome.OK, SHAPE.input_tokens, SHAPE.output_tokens), now)
            self.arrive(now)

    def ending(self, since: Seconds) -> tuple[float, float]:
        """Mean limit, and median TPOT in ms, since then."""
        limit = mean(limit for at, limit in self.limits if at >= since)
        return limit, 1000.0 * median(tpot for at, tpot in self.tpots if at >= since)


def best(y_s: float) -> float:
    return b_star(Capacity(RECORD.x_s, y_s), slo_s(SLO, SHAPE))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("record", [RECORD, None], ids=["record", "no record"])
def test_the_limit_follows_a_pool_that_grows_slower_and_recovers(seed: int, record: Capacity | None) -> None:
    drift = Drift(seed, record, start=40)
    now = 0.0
    for y_s in (0.05, 0.075, 0.05):
        drift.engines.set_capacity(Capacity(RECORD.x_s, y_s), now)
        now += 150.0
        drift.run(now)
        limit, tpot_ms = drift.ending(now - 40.0)
        told = f"seed {seed}, y = {y_s}: limit {limit:.1f} of b* {best(y_s):.1f}, TPOT {tpot_ms:.1f} ms"
        assert 0.9 * best(y_s) <= limit <= 1.2 * best(y_s), told
        assert tpot_ms <= 25.0, told


@pytest.mark.parametrize("y_s", [0.025, 0.1, 0.2])
def test_a_record_that_is_wrong_by_far_neither_caps_the_limit_nor_lets_it_run_hot(y_s: float) -> None:
    drift = Drift(5, msgspec.structs.replace(RECORD, y_s=y_s), start=int(best(y_s)))
    drift.run(200.0)
    limit, tpot_ms = drift.ending(160.0)
    assert 0.9 * best(0.05) <= limit <= 1.2 * best(0.05)
    assert tpot_ms <= 25.0
