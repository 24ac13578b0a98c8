"""One tenant bursts at ten times the others' rate, on real sockets and real, paced engines. What do the others feel?

    python benchmarks/fairness_live.py [--duration 90] [--tenants 8] [--load 0.9 1.3] [--rate RPS]

For each load (a multiple of what the two clusters carry) two runs of equal total load: in the *control* every tenant sends the
same, in the *burst* the first sends ten times as much as each other. Of every other tenant is shown
- its TTFT p95 over that of the control (bar: ≤ 1.5),
- its work (input + 4 · output tokens, answered) over its max-min fair share of all work that was done (bar: ≥ 0.95): a tenant
  that asks for less than an equal share is owed what it asks for, and the rest is shared equally among those that ask for more.

What the clusters carry (`--rate` where it is known) is measured first, closed loop. Writes docs/results/fairness.json.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from paced import Paced, brought_up
from spillway.load.record import RequestRecord

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "fairness.json"
BURST = 10
LENGTHS = ("--input-tokens", "120", "--output-tokens", "80", "--ignore-eos")
WARMUP_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=90.0)
    parser.add_argument("--tenants", type=int, default=8)
    parser.add_argument("--load", type=float, nargs="+", default=[0.9, 1.3])
    parser.add_argument("--rate", type=float)
    given = parser.parse_args()
    with brought_up() as system:
        secrets = {f"tenant-{number}": system.new_key(f"tenant-{number}") for number in range(given.tenants)}
        rate = given.rate or carried(system)
        loads = [compared(system, secrets, load, rate, given.duration) for load in given.load]
    result = {
        "carried_rps": rate,
        "tenants": given.tenants,
        "burst": BURST,
        "duration_s": given.duration,
        "loads": loads,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0 if all(load["met"] for load in loads) else 1


def carried(system: Paced) -> float:
    """Requests a second with more callers than both clusters take at once."""
    result, _ = system.bench("--profile", "concurrent", "--rate", "64", "--duration", "25", "--warmup", "5", *LENGTHS)
    return float(str(result["throughput_rps"]))


def compared(system: Paced, secrets: dict[str, str], load: float, rate: float, duration_s: float) -> dict[str, object]:
    total = load * rate
    even = measured(system, secrets, dict.fromkeys(secrets, 1.0), total, duration_s)
    weights = {name: BURST if number == 0 else 1.0 for number, name in enumerate(secrets)}
    burst = measured(system, secrets, weights, total, duration_s)
    others = list(secrets)[1:]
    control_ms = float(np.median([even[name]["ttft_p95_ms"] for name in secrets]))
    fair = max_min({name: burst[name]["asked_work"] for name in secrets}, sum(one["work"] for one in burst.values()))
    ratios = [burst[name]["ttft_p95_ms"] / control_ms for name in others]
    shares = [burst[name]["work"] / fair[name] for name in others]
    return {
        "load": load,
        "offered_rps": total,
        "control_ttft_p95_ms": control_ms,
        "others_ttft_p95_over_control": {"worst": max(ratios), "median": float(np.median(ratios))},
        "others_work_over_fair_share": {"worst": min(shares), "median": float(np.median(shares))},
        "burst": burst,
        "control": even,
        "met": max(ratios) <= 1.5 and min(shares) >= 0.95,
    }


def measured(
    system: Paced, secrets: dict[str, str], weights: dict[str, float], rate: float, duration_s: float
) -> dict[str, dict[str, float]]:
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as file:
        file.writelines(f"{name} {secret} {weights[name]}\n" for name, secret in secrets.items())
        file.flush()
        _, records = system.bench(
            "--keys-file", file.name, "--profile", "poisson", "--rate", f"{rate:.3f}", "--duration", str(duration_s), *LENGTHS
        )  # fmt: skip
    by_tenant: dict[str, list[RequestRecord]] = defaultdict(list)
    for record in records:
        if WARMUP_S <= record.intended_s < duration_s:
            by_tenant[record.client].append(record)
    return {name: figures(by_tenant[name]) for name in secrets}


def figures(records: list[RequestRecord]) -> dict[str, float]:
    answered = [record for record in records if record.error is None]
    ttft_s = [record.ttft_s for record in answered if record.ttft_s is not None]
    work = [(record.prompt_tokens or record.input_tokens) + 4.0 * record.output_tokens for record in answered]
    each = float(np.mean(work)) if work else 0.0
    return {
        "requests": len(records),
        "answered": len(answered),
        "work": float(sum(work)),
        "asked_work": each * len(records),
        "ttft_p50_ms": 1000.0 * float(np.percentile(ttft_s, 50)),
        "ttft_p95_ms": 1000.0 * float(np.percentile(ttft_s, 95)),
    }


def max_min(asked: dict[str, float], done: float) -> dict[str, float]:
    """The max-min fair division of `done` among those who ask."""
    fair: dict[str, float] = {}
    left = done
    for place, name in enumerate(sorted(asked, key=lambda one: asked[one])):
        fair[name] = min(asked[name], left / (len(asked) - place))
        left -= fair[name]
    return fair


if __name__ == "__main__":
    sys.exit(main())
