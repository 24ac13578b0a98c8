"""Three hosts, one PostgreSQL, one Valkey: limits, keys and usage are those of all of them, whatever happens to one."""

import asyncio
from collections.abc import Iterator

import pytest

from spillway.testing.windows import excess
from tests.e2e.gateway import live
from tests.e2e.talking import Json, Talk, request
from tests.hosts.cluster import PORT, Cluster, GatewayHost, cluster
from tests.needs import needs_networks, needs_postgres, needs_redis

pytestmark = [pytest.mark.server, needs_networks, needs_postgres, needs_redis]

KEY = "sk-hosts-0123456789abcdef"
PER_MINUTE = 60_000
SECONDS = 6.0
CLIENTS = 48
TIMES: Json = {
    "report_s": 0.25, "timeout_s": 0.25, "grace_s": 0.6, "lease_s": 1.0, "stop_s": 4.0, "forget_s": 5.0, "learn_s": 4.0, "settle_s": 0.5, "wait_s": 1.0,
}  # fmt: skip
SECTIONS: Json = {
    "keys": [{"secret": KEY, "tenant": "t"}],
    "tenants": {"t": {"quota": {"tokens_per_minute": PER_MINUTE}}},
}
BODY: Json = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
def hosts() -> Iterator[Cluster]:
    with cluster(TIMES, SECTIONS) as started:
        yield started


async def crowd(hosts: Cluster, seconds: float) -> list[int]:
    loop = asyncio.get_running_loop()
    until, statuses = loop.time() + seconds, list[int]()

    async def client(gateway: GatewayHost) -> None:
        while loop.time() < until:
            try:
                async with Talk(PORT, host=gateway.host.address) as talk:
                    while loop.time() < until:
                        talk.send(request(BODY, key=KEY))
                        statuses.append((await talk.answer()).status)
            except (OSError, AssertionError):
                statuses.append(0)
                await asyncio.sleep(0.01)

    await asyncio.gather(*(client(hosts.gateways[number % 3]) for number in range(CLIENTS)))
    return statuses


@pytest.mark.parametrize("trouble", ["a host killed", "a host cut off from the ledger"])
@live
async def test_tokens_a_minute_of_three_hosts_are_within_the_bound(hosts: Cluster, trouble: str) -> None:
    async with hosts.upstream() as upstream:
        asking = asyncio.create_task(crowd(hosts, SECONDS))
        await asyncio.sleep(SECONDS / 4)
        if trouble == "a host killed":
            hosts.gateways[0].process.kill_session()
        else:
            hosts.network.hosts[0].cut(hosts.redis.port)
            await asyncio.sleep(SECONDS / 3)
            hosts.network.hosts[0].mend()
        statuses = await asking
        await upstream.quiet()
        served = [(seen.arrived_s, seen.prompt_tokens + seen.sent_tokens) for seen in upstream.log.requests]
        largest = max(amount for _, amount in served)
        assert excess(served, PER_MINUTE / 60) <= PER_MINUTE / 6 + largest
        assert set(statuses) <= {200, 429, 503, 0}
        assert sum(amount for _, amount in served) >= 0.5 * PER_MINUTE / 60 * SECONDS


@live
async def test_keys_and_usage_are_those_of_all_hosts(hosts: Cluster) -> None:
    one, other, third = hosts.gateways
    async with hosts.upstream():
        made = (await one.admin("POST", "/admin/v1/keys", {"tenant": "new"})).json
        async with asyncio.timeout(3.0):
            while (await other.get(made["secret"])).status != 200:
                await asyncio.sleep(0.02)
        for gateway in hosts.gateways:
            assert (await gateway.ask(made["secret"], BODY)).status == 200
        assert (await third.admin("DELETE", f"/admin/v1/keys/{made['key']['id']}")).status == 204
        async with asyncio.timeout(2.0):
            while {(await gateway.get(made["secret"])).status for gateway in hosts.gateways} != {401}:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(10.0):
            while sum(
                hour["requests"] for hour in (await other.admin("GET", "/admin/v1/usage?tenant=new")).json["hours"]
            ) != len(hosts.gateways):
                await asyncio.sleep(0.05)


@live
async def test_a_host_that_loses_its_database_serves_on(hosts: Cluster) -> None:
    """Known keys, from memory; what it cannot know is 503."""
    one = hosts.gateways[0]
    async with hosts.upstream() as upstream:
        assert (await one.ask(KEY, BODY)).status == 200
        made = (await hosts.gateways[1].admin("POST", "/admin/v1/keys", {"tenant": "late"})).json
        one.host.cut(hosts.postgres.port)
        assert (await one.ask(KEY, BODY)).status == 200
        assert (await one.get(made["secret"])).status == 503
        assert (await hosts.gateways[1].get(made["secret"])).status == 200
        one.host.mend()
        async with asyncio.timeout(15.0):
            while (await one.get(made["secret"])).status != 200:
                await asyncio.sleep(0.1)
        assert len(upstream.log.requests) == 2
