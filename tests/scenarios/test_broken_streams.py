"""Stream cut, malformed chunk, no [DONE]: what is harmless is tolerated, what is not is never sold as a whole answer."""

import json

import pytest

from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import Gateway, Site, live
from tests.scenarios.sides import HOME_PRICE, TOKENS, cut, home, only, refused, scene, served, took

pytestmark = pytest.mark.server

STEADY = UpstreamSpec(inter_token_latency_s=0.02, output_tokens=1000)


@pytest.mark.parametrize("fault", ["cut:3", "reset_mid_stream:3", "error_event:3", "bad_framing:3"])
@live
async def test_a_stream_is_cut(gateway: Gateway, fault: str) -> None:
    sick = Site("east", STEADY, rules=(fault,), settings={"price": HOME_PRICE})
    async with scene(gateway, sick, home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        cut(fleet, answer, "east", tokens=range(1, 4))  # what broken bytes came with is not trusted
        words = len(answer.text.split())

        assert took(fleet, "east") == ["faulted 200"]
        assert took(fleet, "west") == []

        record = await books.recorded(answer, "cut", pool="east", attempts=1, spilled=False, completion_tokens=words)
        assert record["estimated"]  # nobody reported them
        assert record["cost_usd"] > 0
        await books.failures("east")  # the attempt had begun: its ending is counted, not an attempt that failed


@pytest.mark.parametrize("fault", ["cut:0", "reset_mid_stream:0", "error_event:0", "close_after_head"])
@live
async def test_a_stream_that_is_cut_before_its_first_token_is_replaced(gateway: Gateway, fault: str) -> None:
    async with scene(gateway, home(fault), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        served(fleet, answer, "west", attempts=2, spill="failed")
        assert took(fleet, "east") == ["faulted 200"]
        assert took(fleet, "west") == ["finished 200"]
        await books.recorded(answer, "ok", pool="west", attempts=2, spilled=True, completion_tokens=TOKENS)


@pytest.mark.parametrize("fault", ["cut", "reset_mid_stream", "bad_framing", "malformed_chunk", "error_event"])
@live
async def test_a_whole_answer_that_is_cut_or_no_json_is_replaced(gateway: Gateway, fault: str) -> None:
    """The client has nothing of it yet."""
    async with scene(gateway, home(fault), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask()
        served(fleet, answer, "west", attempts=2, spill="failed")
        assert len(took(fleet, "east")) == len(took(fleet, "west")) == 1
        used = {"prompt_tokens": only(fleet, "west").prompt_tokens, "completion_tokens": TOKENS}
        await books.recorded(answer, "ok", pool="west", attempts=2, spilled=True, estimated=False, **used)


@live
async def test_whole_answers_that_are_cut_everywhere_end_in_502(gateway: Gateway) -> None:
    async with scene(gateway, home("cut"), home("malformed_chunk", name="west"), home("reset", name="north")) as books:
        fleet = books.fleet
        answer = await fleet.ask()
        refused(fleet, answer, 502, "upstream_error", "north", attempts=3, spill="failed")
        assert [len(took(fleet, site)) for site in fleet.sites] == [1, 1, 1]
        await books.recorded(answer, "upstream_error", pool="north", attempts=3, completion_tokens=0)


@live
async def test_cut_streams_open_the_breaker(gateway: Gateway) -> None:
    """A cut is a fault of the endpoint although the answer had begun."""
    rules = {"breaker": {"failures": 3, "open_s": 30.0}}
    async with scene(gateway, home("cut:3"), home(name="west"), rules=rules) as books:
        fleet = books.fleet
        broken = [await fleet.ask(stream=True) for _ in range(3)]
        after = await fleet.ask(stream=True)
        for answer in broken:
            cut(fleet, answer, "east", tokens=range(3, 4))
            await books.recorded(answer, "cut", pool="east", attempts=1)
        served(fleet, after, "west", attempts=1, spill="unhealthy")
        assert len(took(fleet, "east")) == 3
        await books.recorded(after, "ok", pool="west", attempts=1, spilled=True)
        await fleet.shows("east", "breaker", "open")


@live
async def test_one_malformed_chunk_is_left_out(gateway: Gateway) -> None:
    async with scene(gateway, home("malformed_chunk:3"), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        served(fleet, answer, "east", attempts=1, spill=None)
        for event in answer.events[:-1]:
            json.loads(event)  # raises for what a client could not read
        assert took(fleet, "east") == ["finished 200"]
        assert took(fleet, "west") == []
        used = {"prompt_tokens": only(fleet, "east").prompt_tokens, "completion_tokens": TOKENS}
        await books.recorded(answer, "ok", pool="east", attempts=1, estimated=False, **used)
        await fleet.shows("east", "breaker", "closed")


@live
async def test_no_done(gateway: Gateway) -> None:
    """The finish reason says that the answer is complete; the client gets the [DONE] that its library waits for."""
    async with scene(gateway, home("no_done"), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        served(fleet, answer, "east", attempts=1, spill=None)
        assert took(fleet, "east") == ["finished 200"]
        assert took(fleet, "west") == []
        used = {"prompt_tokens": only(fleet, "east").prompt_tokens, "completion_tokens": TOKENS}
        await books.recorded(answer, "ok", pool="east", attempts=1, estimated=False, **used)
        await fleet.shows("east", "breaker", "closed")
