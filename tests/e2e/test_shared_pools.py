"""Two gateways share the slots of a pool: together they never send more than it takes, and whoever needs them has them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Iterator

import pytest

from spillway.testing.redis import RedisServer
from spillway.testing.seen import Seen
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from tests.e2e.gateway import Gateway, free_port, live, running
from tests.e2e.links import Link, linked
from tests.e2e.talking import Json, Talk, request
from tests.needs import needs_redis

pytestmark = [pytest.mark.server, needs_redis]

KEY = "sk-pools-0123456789abcdef"
LIMIT = 12
SPEC = UpstreamSpec(time_to_first_token_s=0.15, output_tokens=2)
BODY: Json = {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
TIMES: Json = {
    "report_s": 0.25, "timeout_s": 0.25, "grace_s": 0.6, "lease_s": 1.0, "stop_s": 3.0, "forget_s": 4.0, "learn_s": 3.0, "longest_s": 2.0,
}  # fmt: skip


class Pair:
    def __init__(self, server: RedisServer, upstream_port: int, ways: list[int], gateways: list[Gateway]) -> None:
        self.server = server
        self.upstream_port = upstream_port
        self.ways = ways
        self.gateways = gateways


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        upstream_port, ways = free_port(), [free_port() for _ in range(2)]
        pool: Json = {
            "model": "fake", "cluster": "here", "endpoints": [f"http://127.0.0.1:{upstream_port}"], "limit": LIMIT, "probe_path": "",
        }  # fmt: skip
        sections: Json = {
            "pools": {"east": pool},
            "models": {"m": {"tiers": [["east"]]}},
            "keys": [{"secret": KEY, "tenant": "t", "priority": "realtime"}],
            "priorities": {"realtime": {"max_wait_s": 30}, "interactive": {"max_wait_s": 30, "ceiling": 1.0}},
            "waiting_room": {"max_requests": 5000},
        }
        yield Pair(
            server,
            upstream_port,
            ways,
            [
                stack.enter_context(running(shared={"url": f"redis://127.0.0.1:{way}", "times": TIMES}, **sections))
                for way in ways
            ],
        )


@contextlib.asynccontextmanager
async def scene(pair: Pair) -> AsyncGenerator[tuple[UpstreamDouble, list[Link]]]:
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(linked(pair.server.port, way)) for way in pair.ways]
        upstream = await stack.enter_async_context(UpstreamDouble(SPEC))
        await stack.enter_async_context(linked(upstream.port, pair.upstream_port))
        async with asyncio.timeout(15.0):
            for gateway in pair.gateways:
                while await gateway.metric("spillway_ledger_members") != 2 or await gateway.metric(
                    "spillway_ledger_learning"
                ):
                    await asyncio.sleep(0.05)
        yield upstream, links


async def load(gateway: Gateway, clients: int, seconds: float) -> list[int]:
    loop = asyncio.get_running_loop()
    until, statuses = loop.time() + seconds, list[int]()

    async def client() -> None:
        while loop.time() < until:
            try:
                async with Talk(gateway.port) as talk:
                    while loop.time() < until:
                        talk.send(request(BODY, key=KEY))
                        statuses.append((await talk.answer()).status)
            except (OSError, AssertionError):
                statuses.append(0)
                await asyncio.sleep(0.01)

    await asyncio.gather(*(client() for _ in range(clients)))
    return statuses


def most_at_once(requests: list[Seen]) -> int:
    changes = sorted(
        [(seen.arrived_s, 1) for seen in requests]
        + [(seen.ended_s, -1) for seen in requests if seen.ended_s is not None],
        key=lambda change: (change[0], change[1]),
    )
    running_now = most = 0
    for _, step in changes:
        running_now += step
        most = max(most, running_now)
    return most


@pytest.mark.parametrize("trouble", ["none", "gateway killed", "one cut off", "server killed"])
@live
async def test_together_they_never_exceed_the_pool_s_limit(pair: Pair, trouble: str) -> None:
    async with scene(pair) as (upstream, links):
        asking = asyncio.gather(*(load(gateway, 16, 6.0) for gateway in pair.gateways))
        await asyncio.sleep(1.5)  # the load's first part
        match trouble:
            case "gateway killed":
                os.kill(pair.gateways[0].process.pid, signal.SIGKILL)
            case "one cut off":
                links[0].cut()
                await asyncio.sleep(2.5)
                links[0].mend()
            case "server killed":
                pair.server.kill()
                await asyncio.sleep(1.0)
                pair.server.start()
            case _:
                pass
        await asking
        await upstream.quiet()
        assert most_at_once(upstream.log.requests) <= LIMIT
        assert len(upstream.log.requests) > 6.0 / 0.16 * LIMIT * 0.3


@live
async def test_one_that_needs_them_gets_nearly_all_while_the_other_is_idle(pair: Pair) -> None:
    async with scene(pair) as (upstream, _):
        await load(pair.gateways[0], 24, 4.0)
        await upstream.quiet()
        late = [seen for seen in upstream.log.requests if seen.arrived_s > upstream.log.requests[0].arrived_s + 2.0]
        assert LIMIT * 0.6 <= most_at_once(late) <= LIMIT
