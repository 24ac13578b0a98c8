"""429, 503 and 500: an endpoint that is full is left alone for as long as it asks; one that fails is replaced and remembered."""

import pytest

from tests.e2e.gateway import Gateway, live
from tests.scenarios.sides import SHORT, TOKENS, home, prompt_tokens, refused, scene, served, took

pytestmark = [pytest.mark.server, pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])]

IMPATIENT = {"priorities": {"interactive": {"max_wait_s": 0.5}}}


@live
async def test_429_with_retry_after(gateway: Gateway, stream: bool) -> None:
    async with scene(gateway, home("429:retry_after_s=1:count=1"), home(name="west")) as books:
        fleet = books.fleet
        first = await fleet.ask(stream=stream)
        second = await fleet.ask(stream=stream)
        served(fleet, first, "west", attempts=2, spill="failed")
        served(fleet, second, "west", attempts=1, spill="saturated")

        assert took(fleet, "east") == ["faulted 429"]
        assert took(fleet, "west") == ["finished 200"] * 2

        used = {"prompt_tokens": prompt_tokens(fleet, "west"), "completion_tokens": TOKENS, "estimated": False}
        await books.recorded(first, "ok", pool="west", attempts=2, spilled=True, **used)
        await books.recorded(second, "ok", pool="west", attempts=1, spilled=True, **used)
        await books.failures("east", overloaded=1)
        await fleet.shows("east", "breaker", "closed")


@live
async def test_persistent_429(gateway: Gateway, stream: bool) -> None:
    """Each upstream is asked once; who comes later is told the time without another attempt."""
    full = "429:retry_after_s=8"
    async with scene(gateway, home(full), home(full, name="west"), rules=IMPATIENT) as books:
        fleet = books.fleet
        first = await fleet.ask(stream=stream)
        later = [await fleet.ask(stream=stream) for _ in range(5)]
        refused(fleet, first, 429, "rate_limit_exceeded", "west", attempts=2, spill="failed")
        assert 7 <= int(first.headers["retry-after"]) <= 11
        for answer in later:
            assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
            assert 6 <= int(answer.headers["retry-after"]) <= 11
            assert "x-spillway-pool" not in answer.headers

        assert took(fleet, "east") == took(fleet, "west") == ["faulted 429"]

        await books.recorded(first, "refused", pool="west", attempts=2, completion_tokens=0, cost_usd=0.0)
        for answer in later:
            await books.recorded(answer, "refused", pool=None, attempts=0, completion_tokens=0, cost_usd=0.0)
        for site in ("east", "west"):
            await books.failures(site, overloaded=1)
            await fleet.shows(site, "breaker", "closed")


@live
async def test_one_500(gateway: Gateway, stream: bool) -> None:
    async with scene(gateway, home("500:count=1"), home(name="west")) as books:
        fleet = books.fleet
        first = await fleet.ask(stream=stream)
        second = await fleet.ask(stream=stream)
        served(fleet, first, "west", attempts=2, spill="failed")
        served(fleet, second, "east", attempts=1, spill=None)

        assert took(fleet, "east") == ["faulted 500", "finished 200"]
        assert took(fleet, "west") == ["finished 200"]

        await books.recorded(first, "ok", pool="west", attempts=2, spilled=True, completion_tokens=TOKENS)
        await books.recorded(second, "ok", pool="east", attempts=1, spilled=False, completion_tokens=TOKENS)
        await books.failures("east", server_error=1)
        await fleet.shows("east", "breaker", "closed")


@live
async def test_one_500_of_the_only_endpoint(gateway: Gateway, stream: bool) -> None:
    """There is no other: the second attempt is at the same endpoint."""
    async with scene(gateway, home("500:count=1")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=stream)
        served(fleet, answer, "east", attempts=2, spill=None)
        assert took(fleet, "east") == ["faulted 500", "finished 200"]
        await books.recorded(answer, "ok", pool="east", attempts=2, spilled=False, completion_tokens=TOKENS)
        await books.failures("east", server_error=1)


