"""`spillway drill` on a small running system: two supervised upstreams in two clusters, the second being the first's spill target."""

import contextlib
import json
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.e2e.gateway import KEY, Gateway, free_port, live, running

from spillway.load.drill_processes import listeners
from spillway.testing.processes import SpawnedProcess, started, started_command

pytestmark = pytest.mark.server

LIMIT = 64
REQUESTS = 48  # of each phase
LOAD = ("--rate", "40", "--duration", "1.2", "--output-tokens", "5", "--chars-per-token", "5", "--slo", "e2e_ms=600")
UPSTREAM = "--time-to-first-token 40ms --inter-token-latency 2ms --output-tokens 5"


class System(msgspec.Struct, frozen=True):
    gateway: Gateway
    near: str
    far: str

    def words(self, *words: str) -> tuple[str, ...]:
        gateway = self.gateway
        return (
            "drill", *words, "--model", "fake", "--url", f"http://127.0.0.1:{gateway.port}", "--key", KEY, "--json",
            "--admin", f"http://127.0.0.1:{gateway.admin_port}",
            "--admin-token-file", str(gateway.home / "admin.token"),
        )  # fmt: skip

    def drilled(self, *words: str, status: int = 0) -> dict[str, Any]:
        with started(*self.words(*words, *LOAD)) as command:
            assert command.wait(deadline_s=40.0) == status, command.stderr
            return json.loads(command.stdout)

    async def limit(self) -> int:
        answer = await self.gateway.admin("GET", "/admin/v1/pools")
        return next(pool["limit"] for pool in answer.json["pools"] if pool["name"] == "near")


@contextlib.contextmanager
def supervised(port: int) -> Generator[SpawnedProcess]:
    """An upstream that is started again whenever it ends."""
    once = f"{sys.executable} -m spillway upstream --port {port} {UPSTREAM}"
    with started_command(["/bin/sh", "-c", f"while :; do {once}; done"]) as process:
        process.wait_for("ready")
        yield process


@pytest.fixture(scope="module")
def system() -> Generator[System]:
    near, far = free_port(), free_port()
    urls = {name: f"http://127.0.0.1:{port}" for name, port in (("near", near), ("far", far))}
    pools = {
        name: {"model": "fake", "cluster": f"{name}-cluster", "endpoints": [url], "limit": LIMIT}
        for name, url in urls.items()
    }
    with (
        supervised(near),
        supervised(far),
        running(
            {"timeouts": {"first_content_s": 0.5}},
            clusters={"near-cluster": {}, "far-cluster": {}},
            pools=pools,
            models={"fake": {"tiers": [["near"], ["far"]]}},
        ) as gateway,
    ):
        yield System(gateway, urls["near"], urls["far"])


@live
async def test_a_starved_pool_spills_and_gets_its_limit_back(system: System) -> None:
    report = system.drilled("starve", "near", "--to", "0")
    assert mostly_near(report["baseline"])
    assert report["during"]["pools"]["far"] > 0.8 * REQUESTS  # all that came after the strike
    assert report["during"]["spilled_share"] > 0.8
    assert mostly_near(report["after"])
    assert await system.limit() == LIMIT
    assert report["failure"] is None


@live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_drill_that_is_interrupted_restores_first(system: System, number: signal.Signals) -> None:
    with started(*system.words("starve", "near", "--to", "1", *LOAD)) as command:
        command.wait_for("drill: struck")
        assert await system.limit() == 1
        command.signal(number)
        command.signal(number)  # somebody impatient
        assert command.wait(deadline_s=10.0) == 1, command.stderr
        report = json.loads(command.stdout)
    assert await system.limit() == LIMIT
    assert report["stopped"] is True
    assert report["restored"] == f"near has the limit {LIMIT}"
    assert report["baseline"]["ok"] > 0
    assert report["after"] is None


def test_a_killed_engine_is_started_again_by_its_supervisor(system: System) -> None:
    before = listeners(port_of(system.near))
    report = system.drilled("kill", system.near)
    after = listeners(port_of(system.near))
    assert len(before) == len(after) == 1
    assert before != after
    assert report["restored"] == f"an engine listens at {system.near}"
    assert mostly_near(report["baseline"])
    assert report["during"]["pools"]["far"] > 0
    assert report["baseline"]["errors"] == {}
    assert report["during"]["goodput_of_baseline"] > 0.8


