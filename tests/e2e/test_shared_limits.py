"""Three gateways, one Valkey, one tenant: what its upstream served stays within the stated bound, whatever is killed, paused or cut."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Iterator

import pytest

from spillway.testing.redis import RedisServer
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from spillway.testing.windows import excess
from tests.e2e.gateway import Gateway, free_port, live, running
from tests.e2e.links import Link, linked
from tests.e2e.talking import Json, Talk, request
from tests.needs import needs_redis

pytestmark = [pytest.mark.server, needs_redis]

KEY = "sk-shared-0123456789abcdef"
OUTPUT = 20
PER_MINUTE = 60_000
CLIENTS = 48
SECONDS = 8.0
BODY: Json = {"model": "m", "max_tokens": OUTPUT, "messages": [{"role": "user", "content": "one two three"}]}
SPEC = UpstreamSpec(time_to_first_token_s=0.004, output_tokens=OUTPUT)
TIMES: Json = {
    "report_s": 0.25, "timeout_s": 0.25, "grace_s": 0.6, "lease_s": 1.0, "stop_s": 4.0, "forget_s": 5.0, "learn_s": 4.0, "settle_s": 0.5, "wait_s": 1.0,
}  # fmt: skip
"""A tenth of what they are in earnest, so that a test sees all of it."""


class Hosts:
    """Three gateways that share a Valkey, each by a way of its own, and one upstream."""

    def __init__(self, server: RedisServer, upstream_port: int, ways: list[int], gateways: list[Gateway]) -> None:
        self.server = server
        self.upstream_port = upstream_port
        self.ways = ways
        self.gateways = gateways


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        upstream_port, ways = free_port(), [free_port() for _ in range(3)]
        pool: Json = {
            "model": "fake", "cluster": "here", "endpoints": [f"http://127.0.0.1:{upstream_port}"], "limit": 200, "probe_path": "",
            "price": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0},
        }  # fmt: skip
        sections: Json = {
            "pools": {"east": pool},
            "models": {"m": {"tiers": [["east"]]}},
            "keys": [{"secret": KEY, "tenant": "t"}, {"secret": KEY + "-usd", "tenant": "usd"}],
            "tenants": {
                "t": {"quota": {"tokens_per_minute": PER_MINUTE}},
                "usd": {"quota": {"usd_per_day": 50 * OUTPUT / 1000}},
            },
        }
        gateways = [
            stack.enter_context(running(shared={"url": f"redis://127.0.0.1:{way}", "times": TIMES}, **sections))
            for way in ways
        ]
        yield Hosts(server, upstream_port, ways, gateways)


@contextlib.asynccontextmanager
async def scene(hosts: Hosts) -> AsyncGenerator[tuple[UpstreamDouble, list[Link]]]:
    """The upstream, and the ways to the Valkey; when all three gateways share, and the Valkey has learned of them."""
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(linked(hosts.server.port, way)) for way in hosts.ways]
        upstream = await stack.enter_async_context(UpstreamDouble(SPEC))
        front = await stack.enter_async_context(linked(upstream.port, hosts.upstream_port))
        assert front.port == hosts.upstream_port
        async with asyncio.timeout(15.0):
            for gateway in hosts.gateways:
                while await gateway.metric("spillway_ledger_members") != 3 or await gateway.metric(
                    "spillway_ledger_learning"
                ):
                    await asyncio.sleep(0.05)
        yield upstream, links


async def ask(gateway: Gateway, key: str = KEY) -> int:
    """The status of one request, on a connection of its own."""
    async with Talk(gateway.port) as talk:
        talk.send(request(BODY, key=key))
        return (await talk.answer()).status


async def crowd(hosts: Hosts, seconds: float, key: str = KEY) -> list[int]:
    loop = asyncio.get_running_loop()
    until, statuses = loop.time() + seconds, list[int]()

    async def client(gateway: Gateway) -> None:
        while loop.time() < until:
            try:
                async with Talk(gateway.port) as talk:
                    while loop.time() < until:
                        talk.send(request(BODY, key=key))
                        statuses.append((await talk.answer()).status)
            except (OSError, AssertionError):
                statuses.append(0)
                await asyncio.sleep(0.01)

    await asyncio.gather(*(client(hosts.gateways[number % 3]) for number in range(CLIENTS)))
    return statuses


@pytest.mark.parametrize("trouble", ["none", "gateway killed", "server paused", "server killed", "one cut off"])
@live
async def test_the_bound_holds(hosts: Hosts, trouble: str) -> None:
    async with scene(hosts) as (upstream, links):
        asking = asyncio.create_task(crowd(hosts, SECONDS))
        await asyncio.sleep(SECONDS / 4)
        match trouble:
            case "gateway killed":
                os.kill(hosts.gateways[0].process.pid, signal.SIGKILL)
            case "server paused":
                hosts.server.pause()
                await asyncio.sleep(SECONDS / 3)
                hosts.server.resume()
            case "server killed":
                hosts.server.kill()
                await asyncio.sleep(SECONDS / 3)
                hosts.server.start()
            case "one cut off":
                links[0].cut()
                await asyncio.sleep(SECONDS / 3)
                links[0].mend()
            case _:
                pass
        statuses = await asking
        await upstream.quiet()
        served = [(seen.arrived_s, seen.prompt_tokens + seen.sent_tokens) for seen in upstream.log.requests]
        worst, largest = excess(served, PER_MINUTE / 60), max(amount for _, amount in served)
        total = sum(amount for _, amount in served)
        assert worst <= PER_MINUTE / 6 + largest
        assert set(statuses) <= {200, 429, 503, 0}
        assert total >= 0.5 * (PER_MINUTE / 60) * SECONDS
        assert 401 not in statuses
        if trouble == "none":
            assert total >= 0.95 * (PER_MINUTE / 60) * SECONDS
            assert statuses.count(503) <= len(statuses) // 100  # a machine that stalls is cut off for a moment


@live
async def test_a_budget_is_never_exceeded_by_two_hundred_at_once_at_three_gateways(hosts: Hosts) -> None:
    async with scene(hosts) as (upstream, _):
        statuses = await asyncio.gather(*(ask(hosts.gateways[number % 3], KEY + "-usd") for number in range(200)))
        while (left := 50 - statuses.count(200)) > 0 and len(
            statuses
        ) < 400:  # leases of others come back within a second
            statuses += await asyncio.gather(*(ask(hosts.gateways[number % 3], KEY + "-usd") for number in range(left)))
            await asyncio.sleep(0.1)
        await upstream.quiet()
        assert set(statuses) <= {200, 429, 503}
        assert statuses[:200].count(200) >= 45
        assert sum(seen.sent_tokens for seen in upstream.log.requests) <= 50 * OUTPUT


@live
async def test_nobody_is_refused_under_ninety_percent_of_the_limit(hosts: Hosts) -> None:
    """Uneven over the gateways, and in bursts."""
    tokens = 3 + OUTPUT
    async with scene(hosts) as (upstream, _):
        await ask(hosts.gateways[0])
        tokens = max(tokens, *(seen.prompt_tokens + seen.sent_tokens for seen in upstream.log.requests))
        loop = asyncio.get_running_loop()
        begin, statuses = loop.time(), list[int]()
        per_s = 0.9 * PER_MINUTE / 60 / tokens

        async def one(number: int) -> None:
            await asyncio.sleep(
                begin + number // 10 * 10 / per_s - loop.time()
            )  # a schedule, not a wait: ten at a time
            statuses.append(await ask(hosts.gateways[0 if number % 4 else 1 + number % 2]))

        async with asyncio.TaskGroup() as tasks:
            for number in range(int(per_s * SECONDS)):
                tasks.create_task(one(number))
        assert set(statuses) == {200}
