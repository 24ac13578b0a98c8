"""What a gateway costs: CPU time per request and per streamed event, delay and memory, side by side with other gateways.

    python benchmarks/gateway.py [--contenders nginx,aiohttp,spillway] [--rounds 5] [--seconds 2] [--with litellm,…]

Each gateway runs alone on core 1; the mock upstream and the load generator (both C, compiled here with cc) on core 0.
Rounds are interleaved and each figure is the median of its rounds. CPU time is the kernel's, of the gateway's whole
process tree. Writes docs/results/gateway-bench.json and prints a table. See benchmarks/README.md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contenders import HERE, PEERS, Contender, Running, free_port, install_peer, known, request_file
from process_tree import cpu_s, peak_bytes, tree
from table import Figures, markdown, summary

LOAD_CORE, GATEWAY_CORE = 0, 1
FIRST_USES_PER_S = 1000  # tenants that ask for the first time: as part of the warm-up
SPILLWAY_COMMAND = "{python} -m spillway serve --config {folder}/spillway.yaml --home {folder}/home"
RESULTS = HERE.parent / "docs" / "results" / "gateway-bench.json"


@dataclass(frozen=True)
class Scenario:
    """Requests over `connections` in a closed loop, or as many streams with an event every `interval_ms`."""

    name: str
    connections: int
    prompt_bytes: int = 900  # with the rest of the request about 1 KB
    interval_ms: int | None = None

    @property
    def warmup_s(self) -> float:
        return 0.7 if self.interval_ms is None else 2.0  # streams start over the first second


SCENARIOS = (
    Scenario("requests_1", 1),
    Scenario("requests_32", 32),
    Scenario("requests_256", 256),
    Scenario("prompt_33k_32", 32, prompt_bytes=33_000),
    Scenario("prompt_262k_32", 32, prompt_bytes=262_000),
    Scenario("streams_1000_50ms", 1000, interval_ms=50),
    Scenario("streams_1000_20ms", 1000, interval_ms=20),
)


def main() -> int:
    arguments = parse()
    os.sched_setaffinity(0, {LOAD_CORE})
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(room, 65536), room))
    contenders = chosen(arguments)
    scenarios = [one for one in SCENARIOS if not arguments.scenarios or one.name in arguments.scenarios.split(",")]
    rounds: list[dict[str, Figures]] = []
    with tempfile.TemporaryDirectory() as text:
        tools = build(Path(text))
        for number in range(arguments.rounds):
            rounds.append({})
            for contender in contenders:
                print(
                    f"round {number + 1}/{arguments.rounds}: {contender.name if contender else 'direct'}",
                    file=sys.stderr,
                )
                name = contender.name if contender else "direct"
                rounds[-1][name] = one_round(contender, scenarios, tools, arguments.seconds)
    result = {"machine": machine(), "seconds": arguments.seconds, "contenders": summary(rounds), "rounds": rounds}
    if arguments.output != "-":
        Path(arguments.output).write_text(json.dumps(result, indent=1) + "\n")
    print(markdown(result["contenders"]))
    return 1 if any(figures.get("errors") for run in rounds for one in run.values() for figures in one.values()) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", default="nginx,aiohttp,spillway", help="in the order of each round")
    parser.add_argument(
        "--with", dest="peers", default="", help=f"also these, installed from a package index: {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--command", action="append", default=[], metavar="NAME=COMMAND", help="also this; {port} and {mock} are put in"
    )
    parser.add_argument("--spillway-command", default=SPILLWAY_COMMAND, metavar="COMMAND")
    parser.add_argument("--scenarios", default="", help=", ".join(one.name for one in SCENARIOS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured of each scenario, after its warm-up")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "spillway-bench", help="where --with installs"
    )
    parser.add_argument("--output", default=str(RESULTS), metavar="FILE", help="- writes none")
    return parser.parse_args()


def chosen(arguments: argparse.Namespace) -> list[Contender | None]:
    """None is the load generator talking to the mock directly: what delays are compared with."""
    contenders = known(arguments.cache, arguments.spillway_command)
    peers = [name for name in arguments.peers.split(",") if name]
    for name in peers:
        install_peer(name, arguments.cache)
    for text in arguments.command:
        name, _, command = text.partition("=")
        contenders[name] = Contender(name, command)
        peers.append(name)
    return [None, *(contenders[name] for name in [*filter(None, arguments.contenders.split(",")), *peers])]


def build(folder: Path) -> Path:
    for name in ("mock", "loadgen"):
        source = HERE / "c" / f"{name}.c"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(folder / name), str(source)], check=True)
    return folder


def one_round(contender: Contender | None, scenarios: list[Scenario], tools: Path, seconds: float) -> Figures:
    with mock(tools) as mock_port:
        if contender is None:
            return {one.name: measure(one, mock_port, None, tools, seconds, 0) for one in scenarios}
        with Running(contender, mock_port, GATEWAY_CORE) as gateway:
            figures = {
                one.name: measure(one, gateway.port, gateway.pid, tools, seconds, contender.tenants)
                for one in scenarios
            }
            figures["memory"] = {"rss_peak_mb": peak_bytes(tree(gateway.pid)) / 1e6}
            return figures


@contextmanager
def mock(tools: Path) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        ["taskset", "-c", str(LOAD_CORE), str(tools / "mock"), str(port), "1000000"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        yield port
    finally:
        process.kill()
        process.communicate()


def measure(
    scenario: Scenario, port: int, pid: int | None, tools: Path, seconds: float, tenants: int
) -> dict[str, float | None]:
    """Runs the generator; reads the gateway's CPU time when it says that the measured time begins and ends."""
    mode = "requests" if scenario.interval_ms is None else "streams"
    file = tools / "request"
    file.write_bytes(request_file(scenario.prompt_bytes, scenario.interval_ms, tenants))
    command = [
        str(tools / "loadgen"),
        mode,
        str(port),
        str(scenario.connections),
        str(max(scenario.warmup_s, tenants / FIRST_USES_PER_S)),
        str(seconds),
        str(file),
        str(max(1, tenants)),
    ]
    process = subprocess.Popen(["taskset", "-c", str(LOAD_CORE), *command], stdout=subprocess.PIPE, text=True)
    pids = tree(pid) if pid else []
    begin_s = end_s = 0.0
    report: dict[str, object] = {}
    assert process.stdout is not None
    for line in process.stdout:
        match line.strip():
            case "begin":
                begin_s = cpu_s(pids)
            case "end":
                end_s = cpu_s(pids)
            case text:
                report = json.loads(text)
    if process.wait() or not report:
        raise RuntimeError(f"the load generator failed in {scenario.name}")
    return figures_of(mode, report, end_s - begin_s)


def figures_of(mode: str, report: dict, cpu: float) -> dict[str, float | None]:
    """Microseconds everywhere but in `per_s`; None where there is none: nothing was done, or no gateway stood between."""
    done = report["replies"] if mode == "requests" else report["events"]
    figures: dict[str, float | None] = {
        "per_s": done / report["seconds"],
        "cpu_us": 1e6 * cpu / done if done and cpu else None,
    }
    figures["cpu_share"] = cpu / report["seconds"]
    if mode == "requests":
        wrong = done - report["status"].get("200", 0)
        return {
            **figures,
            "errors": wrong + report["broken"],
            **{f"{name}_us": us for name, us in report["latency_us"].items()},
        }
    delays = {f"delay_{name}_us": us for name, us in report["delay_us"].items()}
    return {
        **figures,
        "errors": report["broken"],
        "ttft_p50_us": report["ttft_us"]["p50"],
        "streams": report["streams_begun"],
        **delays,
    }


def machine() -> dict[str, object]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
