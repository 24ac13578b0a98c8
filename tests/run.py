"""`./dev test`: format, lint, types, floors, then pytest, whose closing line comes last. Exits with the first failure.

--fast  leaves out what starts servers, databases or a browser, and what takes more than ten seconds
--soak  also runs the long forms of tests/soak (about an hour); their results are written under docs/results/
Everything else is passed to pytest.
"""

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
FAST = "not server and not browser and not slow"
SOAKS = ("streams", "kills", "batches", "memory", "limits", "fuzz")


def main(arguments: list[str]) -> int:
    fast, soak = "--fast" in arguments, "--soak" in arguments
    rest = [word for word in arguments if word not in ("--fast", "--soak")]
    checks = start_checks()
    if fast:  # all at once, for time is short
        status = run("pytest", "-m", FAST, "--hypothesis-profile", "fast", *rest)
        return status if passed(checks) else 1
    if not passed(checks):
        return 1
    status = run("pytest", *rest)
    return status if status or not soak else soaked()


def soaked() -> int:
    """One after the other, all of them whatever one finds: each measures the machine as it finds it."""
    return max([abs(run(f"tests.soak.{name}")) for name in SOAKS])  # a signal that ended one is a negative number


def run(module: str, *words: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=False).returncode


def start_checks() -> list[tuple[str, "subprocess.Popen[str]"]]:
    """Side by side."""
    return [(name, _start(command)) for name, command in CHECKS]


def passed(checks: list[tuple[str, "subprocess.Popen[str]"]]) -> bool:
    """Waits for them; False where one fails, with what it said."""
    good = True
    for name, process in checks:
        said, _ = process.communicate()
        if process.returncode:
            print(said)
            good = False
        print(f"{name}: {'failed' if process.returncode else 'ok'}", flush=True)
    return good


def _start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(ROOT / ".venv/bin" / command[0]), *command[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
