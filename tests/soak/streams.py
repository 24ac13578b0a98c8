"""A thousand streams at once through one worker for a minute: does any of them ever stand still, is anything lost?

    python -m tests.soak.streams [--seconds 60] [--streams 1000] [--interval-ms 50] [--real-time] [--output FILE]

The mock upstream and the load generator are the C programs of benchmarks/, compiled here. A stall is the time from the
upstream's sending of an event to its arrival at the client, by the time stamp inside the event; the longest after the warm-up
must stay below 100 ms. Every stream must come to its [DONE], and the generator must have seen as many events as the mock sent.
The same load on the mock directly says what the machine itself adds: "added" is the difference of the quantiles. A worker that
gets no core stalls: on a machine that others use, --real-time (needs root) puts all that is measured here before them.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from spillway.core.clock import Seconds
from tests.soak.client import request
from tests.soak.proc import cpu_s, resident_bytes
from tests.soak.results import write
from tests.soak.serving import LOCAL, serving

SOURCES = Path(__file__).resolve().parents[2] / "benchmarks" / "c"
LONGEST_STALL_MS = 100.0
LATE_S = 15.0  # beyond the time that the streams take; then what has not ended is lost
DIRECT_S = 10.0
KEY = "sk-streams-0123456789abcdef"
Began = Callable[[], None]


class Plan(msgspec.Struct, frozen=True):
    streams: int = 1000
    interval_ms: int = 50
    seconds: Seconds = 60.0  # measured, after the warm-up
    warm_up_s: Seconds = 3.0  # streams start over the first second

    @property
    def events_per_stream(self) -> int:
        return round((self.seconds + self.warm_up_s) * 1000 / self.interval_ms)


class Figures(msgspec.Struct, frozen=True):
    """As the two programs counted. Delays in milliseconds."""

    delay_p50_ms: float
    delay_p99_ms: float
    longest_stall_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    streams: int
    streams_begun: int
    streams_done: int
    streams_broken: int
    events_sent: int
    events_lost: int

    @property
    def complete(self) -> bool:
        """Nothing lost, nothing broken, nothing sent for nobody."""
        ended = self.streams == self.streams_begun == self.streams_done
        return ended and not self.streams_broken and not self.events_lost

    @property
    def passed(self) -> bool:
        return self.complete and self.longest_stall_ms < LONGEST_STALL_MS


def build(folder: Path) -> Path:
    for name in ("mock", "loadgen"):
        command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(folder / name), str(SOURCES / f"{name}.c")]
        subprocess.run(command, check=True)
    return folder


class Mock:
    """The mock upstream. `counts` are there once it was stopped."""

    def __init__(self, tools: Path, events_per_stream: int) -> None:
        command = [str(tools / "mock"), "0", str(events_per_stream)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split()[1])
        self.counts: dict[str, int] = {}

    def stop(self) -> None:
        if self._process.returncode is not None:
            return
        for _ in range(5):
            self._process.terminate()  # again, should it have come between a look and a wait
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.counts = json.loads(self._process.communicate(timeout=2)[0])
                return
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def mocking(tools: Path, events_per_stream: int) -> Generator[Mock]:
    mock = Mock(tools, events_per_stream)
    try:
        yield mock
    finally:
        mock.stop()


def drive(tools: Path, port: int, plan: Plan, began: Began | None = None) -> dict[str, Any]:
    """What the generator saw. `began` is called when the measured time begins. Raises RuntimeError."""
    body = {
        "model": "mock",
        "stream": True,
        "max_tokens": plan.interval_ms,
        "messages": [{"role": "user", "content": "x" * 200}],
    }
    file = tools / "request"
    file.write_bytes(request(body, key=KEY))
    words = [str(port), str(plan.streams), str(plan.warm_up_s), str(plan.seconds + LATE_S), str(file), "1"]
    report: dict[str, Any] = {}
    with subprocess.Popen([str(tools / "loadgen"), "streams", *words], stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdout is not None
        for line in generator.stdout:
            if line.startswith("{"):
                report = json.loads(line)
            elif line.strip() == "begin" and began is not None:
                began()
    if generator.returncode or not report:
        raise RuntimeError("the load generator failed")
    return report


def figures_of(plan: Plan, report: dict[str, Any], mock: dict[str, int]) -> Figures:
    """`mock` may have sent more than the generator waited for: that is lost."""
    return Figures(
        delay_p50_ms=report["delay_us"]["p50"] / 1e3,
        delay_p99_ms=report["delay_us"]["p99"] / 1e3,
        longest_stall_ms=report["delay_us"]["max"] / 1e3,
        ttft_p50_ms=report["ttft_us"]["p50"] / 1e3,
        ttft_p99_ms=report["ttft_us"]["p99"] / 1e3,
        streams=plan.streams,
        streams_begun=mock["streams"],
        streams_done=report["streams_done"],
        streams_broken=report["broken"] + mock["streams_left"],
        events_sent=mock["events"],
        events_lost=mock["events"] - report["all_events"],
    )


def direct(tools: Path, plan: Plan) -> Figures:
    with mocking(tools, plan.events_per_stream) as mock:
        report = drive(tools, mock.port, plan)
    return figures_of(plan, report, mock.counts)


class Through(msgspec.Struct, frozen=True):
    figures: Figures
    cpu_us_per_event: float
    resident_mb: float


def through_gateway(tools: Path, plan: Plan, disturb: Callable[[int], None] | None = None) -> Through:
    """`disturb` gets the worker's process id when the measured time begins."""
    with mocking(tools, plan.events_per_stream) as mock:
        with serving(config_of(mock.port)) as gateway:
            worker = gateway.worker_pid
            before_s = cpu_s(worker)
            report = drive(tools, gateway.port, plan, None if disturb is None else lambda: disturb(worker))
            used_s, resident = cpu_s(worker) - before_s, resident_bytes(worker)
        mock.stop()
    figures = figures_of(plan, report, mock.counts)
    return Through(figures, round(1e6 * used_s / max(1, figures.events_sent), 1), resident / 1e6)


