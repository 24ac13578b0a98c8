"""`./dev test`: format, lint, types, floors, then pytest, whose closing line comes last. Exits with the first failure.

--fast  leaves out what starts servers, databases or a browser
--soak  also runs the long forms; their results are written under docs/results/
Everything else is passed to pytest.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = (
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("floors", ["lint-imports"]),
    ("types", ["basedpyright", "--warnings"]),
)


def main(arguments: list[str]) -> int:
    fast, soak = "--fast" in arguments, "--soak" in arguments
    rest = [word for word in arguments if word not in ("--fast", "--soak")]
    for name, command in CHECKS:
        done = subprocess.run(
            [str(ROOT / ".venv/bin" / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stdout + done.stderr)
            print(f"check failed: {name}")
            return 1
        print(f"{name}: ok", flush=True)
    selection = ["-m", "not server and not browser"] if fast else []
    environment = {**os.environ, "SPILLWAY_SOAK": "1"} if soak else dict(os.environ)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *selection, *rest], cwd=ROOT, env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
