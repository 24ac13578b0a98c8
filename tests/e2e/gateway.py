"""A running gateway for end-to-end tests that script their upstreams: `spillway serve` in a process of its own.

A module's tests share the process. Each test brings its upstreams (doubles in its own event loop) and gets pools and a model
of its own names by a reload, so that nothing of one test's breakers, penalties or queues reaches another:

    @pytest.fixture(scope="module")
    def gateway() -> Iterator[Gateway]:
        with running({"timeouts": {"first_content_s": 0.5}}) as started:
            yield started

    @live
    async def test_it(gateway: Gateway) -> None:
        async with gateway.fleet(Site("east", limit=1), Site("west")) as fleet:
            answer = await fleet.ask()
            assert answer.headers["x-spillway-pool"] == fleet.pool("east")

At the end of each fleet its upstreams must be quiet: a request that is still open there is generated for nobody.
"""

import asyncio
import contextlib
import functools
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import msgspec

from spillway.testing.processes import SpawnedProcess, started
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from spillway.testing.waiting import eventually
from tests.e2e.talking import Answer, Json, Talk, request

KEY = "sk-e2e-0123456789abcdef"
TENANT = "e2e"
DEADLINE_S = 30.0
PROMPT = "one two three"

P = ParamSpec("P")


def live(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test on an event loop of its own, with a deadline."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), DEADLINE_S))

    return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site(msgspec.Struct, frozen=True):
    """One pool with one upstream, a tier of its own. `settings`: further keys of the pool. `url` None: that of the double."""

    name: str
    spec: UpstreamSpec = UpstreamSpec()
    limit: int = 64
    settings: dict[str, Any] = {}
    rules: tuple[str, ...] = ()  # how the upstream misbehaves from the start


class Gateway:
    """`port`, `admin_port` and what lies in `home`. `config` is what the next reload reads."""

    def __init__(self, process: SpawnedProcess, folder: Path, config: Json, port: int) -> None:
        self.process = process
        self.folder = folder
        self.home = Path(config["gateway"]["home"])
        self.config = config
        self.port = port
        self.admin_port = int(config["gateway"]["admin"].rpartition(":")[2])
        self._fleets = 0

    @property
    def admin_token(self) -> str:
        return (self.home / "admin.token").read_text().strip()

    async def admin(self, method: str, path: str, body: Json | None = None) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        async with Talk(self.admin_port) as talk:
            talk.send(request(content, key=self.admin_token, path=path, method=method))
            return await talk.answer(method)

    async def get(
        self, path: str, *, key: str | None = KEY, method: str = "GET", tls: ssl.SSLContext | None = None
    ) -> Answer:
        async with Talk(self.port, tls=tls) as talk:
            talk.send(request(b"", key=key, path=path, method=method))
            return await talk.answer(method)

    async def metrics(self) -> str:
        """The page as Prometheus reads it."""
        async with Talk(self.admin_port) as talk:
            talk.send(request(b"", key=None, path="/metrics", method="GET"))
            return (await talk.answer("GET")).body.decode()

    async def metric(self, name: str, **labels: str) -> float:
        return total_of(await self.metrics(), name, **labels)

    async def counts(self, value: float, name: str, **labels: str) -> None:
        """Until `metric` is `value`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 5.0
        while (shown := await self.metric(name, **labels)) != value:
            assert loop.time() < deadline, f"{name} is {shown}, not {value}"
            await asyncio.sleep(0.02)

    async def record(self, request_id: str) -> Json:
        """The usage record of a request, as soon as the ledger has it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10.0
        while (answer := await self.admin("GET", f"/admin/v1/usage/records/{request_id}")).status == 404:
            assert loop.time() < deadline, "no usage record"
            await asyncio.sleep(0.02)
        assert answer.status == 200, answer.body
        return answer.json

    async def configure(self, changes: Json) -> None:
        """Replaces top-level sections of the configuration and has it read. Fails where it is not taken."""
        self.config = {**self.config, **changes}
        write_config(self.folder, self.config)
        answer = await self.admin("POST", "/admin/v1/reload")
        assert answer.json == {"error": None}, answer.body

    @contextlib.asynccontextmanager
    async def fleet(
        self,
        *sites: Site,
        rules: Json | None = None,
        model: Json | None = None,
        keys: list[Json] | None = None,
        tls: ssl.SSLContext | None = None,
        extra: Json | None = None,
    ) -> "AsyncGenerator[Fleet]":
        """`extra`: further `pools` and `models`. `rules`: top-level sections such as `waiting_room`; without one its default holds. `tls`: how to speak to the public port."""
        self._fleets += 1
        number = self._fleets
        async with contextlib.AsyncExitStack() as stack:
            doubles = {site.name: await stack.enter_async_context(UpstreamDouble(site.spec)) for site in sites}
            for site in sites:
                doubles[site.name].misbehave(*site.rules)
            fleet = Fleet(self, number, doubles, tls)
            pools = {fleet.pool(site.name): _pool(site, doubles[site.name].url) for site in sites}
            own: Json = {name: {} for name in ("priorities", "waiting_room", "breaker", "retries")}
            tiers = [[fleet.pool(site.name)] for site in sites]
            own |= {
                "pools": pools | (extra or {}).get("pools", {}),
                "models": {fleet.model: {"tiers": tiers, **(model or {})}} | (extra or {}).get("models", {}),
                "keys": [_KEY_ENTRY, *(keys or [])],
            }
            await self.configure(own | (rules or {}))
            await fleet.appeared()
            yield fleet
            for double in doubles.values():
                await double.quiet()


class Fleet:
    """What one test sees: its model, its pools, its upstreams."""

    def __init__(
        self, gateway: Gateway, number: int, doubles: dict[str, UpstreamDouble], tls: ssl.SSLContext | None
    ) -> None:
        self.gateway = gateway
        self.model = f"model-{number}"
        self._number = number
        self._doubles = doubles
        self._tls = tls

    def __getitem__(self, site: str) -> UpstreamDouble:
        return self._doubles[site]

    def pool(self, site: str) -> str:
        return f"{site}-{self._number}"

    def body(self, **fields: Any) -> Json:
        return {"model": self.model, "messages": [{"role": "user", "content": PROMPT}], **fields}

    def request(self, *, headers: dict[str, str] | None = None, version: str = "1.1", **fields: Any) -> bytes:
        return request(self.body(**fields), key=KEY, headers=headers, version=version)

    def talk(self, *, receive_buffer_bytes: int = 1 << 20) -> Talk:
        return Talk(self.gateway.port, tls=self._tls, receive_buffer_bytes=receive_buffer_bytes)

    async def ask(self, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """One request on a connection of its own, and its whole answer."""
        async with self.talk() as talk:
            talk.send(self.request(headers=headers, **fields))
            return await talk.answer()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self._doubles)

    async def appeared(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10.0
        while (await self.gateway.get(f"/v1/models/{self.model}", tls=self._tls)).status != 200:
            assert loop.time() < deadline, "the reload did not reach the worker"
            await asyncio.sleep(0.01)

    async def shows_only(self, *pools: str) -> None:
        """Until the admin API shows just these pools, by their full names."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10.0
        while (shown := await self._pools_shown()) != set(pools):
            assert loop.time() < deadline, shown
            await asyncio.sleep(0.02)

    async def _pools_shown(self) -> set[str]:
        answer = await self.gateway.admin("GET", "/admin/v1/pools")
        return {pool["name"] for pool in answer.json["pools"]}

    async def pool_status(self, site: str) -> Json | None:
        """What the admin API shows of a pool: None until a worker has told of it."""
        answer = await self.gateway.admin("GET", "/admin/v1/pools")
        return next((pool for pool in answer.json["pools"] if pool["name"] == self.pool(site)), None)

    async def shows(self, site: str, field: str, value: object) -> Json:
        """Until the admin API says so: the pool's whole status then."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 10.0
        while (status := await self.pool_status(site)) is None or status[field] != value:
            assert loop.time() < deadline, status
            await asyncio.sleep(0.02)
        return status

    async def arrived(self, site: str, count: int) -> None:
        """Until `count` requests in all have come to an upstream."""
        await eventually(lambda: self[site].log.arrived >= count, what=f"{count} requests at {site}")


_KEY_ENTRY: Json = {"secret": KEY, "tenant": TENANT, "priority": "realtime"}


def _pool(site: Site, url: str) -> Json:
    settings: Json = {"model": site.spec.models[0], "limit": site.limit, **site.settings}
    if "provider" not in settings:
        settings |= {"cluster": "here", "endpoints": settings.get("endpoints", [url])}
        settings.setdefault("probe_path", "")
    else:
        settings.setdefault("base_url", url)
    return settings


def total_of(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = (line for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))


def write_config(folder: Path, config: Json) -> Path:
    """JSON is YAML too. The file is replaced, never half written."""
    path, fresh = folder / "spillway.yaml", folder / "fresh"
    fresh.write_text(json.dumps(config, indent=1))
    return fresh.replace(path)


@contextlib.contextmanager
def running(
    settings: Json | None = None,
    *,
    env: Mapping[str, str] | None = None,
    prepare: Callable[[Path], Json] | None = None,
    **sections: Json,
) -> Generator[Gateway]:
    """A gateway without pools yet. `settings`: of `gateway`; `sections`: further ones; `prepare`: gets the folder of the
    configuration before the start, and gives further settings of `gateway`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        more = {} if prepare is None else prepare(folder)
        config: Json = {
            "gateway": {
                "listen": "127.0.0.1:0",
                "admin": f"127.0.0.1:{free_port()}",
                "home": str(folder / "home"),
                "drain_s": 2.0,
                **(settings or {}),
                **more,
            },
            "store": {"spool": {"segment_s": 0.1}},
            "clusters": {"here": {}},
            "keys": [_KEY_ENTRY],
            "batch": {"workers": 0},  # unless a test wants some
            **sections,
        }
        path = write_config(folder, config)
        with started("serve", "--config", str(path), env=env) as process:
            ready = process.wait_for(r"ready: http://127\.0\.0\.1:(\d+)/v1", deadline_s=40.0)
            yield Gateway(process, folder, config, int(ready[1]))
            assert "Traceback" not in process.stderr, process.stderr
            process.stop()
            assert "Traceback" not in process.stderr, process.stderr
