"""Keys that two workers look up: what reaches them and when, and what happens while the store or the parent does not answer."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from spillway.core.ids import TenantId
from spillway.store.minting import load_seal, mint
from spillway.store.opening import Stores
from spillway.store.rows import Audit, KeyRow
from spillway.store.settings import Settings
from spillway.testing.processes import descendants, wait_gone
from spillway.testing.rng import SeededRng
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import KEY, TENANT, Gateway, Site, live, running
from tests.e2e.settling import VANISHES_S, settles
from tests.e2e.talking import Answer, Json, Talk, request

pytestmark = pytest.mark.server

BRISK = UpstreamSpec(time_to_first_token_s=0.005, inter_token_latency_s=0.002, output_tokens=2)
MADE_UP = "sk-" + "abcdefgh" * 5
STORE: Json = {"busy_timeout_s": 0.2, "spool": {"segment_s": 0.1}, "look_up_s": 0.5}
"""Tests share the machine with others: a look-up may take longer here than it should."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({"workers": 2}, store=STORE) as started:
        yield started


async def minted(gateway: Gateway, seed: int, tenant: str = "someone") -> tuple[KeyRow, str]:
    """A key of this gateway's that is not in its store."""
    seal = await asyncio.to_thread(load_seal, gateway.home, SeededRng(0))
    return mint(SeededRng(seed), seal, now_s=1.0, tenant=TenantId(tenant))


async def put(gateway: Gateway, row: KeyRow) -> None:
    """As another process does it."""
    async with Stores(Settings(), gateway.home) as stores:
        await stores.keys.add(row, Audit(1.0, "cli", "key.create", row.id, None, None, None))


async def created(gateway: Gateway, **wanted: object) -> tuple[str, str]:
    """Its secret and its id."""
    made = await gateway.admin("POST", "/admin/v1/keys", {"tenant": "someone", **wanted})
    assert made.status in (200, 201), made.body
    return made.json["secret"], made.json["key"]["id"]


async def asked(gateway: Gateway, key: str, times: int = 8) -> list[Answer]:
    """On connections of their own, so that both workers are asked."""
    return list(await asyncio.gather(*(gateway.get("/v1/models", key=key) for _ in range(times))))


async def statuses(gateway: Gateway, key: str) -> set[int]:
    return {answer.status for answer in await asked(gateway, key)}


@live
async def test_a_key_that_was_refused_is_good_within_two_seconds_of_being_made(gateway: Gateway) -> None:
    row, secret = await minted(gateway, 1)
    assert await statuses(gateway, secret) == {401}
    await put(gateway, row)
    await settles(gateway, secret, 200, within_s=VANISHES_S)


@live
async def test_a_key_that_both_workers_use_is_refused_within_two_seconds_of_its_end(gateway: Gateway) -> None:
    secret, key = await created(gateway)
    assert await statuses(gateway, secret) == {200}
    assert (await gateway.admin("DELETE", f"/admin/v1/keys/{key}")).status == 204
    await settles(gateway, secret, 401, within_s=VANISHES_S)


@live
async def test_a_key_ends_by_itself(gateway: Gateway) -> None:
    secret, _ = await created(gateway, expires_in_s=1.0)
    assert await statuses(gateway, secret) == {200}
    await settles(gateway, secret, 401, within_s=1.1)


