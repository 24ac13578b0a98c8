"""Everything fails at once: how many attempts the upstreams get is bounded by the budget of each pool, and then by breakers."""

import asyncio
from collections import Counter

import pytest

from spillway.testing.seen import Ending
from tests.e2e.gateway import Fleet, Gateway, live
from tests.e2e.talking import Answer
from tests.scenarios.sides import home, scene

pytestmark = pytest.mark.server

REQUESTS, CLIENTS = 200, 20
FLOOR, SHARE = 5, 0.1
NO_BREAKER = {"failures": 1_000_000, "min_samples": 1_000_000}
OUTCOMES = {429: {"refused", "evicted"}, 502: {"upstream_error"}, 503: {"unavailable"}}
BUDGET = {"budget_floor": FLOOR, "budget_share": SHARE, "window_s": 600.0}


async def storm(fleet: Fleet) -> list[Answer]:
    """`REQUESTS` requests by `CLIENTS` clients, whole and streamed in turn."""

    async def client(number: int) -> list[Answer]:
        return [await fleet.ask(stream=(number + turn) % 2 == 1) for turn in range(REQUESTS // CLIENTS)]

    return [answer for part in await asyncio.gather(*map(client, range(CLIENTS))) for answer in part]


@pytest.mark.parametrize("fault", ["500", "reset"])
@live
async def test_retries_are_within_the_budget_of_each_pool(gateway: Gateway, fault: str) -> None:
    rules = {"retries": BUDGET, "breaker": NO_BREAKER}
    async with scene(gateway, home(fault), home(fault, name="west"), rules=rules) as books:
        fleet = books.fleet
        answers = await storm(fleet)
        for answer in answers:
            assert (answer.status, answer.error["code"]) == (502, "upstream_error")
            assert answer.headers["x-should-retry"] == "false"

        arrived = fleet["east"].log.arrived + fleet["west"].log.arrived
        retries = arrived - REQUESTS
        assert 0 < retries <= FLOOR + SHARE * REQUESTS + FLOOR  # east's, for all began there, and west's floor
        assert sum(int(answer.headers["x-spillway-attempts"]) for answer in answers) == arrived
        assert Counter(fleet["east"].log.endings) + fleet["west"].log.endings == {Ending.FAULTED: arrived}

        tried_most = next(answer for answer in answers if answer.headers["x-spillway-attempts"] == "2")
        attempts = int(tried_most.headers["x-spillway-attempts"])
        await books.recorded(tried_most, "upstream_error", pool="west", attempts=attempts, completion_tokens=0)
        books.outcomes["upstream_error"] += REQUESTS - 1  # the metrics count them all
        for site in fleet.sites:
            counted = {"500": "server_error", "reset": "reset"}[fault]
            await books.failures(site, **{counted: fleet[site].log.arrived})


@live
async def test_breakers_end_a_storm(gateway: Gateway) -> None:
    """With the usual rules both breakers leave CLOSED within milliseconds; what comes then waits, is turned away with a
    time, or is the one trial. Those attempts are far fewer than the requests."""
    rules = {"priorities": {"interactive": {"max_wait_s": 0.3}}}
    async with scene(gateway, home("500"), home("500", name="west"), rules=rules) as books:
        fleet = books.fleet
        answers = await storm(fleet)
        statuses = Counter(answer.status for answer in answers)
        assert statuses.keys() <= {429, 502, 503}, statuses
        assert all("retry-after" in answer.headers for answer in answers if answer.status == 429)
        arrived = fleet["east"].log.arrived + fleet["west"].log.arrived
        assert arrived < REQUESTS / 2
        states = {(await fleet.pool_status(site) or {})["breaker"] for site in fleet.sites}
        assert "closed" not in states
        for answer in answers:
            record = await gateway.record(answer.headers["x-request-id"])
            assert record["outcome"] in OUTCOMES[answer.status]
            assert record["attempts"] == int(answer.headers.get("x-spillway-attempts", 0))
            books.outcomes[record["outcome"]] += 1
