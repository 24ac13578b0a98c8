"""Does the simulator say what happens? The same minutes through the real, paced `spillway up` and through both models of an engine.

    python benchmarks/validation.py [--seconds 300] [--learn-seconds 180]

Learned on one trace (Mooncake's lengths and arrivals), judged on another (Azure's code trace):
1. the real system replays a part of the first trace; from its request log three costs of an engine are fitted by least squares,
   base_s and sequence_s from the time per output token over the requests in flight beside it, prefill_s and what the way costs (`way_s`)
   from the time to first token over the prompt's tokens;
2. the real system replays the second trace, and its log says what it was asked: when, how many tokens in and out;
3. the simulator gets these arrivals, the fleet of the system's own configuration, and the fitted engines, nothing of the answers.

Shown are throughput, TTFT p50 and p95 and the spilled share, real and simulated, and the error. Writes docs/results/validation.json.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from paced import Paced, brought_up
from spillway import config
from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.engine.settings import EngineSettings
from spillway.load.record import RequestRecord
from spillway.planner.arrival import Arrival
from spillway.planner.results import result_of
from spillway.planner.scenario import EngineSpec, GatewaySpec, Scenario, StepCosts
from spillway.planner.simulate import EngineModel, simulate
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Fleet

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "validation.json"
LEARN = ("--trace", "mooncake", "--speed", "5", "--scale-input", "0.02", "--scale-output", "0.25")
JUDGE = ("--trace", "azure-code", "--speed", "7", "--scale-input", "0.2", "--scale-output", "2")
CHUNK = EngineSettings(model="", name="").max_batched_tokens  # as an operator knows it
COMMON = ("--profile", "replay", "--clip", "--ignore-eos")


class Fitted(msgspec.Struct, frozen=True):
    """Seconds; see the top of this file."""

    base_s: float
    sequence_s: float
    prefill_s: float
    way_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--learn-seconds", type=float, default=180.0)
    given = parser.parse_args()
    with brought_up() as system:
        _, learned = system.bench(*COMMON, *LEARN, "--duration", str(given.learn_seconds))
        fitted = fit(learned)
        real, records = system.bench(*COMMON, *JUDGE, "--duration", str(given.seconds))
        fleet = fleet_of(system, fitted)
    arrivals = arrivals_of(records)
    models = {model.value: simulated(fleet, fitted, arrivals, model, given.seconds) for model in EngineModel}
    told = figures(real, given.seconds)
    result = {
        "seconds": given.seconds,
        "requests": len(records),
        "learned_from": len(learned),
        "fitted": msgspec.to_builtins(fitted),
        "real": told,
        "simulated": models,
        "error": {name: {key: error(key, values[key], told[key]) for key in told} for name, values in models.items()},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


def figures(real: dict[str, object], seconds: float) -> dict[str, float]:
    ttft_ms: dict[str, float] = real["ttft_ms"]  # pyright: ignore[reportAssignmentType]
    return {
        "throughput_rps": float(str(real["ok"])) / seconds,
        "ttft_p50_ms": ttft_ms["p50"],
        "ttft_p95_ms": ttft_ms["p95"],
        "spilled_share": float(str(real["spilled_share"])),
    }


def error(key: str, simulated: float, real: float) -> str:
    if key == "spilled_share":
        return f"{100 * (simulated - real):+.1f} points"
    return f"{100 * (simulated / real - 1):+.1f} %"


def fit(records: Sequence[RequestRecord]) -> Fitted:
    """Least squares on what the callers saw."""
    whole = [
        r
        for r in records
        if r.error is None and r.output_tokens > 1 and r.first_s and r.last_s and r.sent_s is not None
    ]
    beside = np.array([in_flight(whole, r) for r in whole])
    tpot_s = np.array([(r.last_s or 0) - (r.first_s or 0) for r in whole]) / np.array(
        [r.output_tokens - 1 for r in whole]
    )
    weights = np.sqrt(np.array([r.output_tokens for r in whole], dtype=float))
    (base_s, sequence_s), *_ = np.linalg.lstsq(
        np.column_stack([np.ones(len(whole)), beside]) * weights[:, None], tpot_s * weights, rcond=None
    )
    # those that did not wait: their first token came within two steps and their own prompt's time
    ttft_s = np.array([(r.first_s or 0) - (r.sent_s or 0) for r in whole])
    at_once = ttft_s < np.quantile(ttft_s, 0.8)
    prompts = np.array([r.prompt_tokens or r.input_tokens for r in whole], dtype=float)
    rest_s = ttft_s - 1.5 * (base_s + sequence_s * beside)
    (way_s, prefill_s), *_ = np.linalg.lstsq(
        np.column_stack([np.ones(int(at_once.sum())), prompts[at_once]]), rest_s[at_once], rcond=None
    )
    return Fitted(float(base_s), max(0.0, float(sequence_s)), max(0.0, float(prefill_s)), max(0.0, float(way_s)))


def in_flight(records: Sequence[RequestRecord], one: RequestRecord) -> float:
    """Mean number that decoded in the same pool while it did, itself included."""
    begin, end = one.first_s or 0.0, one.last_s or 0.0
    beside = sum(
        max(0.0, min(end, r.last_s or 0.0) - max(begin, r.first_s or 0.0)) for r in records if r.pool == one.pool
    )
    return beside / max(1e-9, end - begin)


def fleet_of(system: Paced, fitted: Fitted) -> Fleet:
    """As the system was configured; the round trip is the one that was measured, for all of it is on one machine."""
    fleet = config.load(system.home / "up.yaml", {"SPILLWAY_DEMO_KEY": system.key}).fleet()
    pools = {name: msgspec.structs.replace(pool, rtt_s=fitted.way_s) for name, pool in fleet.pools.items()}
    return msgspec.structs.replace(fleet, pools=pools)


def arrivals_of(records: Sequence[RequestRecord]) -> list[Arrival]:
    made = [
        Arrival(
            r.intended_s, "", max(1, r.output_tokens or r.max_tokens),
            Arrived(
                RequestId(f"r{r.index}"), ModelName("npc"), TenantId("demo"), Priority.INTERACTIVE, r.prompt_tokens or r.input_tokens,
                r.max_tokens, 4 * r.input_tokens,
            ),
        )
        for r in records
    ]  # fmt: skip
    return sorted(made, key=lambda arrival: arrival.at_s)


def simulated(
    fleet: Fleet, fitted: Fitted, arrivals: list[Arrival], model: EngineModel, seconds: float
) -> dict[str, float]:
    engine = EngineSpec(StepCosts(fitted.base_s, fitted.sequence_s, prefill_s=fitted.prefill_s), prefill_chunk=CHUNK)
    scenario = Scenario((GatewaySpec("", fleet),), dict.fromkeys(fleet.pools, engine))
    result = result_of(simulate(scenario, arrivals, engine=model))
    ttft_ms = result.all.ttft_ms
    return {
        "throughput_rps": result.all.answered / seconds,
        "ttft_p50_ms": ttft_ms.p50 or 0.0,
        "ttft_p95_ms": ttft_ms.p95 or 0.0,
        "spilled_share": result.spilled_share,
    }


if __name__ == "__main__":
    sys.exit(main())
