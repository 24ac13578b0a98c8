"""Ours and the placements to beat on the same arrivals: the whole table, what pooling saves, who spills, and affinity. One command:

    python benchmarks/policies.py [--processes 2] [--seed 1] [--only table pooling spilled affinity]

Writes `docs/results/policies.json` and the tables of `docs/policies.md`. Every figure is simulated (`spillway.planner`), none is timed;
the seed makes them. About ten minutes on two cores.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from spillway.load.trace_files import load_rates, load_trace
from spillway.planner import studies
from spillway.planner.comparison import OURS, best, played, policies
from spillway.planner.pooling import most_load, saved
from spillway.planner.regional import MOST_CV
from spillway.planner.results import PolicyResult
from spillway.planner.scenarios import Case, loss_at_peak, step_of_code, three_regions
from spillway.planner.tables import between, pooling_table, setting_text, table

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "results" / "policies.json", ROOT / "docs" / "policies.md"
PARTS = ("table", "pooling", "spilled", "affinity")
OBJECTIVE = 0.99
CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "step": lambda rng: step_of_code(load_trace("azure-code").records, rng),
    "regions": lambda rng: three_regions(load_rates("servegen-rates").bins, rng),
    "loss": lambda rng: loss_at_peak(load_rates("servegen-rates").bins, rng),
}


@cache
def case_of(name: str, seed: int) -> Case:
    return CASES[name](np.random.default_rng(seed))


def play_one(task: tuple[str, int, str, int]) -> PolicyResult:
    name, seed, policy, setting = task
    return played(case_of(name, seed), policies()[policy][setting])


def whole_table(pool: ProcessPoolExecutor, seed: int) -> dict[str, dict[str, dict[str, object]]]:
    """By case and policy: the best setting, its figures, and the goodput of all settings."""
    known = policies()
    tasks = [(name, seed, policy, at) for name in CASES for policy, ways in known.items() for at in range(len(ways))]
    results = dict(zip(tasks, pool.map(play_one, tasks), strict=True))
    made: dict[str, dict[str, dict[str, object]]] = {}
    for name in CASES:
        for policy, ways in known.items():
            tried = [(way, results[name, seed, policy, at]) for at, way in enumerate(ways)]
            chosen, result = best(tried)
            made.setdefault(name, {})[policy] = {
                "setting": chosen.setting,
                "result": msgspec.to_builtins(result),
                "grid": [
                    {"setting": way.setting, "goodput_rps": tried_result.goodput_rps} for way, tried_result in tried
                ],
            }
    return made


def carried(task: tuple[str, float, int]) -> float:
    """The largest load (mean demand over what the clusters get through) with OBJECTIVE of all requests in SLO, nothing hosted."""
    policy, most_cv, seed = task
    bins = load_rates("servegen-rates").bins

    def attainment(load: float) -> float:
        case = three_regions(bins, np.random.default_rng(seed), load=load, hosted_limit=0, most_cv=most_cv)
        return played(case, policies()[policy][0]).all.attainment

    return most_load(attainment, OBJECTIVE, 0.05, 1.1)


def pooling(pool: ProcessPoolExecutor, seed: int) -> dict[str, dict[str, float]]:
    """With gaps as uneven as the trace has them, and with gaps no more uneven than Poisson's: the shape of the day alone."""
    tasks = [(policy, most_cv, seed) for most_cv in (MOST_CV, 1.0) for policy in ("local_only", OURS)]
    loads = list(pool.map(carried, tasks))
    return {
        name: {"load_alone": alone, "load_with_spill": together, "capacity_saved": saved(alone, together)}
        for name, alone, together in (("as in the trace", *loads[:2]), ("Poisson", *loads[2:]))
    }


def spilled_one(task: tuple[float, str, int]) -> studies.Spilled:
    share, rule, seed = task
    return studies.spilled_set(share, studies.RULES[rule], np.random.default_rng(seed))


def spilled(pool: ProcessPoolExecutor, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    tasks = [(share, rule, seed) for share in studies.TOP_SHARES for rule in studies.RULES]
    made: dict[str, dict[str, dict[str, float]]] = {}
    for (share, rule, _), result in zip(tasks, pool.map(spilled_one, tasks), strict=True):
        made.setdefault(f"{share:.0%}", {})[rule] = msgspec.to_builtins(result)
    return made


def affinity_one(task: tuple[str, float, int]) -> PolicyResult:
    name, speed, seed = task
    case = studies.prefixes(load_trace("mooncake").records, np.random.default_rng(seed), speed=speed)
    return studies.by_endpoint(case, name)


def affinity(pool: ProcessPoolExecutor, seed: int) -> dict[str, dict[str, dict[str, float | None]]]:
    tasks = [(name, speed, seed) for speed in studies.SPEEDS for name in studies.CHOICES]
    made: dict[str, dict[str, dict[str, float | None]]] = {}
    for (name, speed, _), result in zip(tasks, pool.map(affinity_one, tasks), strict=True):
        made.setdefault(f"{speed:g}", {})[name] = {
            "warm_share": result.warm_share,
            "ttft_p50_ms": result.all.ttft_ms.p50,
            "ttft_p95_ms": result.all.ttft_ms.p95,
            "attainment": result.all.attainment,
        }
    return made


def tables_of(made: dict[str, object]) -> dict[str, str]:
    """By marker of the page."""
    texts: dict[str, str] = {}
    for case, rows in made.get("table", {}).items():  # pyright: ignore[reportAttributeAccessIssue]
        shown = {
            name: (setting_text(row["setting"]), msgspec.convert(row["result"], PolicyResult))
            for name, row in rows.items()
        }
        texts[f"table {case}"] = table(shown)
    if "pooling" in made:
        texts["pooling"] = pooling_table(made["pooling"])  # pyright: ignore[reportArgumentType]
    if "spilled" in made:
        texts["spilled"] = studies.spilled_table(made["spilled"])  # pyright: ignore[reportArgumentType]
    if "affinity" in made:
        texts["affinity"] = studies.affinity_table(made["affinity"])  # pyright: ignore[reportArgumentType]
    return texts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args(arguments)
    made: dict[str, object] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    began = time.perf_counter()
    with ProcessPoolExecutor(given.processes) as pool:
        steps = {"table": whole_table, "pooling": pooling, "spilled": spilled, "affinity": affinity}
        for part in given.only:
            made[part] = steps[part](pool, given.seed)
            print(f"{part}: done after {time.perf_counter() - began:.0f} s", flush=True)
    made |= {"seed": given.seed, "wall_s": round(time.perf_counter() - began, 1), "parts_made": list(given.only)}
    RESULTS.write_text(json.dumps(made, indent=1) + "\n")
    page = PAGE.read_text()
    for marker, text in tables_of(made).items():
        page = between(page, marker, text)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