@live
async def test_a_request_with_a_key_nobody_has_seen_is_served(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        secrets = [(await created(gateway, tenant=f"tenant-{number}"))[0] for number in range(6)]

        async def ask(secret: str, *, stream: bool) -> Answer:
            async with fleet.talk() as talk:
                talk.send(request(fleet.body(stream=stream), key=secret))
                return await talk.answer()

        answers = await asyncio.gather(*(ask(secret, stream=number % 2 == 1) for number, secret in enumerate(secrets)))
        assert {answer.status for answer in answers} == {200}
        records = [await gateway.record(answer.headers["x-request-id"]) for answer in answers]
        assert [record["tenant"] for record in records] == [f"tenant-{number}" for number in range(6)]


@live
async def test_without_its_store_a_gateway_goes_on_for_those_it_knows(gateway: Gateway) -> None:
    secret, _ = await created(gateway)
    stranger, _ = await created(gateway)
    row, future = await minted(gateway, 2)
    assert await statuses(gateway, secret) == {200}
    database = gateway.home / "spillway.db"
    database.rename(gateway.home / "away")
    try:
        await asyncio.to_thread(gateway.process.wait_for, "changes of keys cannot be read")
        assert await statuses(gateway, secret) == {200}
        assert await statuses(gateway, KEY) == {200}
        assert await statuses(gateway, MADE_UP) == {401}
        for unseen in (stranger, future):
            for answer in await asked(gateway, unseen):
                assert (answer.status, answer.error["code"]) == (503, "unavailable")
                assert int(answer.headers["retry-after"]) >= 1
        async with Talk(gateway.port) as talk:
            talk.send(request({"model": "any", "messages": []}, key=stranger))
            answer = await talk.answer()
        assert (answer.status, answer.error["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        (gateway.home / "away").rename(database)
    await settles(gateway, stranger, 200, within_s=VANISHES_S)
    await settles(gateway, future, 401, within_s=VANISHES_S)
    await put(gateway, row)
    await settles(gateway, future, 200, within_s=VANISHES_S)


@live
async def test_tenants_are_suspended_and_freed_by_the_configuration(gateway: Gateway) -> None:
    secret, _ = await created(gateway, tenant="studio")
    assert await statuses(gateway, secret) == {200}
    suspended: Json = {"studio": {"suspended": True}, TENANT: {"organization": "acme"}}
    await gateway.configure({"tenants": suspended, "organizations": {"acme": {"suspended": True}}})
    await settles(gateway, secret, 403, within_s=VANISHES_S)
    for key in (secret, KEY):
        (answer, *_) = await asked(gateway, key)
        assert (answer.status, answer.error["code"]) == (403, "account_suspended")
    await gateway.configure({"tenants": {}, "organizations": {}})
    await settles(gateway, secret, 200, within_s=VANISHES_S)
    await settles(gateway, KEY, 200, within_s=VANISHES_S)


@live
async def test_a_key_is_good_only_where_it_may_come_from(gateway: Gateway) -> None:
    bound: Json = {"secret": "sk-bound-0123456789abcdef", "tenant": "bound", "networks": ["192.0.2.0/24"]}
    async with gateway.fleet(Site("here", BRISK), keys=[bound]) as fleet:

        async def ask(forwarded: str | None) -> Answer:
            headers = None if forwarded is None else {"x-forwarded-for": forwarded}
            async with fleet.talk() as talk:
                talk.send(request(fleet.body(), key=bound["secret"], headers=headers))
                return await talk.answer()

        for forwarded in (None, "192.0.2.7"):  # whoever says so himself is not believed
            answer = await ask(forwarded)
            assert (answer.status, answer.error["code"]) == (403, "address_not_allowed")
            assert "192" not in answer.error["message"]
        assert (await gateway.get("/v1/models", key=bound["secret"])).status == 403
        proxied = {**gateway.config["gateway"], "trusted_proxies": ["127.0.0.0/8"]}
        plain, gateway.config["gateway"] = gateway.config["gateway"], proxied
        await gateway.configure({})
        assert (await ask("203.0.113.1, 192.0.2.7")).status == 200
        assert (await ask("192.0.2.7, 203.0.113.1")).status == 403
        assert (await ask(None)).status == 403
        await gateway.configure({"gateway": plain})


@live
async def test_while_the_parent_does_not_answer_only_unseen_keys_are_told_to_come_back(gateway: Gateway) -> None:
    secret, _ = await created(gateway)
    stranger, _ = await created(gateway)
    assert await statuses(gateway, secret) == {200}
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        assert await statuses(gateway, secret) == {200}
        assert await statuses(gateway, MADE_UP) == {401}
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert await statuses(gateway, stranger) == {503}
        assert 0.5 <= loop.time() - begun < 2.0
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    await settles(gateway, stranger, 200, within_s=VANISHES_S)


@live
async def test_a_parent_killed_during_look_ups_leaves_nothing() -> None:
    with running({"workers": 2}, store=STORE) as one:
        secrets = [(await created(one))[0] for _ in range(20)]
        family = descendants(one.process.pid)
        os.kill(one.process.pid, signal.SIGSTOP)
        waiting = [asyncio.create_task(one.get("/v1/models", key=secret)) for secret in secrets]
        await asyncio.sleep(0)
        one.process.kill()
        await asyncio.to_thread(wait_gone, family)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert descendants(one.process.pid) == []
