"""`spillway drill` on a small running system: two supervised upstreams in two clusters, the second being the first's spill target."""

import contextlib
import json
import sys
from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from tests.e2e.gateway import KEY, Gateway, free_port, live, running

from spillway.testing.processes import SpawnedProcess, started, started_command

pytestmark = pytest.mark.server

LIMIT = 64
LOAD = ("--rate", "40", "--duration", "2", "--output-tokens", "5", "--chars-per-token", "5", "--slo", "e2e_ms=600")
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
    assert report["baseline"]["pools"] == {"near": 80}
    assert report["during"]["pools"] == {"far": 80}
    assert report["during"]["spilled_share"] == 1.0
    assert report["after"]["pools"] == {"near": 80}
    assert await system.limit() == LIMIT
    assert report["failure"] is None
