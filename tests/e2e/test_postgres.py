"""Gateways on a PostgreSQL: it goes away under load and comes back; two hosts share it."""

import asyncio
import contextlib
from collections.abc import Generator, Iterator

import pytest

from spillway.testing.postgres import PostgresServer
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import KEY, Gateway, Site, live, running
from tests.e2e.settling import VANISHES_S, settles
from tests.e2e.talking import Json, Talk, request
from tests.needs import needs_postgres

pytestmark = [pytest.mark.server, needs_postgres]

SEAL = "ab" * 32
QUICK = UpstreamSpec(time_to_first_token_s=0.005, output_tokens=3)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as started:
        yield started


@contextlib.contextmanager
def gateways(server: PostgresServer, count: int) -> Generator[list[Gateway]]:
    store: Json = {"url": server.database(), "spool": {"segment_s": 0.1}, "look_up_s": 0.5}
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running({"workers": 2, "key_secret": SEAL}, store=store)) for _ in range(count)]


async def created(gateway: Gateway, tenant: str = "someone") -> tuple[str, str]:
    made = await gateway.admin("POST", "/admin/v1/keys", {"tenant": tenant})
    assert made.status in (200, 201), made.body
    return made.json["secret"], made.json["key"]["id"]


def test_it_stops_under_load_and_no_record_is_lost_and_no_key_refused(server: PostgresServer) -> None:
    with gateways(server, 1) as (gateway,):

        @live
        async def scenario() -> None:
            async with gateway.fleet(Site("east", QUICK, limit=200)) as fleet:
                secret, _ = await created(gateway)
                statuses: list[int] = []
                stopping = asyncio.Event()

                async def client(key: str) -> None:
                    async with fleet.talk() as talk:
                        while not stopping.is_set():
                            talk.send(request(fleet.body(), key=key))
                            statuses.append((await talk.answer()).status)

                clients = [asyncio.ensure_future(client(key)) for key in [KEY, secret] * 6]
                await fleet.arrived("east", 200)
                await asyncio.to_thread(server.kill)
                await fleet.arrived("east", fleet["east"].log.arrived + 300)
                unknown, _ = "sk-" + "a" * 40, None
                assert (
                    await gateway.get("/v1/models", key=unknown)
                ).status == 401  # nobody minted it: that needs no store
                await gateway.counts(0, "spillway_store_up")
                await asyncio.to_thread(server.start)
                await gateway.counts(1, "spillway_store_up")
                await fleet.arrived("east", fleet["east"].log.arrived + 100)
                stopping.set()
                await asyncio.gather(*clients)
                assert set(statuses) == {200}
                await fleet["east"].quiet()
                generated = sum(seen.sent_tokens for seen in fleet["east"].log.requests)
                async with asyncio.timeout(10.0):
                    while (counted := await usage(gateway)) != (len(statuses), generated):
                        assert counted[0] <= len(statuses)
                        await asyncio.sleep(0.1)

        scenario()


async def usage(gateway: Gateway) -> tuple[int, int]:
    """Requests and output tokens, as the usage page shows them."""
    answer = await gateway.admin("GET", "/admin/v1/usage")
    assert answer.status == 200, answer.body
    hours = answer.json["hours"]
    return sum(hour["requests"] for hour in hours), sum(hour["completion_tokens"] for hour in hours)


def test_two_hosts_know_each_other_s_keys_and_revocations(server: PostgresServer) -> None:
    with gateways(server, 2) as (one, other):

        @live
        async def scenario() -> None:
            secret, key = await created(one)
            await settles(other, secret, 200, within_s=VANISHES_S)
            await settles(one, secret, 200, within_s=VANISHES_S)
            assert (await other.admin("DELETE", f"/admin/v1/keys/{key}")).status == 204
            await settles(one, secret, 401, within_s=VANISHES_S)
            await settles(other, secret, 401, within_s=VANISHES_S)

        scenario()


def test_a_key_that_nobody_here_knows_is_503_while_it_is_away(server: PostgresServer) -> None:
    with gateways(server, 1) as (gateway,):

        @live
        async def scenario() -> None:
            secret, _ = await created(gateway)
            await asyncio.to_thread(server.kill)
            try:
                async with Talk(gateway.port) as talk:
                    talk.send(request(b"", key=secret, path="/v1/models", method="GET"))
                    answer = await talk.answer("GET")
                assert answer.status == 503, answer.body
                assert int(answer.headers["retry-after"]) >= 1
            finally:
                await asyncio.to_thread(server.start)
            await settles(gateway, secret, 200, within_s=10.0)

        scenario()
