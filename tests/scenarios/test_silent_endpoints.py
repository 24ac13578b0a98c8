"""No response, a slow first token, a stall: silence has its time, and what comes after depends on what the client has already."""

import pytest

from tests.e2e.gateway import Gateway, live
from tests.scenarios.sides import TOKENS, cut, home, only, refused, scene, served, took

pytestmark = pytest.mark.server


@pytest.mark.parametrize("fault", ["no_response", "slow_first_token:5", "stall:0"])
@live
async def test_a_stream_without_a_first_token_is_tried_elsewhere(gateway: Gateway, fault: str) -> None:
    async with scene(gateway, home(fault), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        served(fleet, answer, "west", attempts=2, spill="failed")
        assert answer.body.count(b'"role"') == 1

        silent = only(fleet, "east")
        await fleet["east"].quiet(deadline_s=1.0)  # cancelled: it must not generate for nobody
        assert took(fleet, "east") == [f"left {silent.status}"]
        assert silent.ended_s is not None
        assert 0.3 <= silent.ended_s - silent.arrived_s < 1.5
        assert took(fleet, "west") == ["finished 200"]

        record = await books.recorded(answer, "ok", pool="west", attempts=2, spilled=True, completion_tokens=TOKENS)
        assert record["ttft_s"] >= 0.4
        await books.failures("east", timeout=1)


@pytest.mark.parametrize("fault", ["no_response", "slow_first_token:5"])
@live
async def test_a_whole_answer_that_takes_too_long_is_not_asked_for_again(gateway: Gateway, fault: str) -> None:
    """It may have been worked on all the time: another engine would take as long."""
    async with scene(gateway, home(fault), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask()
        refused(fleet, answer, 504, "upstream_timeout", "east", attempts=1, spill=None)
        await fleet["east"].quiet(deadline_s=1.0)
        assert took(fleet, "east") == ["left 0"]
        assert took(fleet, "west") == []
        record = await books.recorded(
            answer, "upstream_timeout", pool="east", attempts=1, completion_tokens=0, estimated=True
        )
        assert 0.6 <= record["duration_s"] < 2.0


@live
async def test_a_slow_first_token_that_is_in_time_is_waited_for(gateway: Gateway) -> None:
    async with scene(gateway, home("slow_first_token:0.2"), home(name="west")) as books:
        fleet = books.fleet
        for stream in (False, True):
            answer = await fleet.ask(stream=stream)
            served(fleet, answer, "east", attempts=1, spill=None)
            record = await books.recorded(answer, "ok", pool="east", attempts=1, completion_tokens=TOKENS)
            assert (record["ttft_s"] or record["duration_s"]) >= 0.19
        assert took(fleet, "east") == ["finished 200"] * 2
        assert took(fleet, "west") == []


@live
async def test_silence_everywhere_ends_in_504(gateway: Gateway) -> None:
    async with scene(gateway, home("no_response"), home("no_response", name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        refused(fleet, answer, 504, "upstream_timeout", "east", attempts=3, spill=None)
        await fleet["east"].quiet(deadline_s=1.0)
        assert took(fleet, "east") == ["left 0"] * 2
        assert took(fleet, "west") == ["left 0"]
        await books.recorded(answer, "upstream_timeout", pool="east", attempts=3, completion_tokens=0)


@live
async def test_a_stream_that_stalls_is_cut(gateway: Gateway) -> None:
    """Nothing else may go on with it: the client has a part already."""
    async with scene(gateway, home("stall:3"), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        cut(fleet, answer, "east", tokens=range(3, 4))
        await fleet["east"].quiet(deadline_s=1.0)
        assert took(fleet, "east") == ["left 200"]
        assert only(fleet, "east").sent_tokens == 3
        assert took(fleet, "west") == []
        record = await books.recorded(answer, "cut", pool="east", attempts=1, completion_tokens=3, estimated=True)
        assert 0.4 <= record["duration_s"] < 1.5
        assert record["cost_usd"] > 0  # what was generated is billed


@live
async def test_a_stream_that_pauses_shorter_than_that_goes_on(gateway: Gateway) -> None:
    pauses = "stall:after_tokens=3,delay_s=0.2"
    async with scene(gateway, home(pauses), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=True)
        served(fleet, answer, "east", attempts=1, spill=None)
        assert took(fleet, "east") == ["finished 200"]
        record = await books.recorded(answer, "ok", pool="east", completion_tokens=TOKENS, estimated=False)
        assert record["duration_s"] >= 0.19


@live
async def test_a_whole_answer_that_stalls_in_its_middle_is_tried_elsewhere(gateway: Gateway) -> None:
    """The client has nothing of it yet, and an engine that went silent while it answered is no slow engine."""
    async with scene(gateway, home("stall"), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask()
        served(fleet, answer, "west", attempts=2, spill="failed")
        await fleet["east"].quiet(deadline_s=1.0)
        assert took(fleet, "east") == ["left 200"]
        await books.recorded(answer, "ok", pool="west", attempts=2, spilled=True, completion_tokens=TOKENS)
        await books.failures("east", timeout=1)
