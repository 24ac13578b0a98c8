"""Settings are the same each time, the best is the first of the best, and a tiny table comes out twice the same."""

import msgspec
import numpy as np
import pytest

from spillway.planner.comparison import OURS, best, played, policies
from spillway.planner.pooling import CLOSE, most_load, saved
from spillway.planner.scenarios import Case, step_of_code
from spillway.planner.studies import CHOICES, RULES, by_endpoint, prefixes, spilled_set
from spillway.planner.tables import between, setting_text, table
from spillway.wire.traces import TraceRecord


def records(count: int = 400, seed: int = 3) -> list[TraceRecord]:
    rng = np.random.default_rng(seed)
    at_s = np.cumsum(rng.exponential(0.4, count)).tolist()
    return [TraceRecord(at, int(rng.integers(100, 4000)), int(rng.integers(1, 60))) for at in at_s]


def tiny(seed: int = 1) -> Case:
    return step_of_code(records(), np.random.default_rng(seed), low_s=70.0, high_s=20.0, endpoints=2)


def test_every_alternative_but_local_only_has_nine_settings_all_different() -> None:
    counts = {name: len({str(way.setting) for way in ways}) for name, ways in policies().items()}
    assert counts == {OURS: 1, "local_only": 1, "round_robin": 9, "error_triggered": 9, "threshold": 9, "least_kv": 9}


def test_the_grid_is_the_same_each_time() -> None:
    once, again = ([(way.name, way.setting) for ways in policies().values() for way in ways] for _ in range(2))
    assert once == again


def test_no_threshold_returns_above_where_it_leaves() -> None:
    assert all(0.0 < way.setting["back"] <= way.setting["leave"] <= 1.0 for way in policies()["threshold"])


def test_of_equals_the_first_is_the_best_and_goodput_decides() -> None:
    (way,) = policies()[OURS]
    result = played(tiny(), way)
    better = msgspec.structs.replace(result, goodput_rps=result.goodput_rps + 1.0)
    first, second, third = policies()["threshold"][:3]
    assert best([(first, result), (second, result)])[0] is first
    assert best([(first, result), (second, better), (third, better)])[0] is second


def test_a_tiny_table_is_made_twice_the_same() -> None:
    def made() -> str:
        case = tiny()
        rows = {}
        for name, ways in policies().items():
            chosen, result = best([(way, played(case, way)) for way in ways[:3]])
            rows[name] = (setting_text(chosen.setting), result)
        return table(rows)

    once = made()
    assert once == made()
    assert once.count("\n") == 7
    assert "| **spillway** | — |" in once


def test_another_seed_makes_other_figures() -> None:
    (way,) = policies()[OURS]
    assert played(tiny(1), way) != played(tiny(2), way)


def test_bisection_finds_the_load_and_counts_what_is_saved() -> None:
    assert most_load(lambda load: 1.0 if load <= 0.63 else 0.9, 0.99, 0.1, 1.1) == pytest.approx(0.63, abs=CLOSE)
    assert most_load(lambda load: 0.0, 0.99, 0.1, 1.1) == 0.1
    assert saved(0.5, 0.8) == pytest.approx(0.375)


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert between(page, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="not found"):
        between(page, "y", "new")


def test_affinity_finds_more_warm_tokens_than_chance_and_least_load() -> None:
    rng = np.random.default_rng(4)
    talks = rng.integers(0, 200, 1500).tolist()  # four times what one endpoint keeps
    turns = [TraceRecord(0.2 * n, 4096 + 64, 20, tuple(range(100 * t, 100 * t + 8))) for n, t in enumerate(talks)]
    case = prefixes(turns, np.random.default_rng(1), speed=1.0)
    warm = {name: by_endpoint(case, name).warm_share for name in CHOICES}
    assert warm["spillway"] > 1.2 * warm["random"]
    assert warm["spillway"] > 1.2 * warm["least_load"]


@pytest.mark.slow
def test_hashing_whole_tenants_throws_a_pool_off_by_the_weight_of_one() -> None:
    """Against the target of 0.85, sessions and requests land within a fifth of it."""
    found = {rule: spilled_set(0.5, rule, np.random.default_rng(2)) for rule in RULES}
    assert abs(found["session"].mean_load - 0.75) < 0.15
    assert abs(found["request"].mean_load - 0.75) < 0.15
    assert abs(found["tenant"].mean_load - 0.75) > 0.2
