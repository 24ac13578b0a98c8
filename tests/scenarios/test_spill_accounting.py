"""What a spill target used: its own count of tokens, at its own price, in the name of its pool, with the attempts before it."""

import math

import pytest

from spillway.testing.seen import Ending
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import TENANT, Gateway, Site, live
from tests.e2e.talking import Json
from tests.scenarios.sides import (
    HOME_PRICE,
    HOSTED,
    HOSTED_NAME,
    HOSTED_PRICE,
    Books,
    cost_usd,
    cut,
    home,
    hosted,
    only,
    scene,
    served,
    took,
)

pytestmark = pytest.mark.server

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
TOKENS = HOSTED.output_tokens


@BOTH
@pytest.mark.parametrize(("fault", "counted"), [("500", "server_error"), ("503:retry_after_s=0.1", "overloaded"), ("reset", "reset")])  # fmt: skip
@live
async def test_after_an_attempt_at_home(gateway: Gateway, fault: str, counted: str, stream: bool) -> None:
    async with scene(gateway, home(fault), hosted()) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=stream)
        served(fleet, answer, "hosted", attempts=2, spill="failed", tokens=TOKENS)
        assert answer.headers["x-spillway-version"] == HOSTED_NAME

        assert len(took(fleet, "east")) == 1
        there = only(fleet, "hosted")
        assert (there.model, there.ending, there.sent_tokens) == (HOSTED_NAME, Ending.FINISHED, TOKENS)

        record = await books.recorded(answer, "ok", pool="hosted", attempts=2, spilled=True, streamed=stream)
        assert (record["tenant"], record["version"]) == (TENANT, HOSTED_NAME)
        await costs_as_there(books, record)
        await books.failures("east", **{counted: 1})


async def costs_as_there(books: Books, record: Json) -> None:
    """The record, the metrics and the hour say what the provider counted, at its price; home says nothing."""
    fleet, gateway = books.fleet, books.fleet.gateway
    used = only(fleet, "hosted").prompt_tokens, TOKENS
    assert (record["prompt_tokens"], record["completion_tokens"], record["estimated"]) == (*used, False)
    usd = cost_usd(HOSTED_PRICE, *used)
    assert math.isclose(record["cost_usd"], usd)

    pool = fleet.pool("hosted")
    await gateway.counts(used[0], "spillway_tokens_total", pool=pool, kind="prompt")
    await gateway.counts(used[1], "spillway_tokens_total", pool=pool, kind="completion")
    assert math.isclose(await gateway.metric("spillway_cost_usd_total", pool=pool), usd)
    assert await gateway.metric("spillway_tokens_total", pool=fleet.pool("east")) == 0
    [hour] = await hours_of(books)
    assert (hour["pool"], hour["requests"], hour["spilled"]) == (pool, 1, 1)
    assert math.isclose(hour["cost_usd"], usd)


async def hours_of(books: Books) -> list[Json]:
    answer = await books.fleet.gateway.admin("GET", "/admin/v1/usage?by=pool&limit=1000")
    return [hour for hour in answer.json["hours"] if hour["model"] == books.fleet.model]


@BOTH
@live
async def test_after_two_attempts_at_home(gateway: Gateway, stream: bool) -> None:
    async with scene(gateway, home("reset"), home("500", name="west"), hosted()) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=stream)
        served(fleet, answer, "hosted", attempts=3, spill="failed", tokens=TOKENS)
        assert [len(took(fleet, site)) for site in fleet.sites] == [1, 1, 1]
        record = await books.recorded(answer, "ok", pool="hosted", attempts=3, spilled=True)
        await costs_as_there(books, record)


@BOTH
@live
async def test_where_home_is_full(gateway: Gateway, stream: bool) -> None:
    full = Site("east", limit=1, rules=("no_response",), settings={"price": HOME_PRICE})
    async with scene(gateway, full, hosted()) as books:
        fleet = books.fleet
        async with fleet.talk() as holding:
            holding.send(fleet.request())
            await fleet.arrived("east", 1)
            answer = await fleet.ask(stream=stream)
        served(fleet, answer, "hosted", attempts=1, spill="saturated", tokens=TOKENS)
        record = await books.recorded(answer, "ok", pool="hosted", attempts=1, spilled=True)
        books.outcomes["client_left"] += 1  # who held the slot
        assert math.isclose(record["cost_usd"], cost_usd(HOSTED_PRICE, only(fleet, "hosted").prompt_tokens, TOKENS))
        spilled = {"from": fleet.pool("east"), "to": fleet.pool("hosted"), "reason": "saturated"}
        await gateway.counts(1, "spillway_spilled_total", model=fleet.model, **spilled)


@BOTH
@live
async def test_a_target_that_does_not_say_what_it_used(gateway: Gateway, stream: bool) -> None:
    """Then we count what came by, and the record says so."""
    async with scene(gateway, home("500"), hosted("no_usage")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=stream)
        served(fleet, answer, "hosted", attempts=2, spill="failed", tokens=TOKENS)
        record = await books.recorded(answer, "ok", pool="hosted", attempts=2, estimated=True)
        if stream:
            assert record["completion_tokens"] == pytest.approx(TOKENS, abs=1)  # an event is a token
        else:
            assert TOKENS / 3 <= record["completion_tokens"] <= TOKENS * 3  # by its bytes
        assert math.isclose(
            record["cost_usd"], cost_usd(HOSTED_PRICE, record["prompt_tokens"], record["completion_tokens"])
        )


@live
async def test_a_target_whose_stream_is_cut(gateway: Gateway) -> None:
    async with scene(gateway, home("500"), hosted("cut:5")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        cut(fleet, answer, "hosted", tokens=range(5, 6), attempts=2, spill="failed")
        assert only(fleet, "hosted").sent_tokens == 5
        record = await books.recorded(answer, "cut", pool="hosted", attempts=2, completion_tokens=5, estimated=True)
        assert math.isclose(record["cost_usd"], cost_usd(HOSTED_PRICE, record["prompt_tokens"], 5))


@live
async def test_a_client_that_leaves_a_target(gateway: Gateway) -> None:
    """The provider is cancelled, and what it generated until then is billed at its price."""
    endless = UpstreamSpec(models=(HOSTED_NAME,), inter_token_latency_s=0.02, output_tokens=1000)
    there = Site("hosted", endless, settings={"provider": "openai", "price": HOSTED_PRICE})
    async with scene(gateway, home("500"), there) as books:
        fleet = books.fleet
        async with fleet.talk() as talk:
            talk.send(fleet.request(stream=True))
            head = await talk.head()
            await talk.until(b'"content"')
            talk.leave()
        await fleet["hosted"].quiet(deadline_s=1.0)
        assert took(fleet, "hosted") == ["left 200"]
        record = await books.recorded(head, "client_left", pool="hosted", attempts=2, estimated=True)
        assert 1 <= record["completion_tokens"] <= only(fleet, "hosted").generated_tokens < 1000
        assert math.isclose(
            record["cost_usd"], cost_usd(HOSTED_PRICE, record["prompt_tokens"], record["completion_tokens"])
        )
