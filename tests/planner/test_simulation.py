"""The driver in virtual time: every request ends once, the same arguments give the same, and what goes wrong is felt."""

from math import inf, isnan

import msgspec
import pytest

from spillway.core.errors import ConfigError
from spillway.core.ids import PoolName
from spillway.core.outcome import Outcome
from spillway.planner.books import OUTCOMES, UNFINISHED, Books
from spillway.planner.results import result_of
from spillway.planner.scenario import Happening, Incident, of_config
from spillway.planner.simulate import EngineModel, simulate
from spillway.traffic.fleet import Accounting, Fleet
from tests.planner.worlds import HOME, HOSTED, MODEL, SECOND, arrivals, world

OK = OUTCOMES.index(Outcome.OK)


def served_by(books: Books, pool: PoolName, from_s: float = 0.0, until_s: float = inf) -> int:
    number = books.pools.index(pool)
    return sum(
        place == number and outcome == OK and from_s <= at_s < until_s
        for place, outcome, at_s in zip(books.pool, books.outcome, books.at_s, strict=True)
    )


@pytest.mark.parametrize("engine", list(EngineModel))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_request_ends_once(engine: EngineModel, seed: int) -> None:
    trouble = (
        Incident(Happening.DOWN, HOME, 5.0, 10.0),
        Incident(Happening.STALL, SECOND, 12.0, 90.0),
        Incident(Happening.SLOW, HOSTED, 3.0, 15.0, factor=3.0),
        Incident(Happening.LIMIT, HOME, 15.0, 20.0, factor=4.0),
    )
    books = simulate(world(*trouble), arrivals(2500, 90.0, seed), engine=engine)
    assert len(books.outcome) == books.arrivals == 2500, f"seed {seed}"
    assert UNFINISHED not in books.outcome, f"seed {seed}"
    assert all(isnan(e2e_s) == (outcome != OK) for e2e_s, outcome in zip(books.e2e_s, books.outcome, strict=True))


def test_the_same_arguments_give_the_same() -> None:
    scenario = world(gateways=("a", "b"), accounting=Accounting.ESTIMATED, gauge_age_s=1.5)
    first, again = (result_of(simulate(scenario, arrivals(2000, 120.0, 4, ("a", "b")))) for _ in range(2))
    assert first == again
    assert first != result_of(simulate(scenario, arrivals(2000, 120.0, 5, ("a", "b"))))


def test_little_load_stays_at_home_and_much_moves_on() -> None:
    calm, busy = (result_of(simulate(world(), arrivals(1500, rate, 1))) for rate in (5.0, 100.0))
    assert calm.spilled_share < 0.05  # batch goes where most is idle
    assert calm.hosted_usd == 0.0
    assert busy.spilled_share > 0.3
    assert busy.hosted_usd > 0.0


def test_who_is_far_away_waits_for_the_round_trip() -> None:
    down = Incident(Happening.DOWN, HOME, 0.0, 1000.0)
    near, far = (simulate(world(*trouble), arrivals(300, 4.0, 1)) for trouble in ((), (down,)))
    gap_ms = result_of(far).all.ttft_ms.p50, result_of(near).all.ttft_ms.p50
    assert gap_ms[0] is not None
    assert gap_ms[1] is not None
    assert 50 < gap_ms[0] - gap_ms[1] < 80


def test_while_a_pool_is_down_the_next_one_serves_and_afterwards_it_does_again() -> None:
    books = simulate(world(Incident(Happening.DOWN, HOME, 20.0, 40.0)), arrivals(1500, 10.0, 6))
    assert served_by(books, HOME, 21.0, 39.0) == 0
    assert served_by(books, SECOND, 21.0, 39.0) > 100
    assert served_by(books, HOME, 100.0) > 100


def test_start_up_delays_the_return() -> None:
    base = world(Incident(Happening.DOWN, HOME, 10.0, 20.0))
    slow_start = {name: msgspec.structs.replace(spec, start_up_s=40.0) for name, spec in base.engines.items()}
    books = simulate(msgspec.structs.replace(base, engines=slow_start), arrivals(1500, 10.0, 6))
    assert served_by(books, HOME, 21.0, 59.0) == 0
    assert served_by(books, HOME, 90.0) > 50


