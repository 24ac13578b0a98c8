"""Limits of tenants, counted at the upstream: two workers share them, and one of them may die."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from spillway.testing.processes import descendants
from spillway.testing.seen import Seen
from spillway.testing.spec import UpstreamSpec
from spillway.testing.windows import excess
from tests.e2e.gateway import Fleet, Gateway, Site, live, running
from tests.e2e.talking import Answer, Json, Talk, request

pytestmark = pytest.mark.server

OUTPUT = 20
QUICK = UpstreamSpec(time_to_first_token_s=0.002, output_tokens=OUTPUT)
PRICE = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0}
TOKENS_PER_MINUTE = 30_000
QUOTAS: Json = {
    "tokens": {"quota": {"tokens_per_minute": TOKENS_PER_MINUTE}},
    "requests": {"quota": {"requests_per_minute": 12, "tokens_per_minute": 60_000}},
    "steady": {"quota": {"requests_per_minute": 1200}},
    "running": {"quota": {"in_flight": 3}},
    "dollars": {"quota": {"usd_per_day": 50 * OUTPUT / 1000}},
    "member": {"organization": "studio"},
    "stopped": {"quota": {"requests_per_day": 1000}},
}
SECTIONS: Json = {
    "tenants": QUOTAS,
    "organizations": {"studio": {"quota": {"models": {}, "requests_per_day": 5}}},
}


def key_of(tenant: str) -> str:
    return f"sk-quota-{tenant}-0123456789"


KEYS: list[Json] = [{"secret": key_of(tenant), "tenant": tenant} for tenant in QUOTAS]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({"workers": 2}, shared={"times": {"wait_s": 1.0}}, **SECTIONS) as started:
        yield started


def site(spec: UpstreamSpec = QUICK) -> Site:
    return Site("east", spec, limit=400, settings={"price": PRICE})


async def ask(fleet: Fleet, tenant: str, **fields: object) -> Answer:
    async with fleet.talk() as talk:
        return await ask_on(talk, fleet, tenant, **fields)


async def ask_on(talk: Talk, fleet: Fleet, tenant: str, **fields: object) -> Answer:
    talk.send(request(fleet.body(max_tokens=OUTPUT, **fields), key=key_of(tenant)))
    return await talk.answer()


async def crowd(fleet: Fleet, tenant: str, clients: int, seconds: float) -> list[int]:
    """Statuses of all that so many clients asked, each on a connection of its own, one request after the other."""
    loop = asyncio.get_running_loop()
    until, statuses = loop.time() + seconds, list[int]()

    async def client() -> None:
        while loop.time() < until:
            try:
                async with fleet.talk() as talk:
                    while loop.time() < until:
                        statuses.append((await ask_on(talk, fleet, tenant)).status)
            except (OSError, AssertionError):  # the worker was killed
                statuses.append(0)

    await asyncio.gather(*(client() for _ in range(clients)))
    return statuses


def tokens(seen: list[Seen]) -> list[tuple[float, int]]:
    return [(one.arrived_s, one.prompt_tokens + one.sent_tokens) for one in seen]


@pytest.mark.parametrize("killed", [False, True], ids=["alive", "killed"])
@live
async def test_tokens_a_minute_are_within_the_bound_in_every_window(gateway: Gateway, killed: bool) -> None:
    async with gateway.fleet(site(), keys=KEYS) as fleet:
        asking = asyncio.create_task(crowd(fleet, "tokens", 32, 6.0))
        if killed:
            await fleet.arrived("east", 60)
            os.kill(descendants(gateway.process.pid)[0], signal.SIGKILL)
        statuses = await asking
        await fleet["east"].quiet()
        served = tokens(fleet["east"].log.requests)
        largest = max(amount for _, amount in served)
        assert excess(served, TOKENS_PER_MINUTE / 60) <= TOKENS_PER_MINUTE / 6 + largest
        assert set(statuses) <= {200, 429, 503, 0}
        assert killed or statuses.count(503) <= len(statuses) // 100  # a machine that stalls is cut off for a moment
        total = sum(amount for _, amount in served)
        assert total >= (0.3 if killed else 0.8) * (TOKENS_PER_MINUTE / 60) * 6.0  # and it is not strangled


@live
async def test_nobody_is_refused_under_ninety_percent_of_the_limit(gateway: Gateway) -> None:
    async with gateway.fleet(site(), keys=KEYS) as fleet:
        loop = asyncio.get_running_loop()
        begin, statuses = loop.time(), list[int]()
        async with asyncio.TaskGroup() as tasks:

            async def one(number: int) -> None:
                await asyncio.sleep(
                    begin + number / 18.0 - loop.time()
                )  # a schedule, not a wait: 20 a second is the limit
                statuses.append((await ask(fleet, "steady")).status)

            for number in range(90):
                tasks.create_task(one(number))
        assert statuses == [200] * 90


@live
async def test_over_the_limit_the_client_hears_when_to_come_back(gateway: Gateway) -> None:
    async with gateway.fleet(site(), keys=KEYS) as fleet:
        answers = [await ask(fleet, "requests") for _ in range(4)]
        assert [answer.status for answer in answers[:2]] == [200, 200]
        last = answers[-1]
        assert last.status == 429
        assert last.error["type"] == "rate_limit_error"
        assert last.error["code"] == "rate_limit_exceeded"
        assert "12 requests per minute" in last.error["message"]
        assert 1 <= int(last.headers["retry-after"]) <= 7
        assert last.headers["x-ratelimit-limit-requests"] == "12"
        assert last.headers["x-ratelimit-remaining-requests"] == "0"
        first = answers[0].headers
        assert first["x-ratelimit-limit-tokens"] == "60000"
        assert 0 < int(first["x-ratelimit-remaining-tokens"]) <= 10_000
        await gateway.counts(
            sum(answer.status == 429 for answer in answers),
            "spillway_quota_refusals_total",
            unit="requests",
            why="used",
        )


@live
async def test_requests_at_once_are_never_more_than_the_limit(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=0.3, output_tokens=2)
    async with gateway.fleet(site(slow), keys=KEYS) as fleet:
        answers = await asyncio.gather(*(ask(fleet, "running") for _ in range(20)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 429}
        assert 1 <= statuses.count(200) <= 3


@live
async def test_a_budget_is_never_exceeded_by_two_hundred_at_once(gateway: Gateway) -> None:
    async with gateway.fleet(site(), keys=KEYS) as fleet:
        answers = await asyncio.gather(*(ask(fleet, "dollars") for _ in range(200)))
        served = [answer for answer in answers if answer.status == 200]
        assert {answer.status for answer in answers} == {200, 429}
        await fleet["east"].quiet()
        assert sum(seen.sent_tokens for seen in fleet["east"].log.requests) <= 50 * OUTPUT
        assert len(served) >= 45


@live
async def test_an_organization_s_day_holds_for_its_tenants(gateway: Gateway) -> None:
    async with gateway.fleet(site(), keys=KEYS) as fleet:
        statuses = [(await ask(fleet, "member")).status for _ in range(8)]
        assert statuses == [200] * 5 + [429] * 3


@live
async def test_another_plan_holds_as_soon_as_it_is_read(gateway: Gateway) -> None:
    async with gateway.fleet(site(), keys=KEYS) as fleet:
        assert (await ask(fleet, "stopped")).status == 200
        await gateway.configure({"tenants": {**QUOTAS, "stopped": {"quota": {"requests_per_day": 0}}}})
        async with asyncio.timeout(5.0):
            while (await ask(fleet, "stopped")).status != 429:
                pass
        assert [(await ask(fleet, "stopped")).status for _ in range(4)] == [429] * 4


def test_a_day_s_limit_is_kept_over_a_restart(tmp_path: Path) -> None:
    for life, expected in enumerate(([200] * 3, [200] * 2 + [429])):
        with running({"home": str(tmp_path / "home")}, **SECTIONS) as gateway:

            @live
            async def asks(gateway: Gateway = gateway, expected: list[int] = expected, life: int = life) -> None:
                async with gateway.fleet(site(), keys=KEYS) as fleet:
                    assert [(await ask(fleet, "member")).status for _ in range(3)] == expected, life

            asks()
