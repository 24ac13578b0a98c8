"""Ten minutes of coverage-guided fuzzing of each parser, at the lowest priority, side by side.

    python -m tests.soak.fuzz [--minutes 10] [--output FILE]

Runs the targets of tests/fuzz (what a finding is, they say themselves) and reports what libFuzzer counted: executions, edges
(`cov`), edges with their counts (`ft`), inputs kept, and each finding with the input that made it. A target ends with its
first finding. Atheris has builds for Python up to 3.11: where it is missing nothing is run, and that is said.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from spillway.core.clock import Seconds
from tests.soak.results import write

TARGETS = Path(__file__).resolve().parents[1] / "fuzz"
GRACE_S = 120.0  # beyond the time of the fuzzing: start, and the one input that is slow
MOST_INPUT_BYTES = 4096  # of a finding's input, in the result
_PROGRESS = re.compile(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)
_EXCEPTION = re.compile(r"^\w*(?:Error|Exception|Warning|Interrupt)\b.*$", re.MULTILINE)
_FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")


class Finding(msgspec.Struct, frozen=True):
    kind: str
    error: str  # the exception, where there is one
    input_hex: str


class Fuzzed(msgspec.Struct, frozen=True):
    target: str
    seconds: Seconds
    executions: int
    edges: int
    features: int
    kept_inputs: int
    exit_status: int
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return not self.findings and self.exit_status == 0 and self.executions > 0


def available() -> bool:
    return importlib.util.find_spec("atheris") is not None


def fuzz(targets: list[Path], seconds: int) -> list[Fuzzed]:
    """All of them at once. A target that does not end in time is killed, and has not passed."""
    with TemporaryDirectory() as name:
        runs = [_Run(target, Path(name), seconds) for target in targets]
        return [run.result() for run in runs]


class _Run:
    def __init__(self, target: Path, folder: Path, seconds: int) -> None:
        self._target = target
        self._seconds = seconds
        self._folder = folder / target.stem
        self._folder.mkdir()
        self._output = self._folder / "output"
        self._began_s = time.monotonic()
        command = [
            "nice", "-n", "19", sys.executable, str(target), f"-max_total_time={seconds}",
            f"-artifact_prefix={self._folder}{os.sep}",
        ]  # fmt: skip
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._folder
            )

    def result(self) -> Fuzzed:
        try:
            status = self._process.wait(timeout=self._seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        text = self._output.read_text(errors="replace")
        seen = _PROGRESS.findall(text)
        executions, edges, features, kept = map(int, seen[-1]) if seen else (0, 0, 0, 0)
        elapsed_s = round(time.monotonic() - self._began_s, 1)
        return Fuzzed(self._target.stem, elapsed_s, executions, edges, features, kept, status, self._findings(text))

    def _findings(self, text: str) -> tuple[Finding, ...]:
        errors = _EXCEPTION.findall(text)
        return tuple(
            Finding(
                path.name.partition("-")[0], errors[-1] if errors else "", path.read_bytes()[:MOST_INPUT_BYTES].hex()
            )
            for pattern in _FINDINGS
            for path in sorted(self._folder.glob(pattern))
        )


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each target")
    parser.add_argument("--output", type=Path, help="instead of docs/results/fuzz.json")
    arguments = parser.parse_args(words)
    if not available():
        print("fuzz: not run, this Python has no atheris")
        return 0
    fuzzed = fuzz(sorted(TARGETS.glob("fuzz_*.py")), round(arguments.minutes * 60))
    figures = {"minutes": arguments.minutes, "targets": [msgspec.to_builtins(one) for one in fuzzed]}
    return write("fuzz", figures, passed=all(one.passed for one in fuzzed), output=arguments.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