def test_a_cut_network_strikes_its_region_only() -> None:
    cut = Incident(Happening.STALL, HOME, 10.0, 300.0, regions=("a",))
    scenario = msgspec.structs.replace(
        world(cut, gateways=("a", "b")), patience=msgspec.structs.replace(world().patience, first_content_s=2.0)
    )
    books = simulate(scenario, arrivals(2000, 10.0, 3, ("a", "b")))
    at_home = {
        region: sum(
            region_number == number and pool == books.pools.index(HOME) and outcome == OK and 60 < at_s < 200
            for region_number, pool, outcome, at_s in zip(books.region, books.pool, books.outcome, books.at_s, strict=True)
        )
        for number, region in enumerate(books.regions)
    }  # fmt: skip
    assert at_home["a"] == 0
    assert at_home["b"] > 300


def test_a_stall_ends_in_time_outs_and_others_take_over() -> None:
    scenario = msgspec.structs.replace(world(Incident(Happening.STALL, HOME, 10.0, 200.0)), patience=msgspec.structs.replace(world().patience, first_content_s=2.0))  # fmt: skip
    books = simulate(scenario, arrivals(1000, 10.0, 3))
    assert served_by(books, HOME, 20.0, 90.0) == 0
    assert served_by(books, SECOND, 20.0, 90.0) > 500


def test_a_lower_limit_moves_load_on() -> None:
    books = simulate(world(Incident(Happening.LIMIT, HOME, 0.0, 1000.0, factor=2.0)), arrivals(800, 20.0, 3))
    assert served_by(books, SECOND) > served_by(books, HOME)


def test_what_does_not_end_in_time_is_unfinished() -> None:
    books = simulate(world(), arrivals(100, 10.0, 3), until_s=5.0)
    assert UNFINISHED in books.outcome
    assert len(books.outcome) == books.arrivals < 100


def test_who_is_refused_comes_back_once_if_clients_do() -> None:
    asked = arrivals(3000, 300.0, 8)
    scenario = world()
    given_up, insistent = (
        simulate(msgspec.structs.replace(scenario, come_back=come_back), asked) for come_back in (False, True)
    )
    assert len(insistent.outcome) == len(given_up.outcome) == 3000
    assert insistent.outcome.count(OK) > given_up.outcome.count(OK)
    # what counts for its user is the time since the first try
    assert max(x for x in insistent.ttft_s if not isnan(x)) > max(x for x in given_up.ttft_s if not isnan(x))


def test_arrivals_out_of_order_are_an_error() -> None:
    with pytest.raises(ValueError, match="out of order"):
        simulate(world(), reversed(arrivals(10, 10.0, 1)))


def test_impossible_worlds_are_named() -> None:
    wrong = (
        Incident(Happening.DOWN, PoolName("none"), 0.0, 1.0),
        Incident(Happening.DOWN, HOME, 2.0, 1.0),
    )
    with pytest.raises(ConfigError, match=r"'none', which does not exist.*before it begins"):
        simulate(world(*wrong), [])


def test_a_pool_without_a_record_is_a_clear_error() -> None:
    pools = {name: msgspec.structs.replace(spec, capacity=None) for name, spec in world().pools.items()}
    with pytest.raises(ConfigError, match="no capacity record"):
        of_config(Fleet(pools, world().gateways[0].fleet.models))


def test_gateways_share_what_they_count_exactly() -> None:
    fleet = world().gateways[0].fleet
    scenario = of_config(fleet, gateways=3)
    limits = [seen.fleet.pools[HOME].limit for seen in scenario.gateways]
    assert sum(limits) == fleet.pools[HOME].limit
    books = simulate(scenario, arrivals(600, 30.0, 2))
    assert max(books.loads[books.pools.index(HOME)]) <= 1.0
    assert MODEL in books.models
