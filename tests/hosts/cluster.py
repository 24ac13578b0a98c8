"""Three hosts in network namespaces that run `spillway serve` against one PostgreSQL and one Valkey: one fixture starts all of it."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from tempfile import TemporaryDirectory

from spillway.testing.network import Host, Network
from spillway.testing.postgres import PostgresServer
from spillway.testing.processes import SpawnedProcess, started_command
from spillway.testing.redis import RedisServer
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from tests.e2e.gateway import total_of
from tests.e2e.talking import Answer, Json, Talk, request

PORT, ADMIN_PORT = 8080, 8081  # the same on every host, as they are in production
SEAL = "cd" * 32
UPSTREAM_PORT = 18_000
SPEC = UpstreamSpec(time_to_first_token_s=0.004, output_tokens=20)


class GatewayHost:
    """One host, and its gateway."""

    def __init__(self, host: Host, process: SpawnedProcess, home: Path) -> None:
        self.host = host
        self.process = process
        self.home = home

    async def ask(self, key: str, body: Json) -> Answer:
        async with Talk(PORT, host=self.host.address) as talk:
            talk.send(request(body, key=key))
            return await talk.answer()

    async def get(self, key: str, path: str = "/v1/models") -> Answer:
        async with Talk(PORT, host=self.host.address) as talk:
            talk.send(request(b"", key=key, path=path, method="GET"))
            return await talk.answer("GET")

    async def admin(self, method: str, path: str, body: Json | None = None) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        token = (self.home / "admin.token").read_text().strip()
        headers = {"host": self.host.address}
        async with Talk(ADMIN_PORT, host=self.host.address) as talk:
            talk.send(request(content, key=token, path=path, method=method, headers=headers))
            return await talk.answer(method)

    async def metric(self, name: str, **labels: str) -> float:
        return total_of((await self.admin("GET", "/metrics")).body.decode(), name, **labels)


class Cluster:
    def __init__(
        self, network: Network, redis: RedisServer, postgres: PostgresServer, gateways: list[GatewayHost]
    ) -> None:
        self.network = network
        self.redis = redis
        self.postgres = postgres
        self.gateways = gateways

    @contextlib.asynccontextmanager
    async def upstream(self, spec: UpstreamSpec = SPEC, *, within_s: float = 30.0) -> AsyncGenerator[UpstreamDouble]:
        """The engines of the pool, once all gateways share the limits."""
        double = UpstreamDouble(spec)
        await double.start(self.network.address, UPSTREAM_PORT)
        try:
            async with asyncio.timeout(within_s):
                for gateway in self.gateways:
                    while not await self._shares(gateway):
                        await asyncio.sleep(0.05)
            yield double
        finally:
            await double.stop()

    async def _shares(self, gateway: GatewayHost) -> bool:
        members = await gateway.metric("spillway_ledger_members")
        return members == len(self.gateways) and not await gateway.metric("spillway_ledger_learning")


@contextlib.contextmanager
def cluster(times: Json, sections: Json, count: int = 3) -> Generator[Cluster]:
    """`times`: of the ledger; `sections`: of the configuration, beside the pool and its model `m`."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(count))
        postgres = stack.enter_context(PostgresServer(host=network.address))
        redis = stack.enter_context(RedisServer(host=network.address))
        folder = Path(stack.enter_context(TemporaryDirectory()))
        url = postgres.database()
        gateways = [
            stack.enter_context(_gateway(host, folder / host.name, network, url, redis.url, times, sections))
            for host in network.hosts
        ]
        for gateway in gateways:
            gateway.process.wait_for(r"ready: http://", deadline_s=40.0)
        yield Cluster(network, redis, postgres, gateways)


@contextlib.contextmanager
def _gateway(
    host: Host, folder: Path, network: Network, url: str, ledger: str, times: Json, sections: Json
) -> Generator[GatewayHost]:
    folder.mkdir()
    home = folder / "home"
    configuration: Json = {
        "gateway": {
            "listen": f"{host.address}:{PORT}",
            "admin": f"{host.address}:{ADMIN_PORT}",
            "home": str(home),
            "drain_s": 2.0,
            "key_secret": SEAL,
        },
        "store": {"url": url, "spool": {"segment_s": 0.1}, "look_up_s": 0.5},
        "shared": {"url": ledger, "times": times},
        "clusters": {"here": {}},
        "pools": {
            "east": {
                "model": "fake",
                "cluster": "here",
                "endpoints": [f"http://{network.address}:{UPSTREAM_PORT}"],
                "limit": 400,
                "probe_path": "",
                "price": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0},
            }
        },
        "models": {"m": {"tiers": [["east"]]}},
        **sections,
    }
    path = folder / "spillway.yaml"
    path.write_text(json.dumps(configuration))
    words = [sys.executable, "-m", "spillway", "serve", "--config", str(path)]
    with started_command(host.command(words)) as process:
        yield GatewayHost(host, process, home)