@live
async def test_persistent_503(gateway: Gateway, stream: bool) -> None:
    """Load, not a fault: however often it is said, no breaker opens. Without a retry-after an endpoint rests a second."""
    async with scene(gateway, home("503"), home("503", name="west"), rules=IMPATIENT) as books:
        fleet = books.fleet
        first = await fleet.ask(stream=stream)
        later = [await fleet.ask(stream=stream) for _ in range(5)]
        refused(fleet, first, 429, "rate_limit_exceeded", "west", attempts=2, spill="failed")
        assert all((answer.status, answer.error["code"]) == (429, "rate_limit_exceeded") for answer in later)
        assert all(1 <= int(answer.headers["retry-after"]) <= 2 for answer in later)

        assert took(fleet, "east") == took(fleet, "west") == ["faulted 503"]

        await books.recorded(first, "refused", pool="west", attempts=2, completion_tokens=0)
        for answer in later:
            await books.recorded(answer, "refused", pool=None, attempts=0, completion_tokens=0)
        for site in ("east", "west"):
            await books.failures(site, overloaded=1)
            await fleet.shows(site, "breaker", "closed")


@live
async def test_who_is_patient_is_served_when_a_503_is_over(gateway: Gateway, stream: bool) -> None:
    """The request keeps its place at the gateway while every endpoint rests."""
    async with scene(gateway, home("503:retry_after_s=0.3:count=1")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=stream)
        served(fleet, answer, "east", attempts=2, spill=None)
        assert took(fleet, "east") == ["faulted 503", "finished 200"]
        refusal, answered = fleet["east"].log.requests
        assert answered.arrived_s - refusal.arrived_s >= 0.29
        record = await books.recorded(answer, "ok", pool="east", attempts=2, completion_tokens=SHORT.output_tokens)
        assert record["duration_s"] >= 0.29
        await books.failures("east", overloaded=1)
        await fleet.shows("east", "breaker", "closed")


@live
async def test_tcp_reset(gateway: Gateway, stream: bool) -> None:
    async with scene(gateway, home("reset:count=3"), home(name="west"), rules={"breaker": {"open_s": 0.1}}) as books:
        fleet = books.fleet
        answers = [await fleet.ask(stream=stream) for _ in range(3)]
        for answer in answers:
            served(fleet, answer, "west", attempts=2, spill="failed")
        assert took(fleet, "east") == ["faulted 0"] * 3
        assert took(fleet, "west") == ["finished 200"] * 3
        for answer in answers:
            await books.recorded(answer, "ok", pool="west", attempts=2, spilled=True, completion_tokens=TOKENS)
        await books.failures("east", reset=3)
        pool = fleet.pool("east")
        await gateway.counts(1, "spillway_breaker_changes_total", pool=pool, state="open")


@live
async def test_tcp_reset_of_a_kept_alive_connection(gateway: Gateway, stream: bool) -> None:
    """No byte of an answer came on a connection that had served before: it may have been closed while the request was on its way.
    So the same endpoint gets it once more, on a new connection, within the same attempt."""
    async with scene(gateway, home(), home(name="west")) as books:
        fleet = books.fleet
        before = await fleet.ask(stream=stream)
        fleet["east"].misbehave("reset:count=1")
        answer = await fleet.ask(stream=stream)
        served(fleet, answer, "east", attempts=1, spill=None)
        assert took(fleet, "east") == ["finished 200", "faulted 0", "finished 200"]
        assert fleet["east"].log.repeated() == [answer.headers["x-request-id"]]
        assert took(fleet, "west") == []
        for each in (before, answer):
            await books.recorded(each, "ok", pool="east", attempts=1, completion_tokens=TOKENS)
        await books.failures("east")
        await fleet.shows("east", "breaker", "closed")
