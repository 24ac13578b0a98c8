"""A pool of two endpoints of which one is sick: the other serves, in the same pool, and nothing spills."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from spillway.testing.seen import Ending
from spillway.testing.upstream import UpstreamDouble
from tests.e2e.gateway import Gateway, live
from tests.e2e.talking import Answer
from tests.scenarios.sides import SHORT, TOKENS, Books, cut, home, scene, served

pytestmark = pytest.mark.server

MOST_ASKED = 40  # each is sent to either at even odds


class Pair:
    """`answers`: of all that were asked for, in order."""

    def __init__(self, books: Books, sick: UpstreamDouble, well: UpstreamDouble) -> None:
        self.books = books
        self.sick = sick
        self.well = well
        self.answers: list[Answer] = []

    async def ask_until_the_sick_one_is_met(self, *, stream: bool) -> Answer:
        before = self.sick.log.arrived
        while self.sick.log.arrived == before:
            assert len(self.answers) < MOST_ASKED, "never sent to the sick endpoint"
            self.answers.append(await self.books.fleet.ask(stream=stream))
        return self.answers[-1]


@contextlib.asynccontextmanager
async def pair(gateway: Gateway, *faults: str, **options: Any) -> AsyncGenerator[Pair]:
    async with UpstreamDouble(SHORT) as sick, UpstreamDouble(SHORT) as well:
        sick.misbehave(*faults)
        async with scene(gateway, home(endpoints=[sick.url, well.url]), **options) as books:
            yield Pair(books, sick, well)
        await sick.quiet()
        await well.quiet()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("fault", "counted"), [("500", "server_error"), ("reset", "reset"), ("429", "overloaded")])
@live
async def test_the_other_takes_over(gateway: Gateway, fault: str, counted: str, stream: bool) -> None:
    async with pair(gateway, fault) as two:
        fleet = two.books.fleet
        met = await two.ask_until_the_sick_one_is_met(stream=stream)
        for answer in two.answers:
            attempts = 2 if answer is met else 1
            served(fleet, answer, "east", attempts=attempts, spill=None)
            await two.books.recorded(answer, "ok", pool="east", attempts=attempts, spilled=False)
        assert [seen.ending for seen in two.sick.log.requests] == [Ending.FAULTED]
        assert [seen.ending for seen in two.well.log.requests] == [Ending.FINISHED] * len(two.answers)
        await two.books.failures("east", **{counted: 1})


@pytest.mark.parametrize("fault", ["stall:0", "no_response"])
@live
async def test_silence_before_the_first_token_is_failed_over(gateway: Gateway, fault: str) -> None:
    async with pair(gateway, fault) as two:
        met = await two.ask_until_the_sick_one_is_met(stream=True)
        served(two.books.fleet, met, "east", attempts=2, spill=None)
        for answer in two.answers:
            await two.books.recorded(answer, "ok", pool="east", completion_tokens=TOKENS, spilled=False)
        assert [seen.ending for seen in two.sick.log.requests] == [Ending.LEFT]
        assert (
            met.headers["x-request-id"] == two.sick.log.requests[0].request_id == two.well.log.requests[-1].request_id
        )
        await two.books.failures("east", timeout=1)


@live
async def test_silence_in_mid_stream_is_an_error_in_band(gateway: Gateway) -> None:
    async with pair(gateway, "stall:3") as two:
        met = await two.ask_until_the_sick_one_is_met(stream=True)
        cut(two.books.fleet, met, "east", tokens=range(3, 4))
        for answer in two.answers[:-1]:
            await two.books.recorded(answer, "ok", pool="east", attempts=1)
        await two.books.recorded(met, "cut", pool="east", attempts=1, completion_tokens=3, estimated=True)
        assert [seen.ending for seen in two.sick.log.requests] == [Ending.LEFT]
        assert len(two.well.log.requests) == len(two.answers) - 1


@live
async def test_a_sick_endpoint_is_left_out_and_its_twin_carries_the_pool(gateway: Gateway) -> None:
    """Its breaker opens after three faults; then nothing is sent there and nothing spills. A pool shows its worst breaker."""
    async with pair(gateway, "500", rules={"breaker": {"failures": 3, "open_s": 30.0}}) as two:
        for _ in range(3):
            await two.ask_until_the_sick_one_is_met(stream=False)
        status = await two.books.fleet.shows("east", "breaker", "open")
        breakers = {endpoint["url"]: endpoint["breaker"] for endpoint in status["endpoints"]}
        assert breakers == {two.sick.url: "open", two.well.url: "closed"}
        for _ in range(10):
            answer = await two.books.fleet.ask()
            two.answers.append(answer)
            served(two.books.fleet, answer, "east", attempts=1, spill=None)
        assert two.sick.log.arrived == 3
        assert two.well.log.arrived == len(two.answers)
        for answer in two.answers:
            await two.books.recorded(answer, "ok", pool="east", spilled=False, completion_tokens=TOKENS)
        await two.books.failures("east", server_error=3)
