"""What the long forms leave behind: one JSON file each, with the machine that it was measured on, and a verdict."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def write(name: str, figures: Mapping[str, object], *, passed: bool, output: Path | None = None) -> int:
    """Writes `docs/results/NAME.json`, or `output`, and prints where it stands. The exit status: 1 on a miss."""
    path = RESULTS / f"{name}.json" if output is None else output
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"passed": passed, **figures, "machine": machine()}, indent=1) + "\n")
    print(f"{name}: {'ok' if passed else 'missed'}", flush=True)
    return 0 if passed else 1


def machine() -> dict[str, object]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load_average_1m": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