def config_of(port: int) -> dict[str, Any]:
    return {
        "clusters": {"here": {}},
        "pools": {"mock@here": {"cluster": "here", "endpoints": [f"http://{LOCAL}:{port}"], "model": "mock", "limit": 4096, "probe_path": ""}},
        "models": {"mock": {"tiers": [["mock@here"]]}},
        "keys": [{"secret": KEY, "tenant": "soak", "priority": "realtime"}],
    }  # fmt: skip


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, after the warm-up")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--interval-ms", type=int, default=50)
    parser.add_argument("--real-time", action="store_true", help="run before whatever else this machine does")
    parser.add_argument("--output", type=Path, help="instead of docs/results/streams.json")
    arguments = parser.parse_args(words)
    plan = Plan(arguments.streams, arguments.interval_ms, arguments.seconds)
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(room, 65536), room))
    if arguments.real_time:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # inherited by all that is started here
    with TemporaryDirectory() as name:
        tools = build(Path(name))
        alone = direct(tools, msgspec.structs.replace(plan, seconds=min(DIRECT_S, plan.seconds)))
        through = through_gateway(tools, plan)
    figures = {
        "seconds": plan.seconds,
        "interval_ms": plan.interval_ms,
        "real_time": arguments.real_time,
        "longest_stall_allowed_ms": LONGEST_STALL_MS,
        "through_gateway": msgspec.to_builtins(through.figures),
        "directly": msgspec.to_builtins(alone),
        "added_ms": {
            "p50": round(through.figures.delay_p50_ms - alone.delay_p50_ms, 3),
            "p99": round(through.figures.delay_p99_ms - alone.delay_p99_ms, 3),
            "ttft_p50": round(through.figures.ttft_p50_ms - alone.ttft_p50_ms, 3),
        },
        "worker": {"cpu_us_per_event": through.cpu_us_per_event, "resident_mb": through.resident_mb},
    }
    return write("streams", figures, passed=through.figures.passed, output=arguments.output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