@pytest.mark.parametrize("words", [("stall",), ("cut",)])
def test_what_does_not_answer_is_gone_round_and_runs_on_afterwards(system: System, words: tuple[str]) -> None:
    place = "near-cluster" if words == ("cut",) else system.near
    before = listeners(port_of(system.near))
    report = system.drilled(*words, place)
    assert listeners(port_of(system.near)) == before
    assert not before[0].stopped
    assert report["restored"] == "1 processes run on"
    assert report["during"]["pools"]["far"] > 0
    assert report["during"]["ttft_ms"]["p99"] > 400  # those that waited for the stopped engine first
    assert report["during"]["requests"] == report["baseline"]["requests"] == REQUESTS


def test_killed_itself_it_has_said_how_to_restore(system: System) -> None:
    with started(*system.words("stall", system.near, *LOAD, "--duration", "0.5")) as command:
        command.wait_for("drill: struck")
        stopped = listeners(port_of(system.near))
        assert all(process.stopped for process in stopped)
        command.kill()
        by_hand = command.wait_for(r"undo it by hand: (.*)")[1]
    with started_command(["/bin/sh", "-c", by_hand]) as undone:
        assert undone.wait() == 0
    assert not any(process.stopped for process in stopped)


def test_commands_of_the_operator_make_and_take_back_what_is_elsewhere(system: System, tmp_path: Path) -> None:
    mark, page, log = tmp_path / "down", tmp_path / "drill.html", tmp_path / "log"
    words = ("--command-down", f"touch {mark}", "--command-up", f"rm {mark}", "--html", str(page), "--log", str(log))
    with started(
        *system.words(
            "store", *LOAD, "--duration", "0.5", "--profile", "poisson", *words, "--require", "during.slo_share>=0.5"
        )
    ) as command:
        command.wait_for("drill: struck")
        assert mark.exists()
        assert command.wait(deadline_s=20.0) == 0, command.stderr
        assert json.loads(command.stdout)["requirements"][0]["met"] is True
    assert not mark.exists()
    assert "drop the shared store" in page.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    due = [sorted(round(line["intended_s"], 2) for line in lines if line["step"] == step) for step in range(3)]
    assert due[0] == pytest.approx(due[1], abs=0.03)
    assert due[0] == pytest.approx(due[2], abs=0.03)


def test_a_command_that_fails_is_taken_back_all_the_same(system: System, tmp_path: Path) -> None:
    mark = tmp_path / "down"
    words = ("--command-down", f"touch {mark}; false", "--command-up", f"rm {mark}")
    with started(*system.words("cut", "far-cluster", *LOAD, "--duration", "0.3", *words)) as command:
        assert command.wait(deadline_s=20.0) == 1
        report = json.loads(command.stdout)
    assert not mark.exists()
    assert "ended with status 1" in report["failure"]
    assert report["struck_s"] is None
    assert report["after"] is None


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("store",), "SQLite"),
        (("starve", "near"), "--to"),
        (("starve", "nowhere", "--to", "1"), "none of the pools near, far"),
        (("starve", "near", "--to", "64"), "takes nothing from near"),
        (("kill", "http://127.0.0.1:9"), "none of the endpoints"),
        (("cut", "nowhere"), "none of the clusters far-cluster, near-cluster"),
        (("stall",), "what?"),
        (("stall", "near", "--command-down", "false"), "one is nothing without the other"),
        (("cut", "near-cluster", "--require", "later.ok>1"), "not a figure"),
    ],
)
def test_usage(system: System, words: tuple[str, ...], complaint: str) -> None:
    with started(*system.words(*words, "--chars-per-token", "5", "--rate", "1")) as command:
        assert command.wait() == 2, command.stderr
        assert complaint in command.stderr


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def mostly_near(phase: dict[str, Any]) -> bool:
    """A late first token sends one to the other pool now and then."""
    return phase["pools"]["near"] > 0.9 * REQUESTS
