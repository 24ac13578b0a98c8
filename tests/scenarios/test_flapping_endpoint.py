"""An endpoint that flaps for a minute, here 3 s: its breaker opens, probes and closes, and no client notices.

All times are a twentieth of the real ones: a period of 10 s of which 5 s are down, a breaker that stays open for 2 s.
"""

import asyncio
from collections import Counter

import pytest

from spillway.testing.seen import Ending
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from tests.e2e.gateway import Fleet, Gateway, Site, live
from tests.e2e.talking import Answer
from tests.scenarios.sides import TOKENS, Books, scene, served

pytestmark = pytest.mark.server

FLAPS_S, PERIOD_S = 3.0, 0.5
FLAPS = f"flap:period_s={PERIOD_S},down_s={PERIOD_S / 2}@0-{FLAPS_S}"
TWENTIETH = {"breaker": {"failures": 3, "open_s": 0.1, "max_open_s": 1.5, "trial_gap_s": 0.02}}
BRISK = UpstreamSpec(time_to_first_token_s=0.02, output_tokens=TOKENS)
CLIENTS = 3
MOST_IN_A_DOWN_PHASE = 3 + CLIENTS - 1 + 3
"""Faults: those that open the breaker, what is on its way then, and trials after 0.1 s and later."""


async def ask_while(fleet: Fleet, double: UpstreamDouble, until_s: float) -> list[Answer]:
    """One client after the other until the upstream's clock says `until_s`, whole and streamed in turn."""
    answers: list[Answer] = []
    while double.engine.now() < until_s:
        answers.append(await fleet.ask(stream=len(answers) % 2 == 1))
    return answers


async def crowd_during_the_flaps(fleet: Fleet) -> list[Answer]:
    east = fleet["east"]
    until_s = east.engine.now() + FLAPS_S
    east.misbehave(FLAPS)
    clients = [ask_while(fleet, east, until_s) for _ in range(CLIENTS)]
    return [answer for answers in await asyncio.gather(*clients) for answer in answers]


async def ask_until_east_is_back(fleet: Fleet) -> list[Answer]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 8.0
    answers = [await fleet.ask()]
    while answers[-1].headers["x-spillway-pool"] != fleet.pool("east"):
        assert loop.time() < deadline, "east never came back"
        answers.append(await fleet.ask())
    return answers


async def changes(books: Books, state: str) -> float:
    pool = books.fleet.pool("east")
    return await books.fleet.gateway.metric("spillway_breaker_changes_total", pool=pool, state=state)


@live
async def test_one_of_two_flaps(gateway: Gateway) -> None:
    async with scene(gateway, Site("east", BRISK), Site("west", BRISK), rules=TWENTIETH) as books:
        fleet = books.fleet
        answers = await crowd_during_the_flaps(fleet)
        answers += await ask_until_east_is_back(fleet)
        reasons = Counter(answer.headers.get("x-spillway-spill") for answer in answers)
        for answer in answers:
            spill = answer.headers.get("x-spillway-spill")
            site = "east" if spill is None else "west"
            served(fleet, answer, site, attempts=2 if spill == "failed" else 1, spill=spill)
        assert reasons.keys() >= {None, "failed", "unhealthy"}, reasons
        assert reasons["failed"] < reasons["unhealthy"], "the breaker spared few"

        endings = Counter(seen.ending for seen in fleet["east"].log.requests)
        assert endings == {Ending.FAULTED: reasons["failed"], Ending.FINISHED: reasons[None]}
        assert 3 <= endings[Ending.FAULTED] <= MOST_IN_A_DOWN_PHASE * FLAPS_S / PERIOD_S
        assert fleet["west"].log.arrived == reasons["failed"] + reasons["unhealthy"] + reasons["saturated"]

        for answer in answers[-3:]:
            site = "west" if "x-spillway-spill" in answer.headers else "east"
            await books.recorded(answer, "ok", pool=site, completion_tokens=TOKENS)
        books.outcomes["ok"] += len(answers) - 3  # the metrics count them all
        await books.failures("east", server_error=reasons["failed"])
        await fleet.shows("east", "breaker", "closed")
        opened, probed, closed = [await changes(books, state) for state in ("open", "half_open", "closed")]
        assert opened == probed >= 2
        assert closed >= 2


@live
async def test_the_only_endpoint_flaps(gateway: Gateway) -> None:
    """It is never given up: while it is down one request at a time finds out, the others wait, and no cooldown outlasts it."""
    patient = TWENTIETH | {"priorities": {"interactive": {"max_wait_s": 5.0}}}
    async with scene(gateway, Site("east", BRISK), rules=patient) as books:
        fleet = books.fleet
        answers = await crowd_during_the_flaps(fleet)
        answers += await ask_until_east_is_back(fleet)
        statuses = Counter(answer.status for answer in answers)
        assert statuses.keys() <= {200, 502}, statuses
        assert statuses[200] > statuses[502]
        for answer in answers:
            if answer.status == 502:
                assert answer.error["code"] == "upstream_error"
                assert answer.headers["x-should-retry"] == "false"

        faulted = fleet["east"].log.endings[Ending.FAULTED]
        trials_a_phase = PERIOD_S / 2 / 0.02
        assert 3 <= faulted <= (3 + CLIENTS + trials_a_phase) * FLAPS_S / PERIOD_S
        assert fleet["east"].log.endings[Ending.FINISHED] == statuses[200]

        await books.recorded(answers[-1], "ok", pool="east", completion_tokens=TOKENS)
        books.outcomes.update({"ok": statuses[200] - 1, "upstream_error": statuses[502]})
        await books.failures("east", server_error=faulted)
        await fleet.shows("east", "breaker", "closed")
        assert await changes(books, "open") == 0
        assert await changes(books, "half_open") >= 1


@live
async def test_load_never_opens_a_breaker(gateway: Gateway) -> None:
    """The same flaps, but it says 503 and 429: it is spared while it asks for it, and no breaker moves."""
    full = [f"{status}:retry_after_s=0.1,share=0.5,period_s={PERIOD_S},down_s={PERIOD_S / 2}" for status in (503, 429)]
    async with scene(gateway, Site("east", BRISK), Site("west", BRISK), rules=TWENTIETH) as books:
        fleet = books.fleet
        east = fleet["east"]
        until_s = east.engine.now() + FLAPS_S / 2
        east.misbehave(*full)
        answers = await ask_while(fleet, east, until_s)
        east.behave()
        answers += await ask_until_east_is_back(fleet)
        assert {answer.status for answer in answers} == {200}
        faulted = east.log.endings[Ending.FAULTED]
        assert faulted >= 3
        assert faulted == sum(answer.headers["x-spillway-attempts"] == "2" for answer in answers)
        books.outcomes["ok"] += len(answers)
        await books.failures("east", overloaded=faulted)
        await fleet.shows("east", "breaker", "closed")
        assert [await changes(books, state) for state in ("open", "half_open", "closed")] == [0, 0, 0]
