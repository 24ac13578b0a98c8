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
SOAKS = ("streams", "kills", "memory", "limits", "fuzz")


def main(arguments: list[str]) -> int:
    fast, soak = "--fast" in arguments, "--soak" in arguments
    rest = [word for word in arguments if word not in ("--fast", "--soak")]
    if not checked():
        return 1
    selection = ["-m", "not server and not browser and not slow"] if fast else []
    status = run("pytest", *selection, *rest)
    return status if status or not soak else soaked()


def soaked() -> int:
    """One after the other, all of them whatever one finds: each measures the machine as it finds it."""
    return max([abs(run(f"tests.soak.{name}")) for name in SOAKS])  # a signal that ended one is a negative number


def run(module: str, *words: str) -> int:
    return subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, check=False).returncode


def checked() -> bool:
    """Runs the checks side by side; False where one fails, with what it said."""
    started = [(name, _start(command)) for name, command in CHECKS]
    passed = True
    for name, process in started:
        said, _ = process.communicate()
        if process.returncode:
            print(said)
            passed = False
        print(f"{name}: {'failed' if process.returncode else 'ok'}", flush=True)
    return passed


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
