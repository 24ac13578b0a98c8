"""Context too long, content filter, a shape that the spill target does not take: the client's error, at once, and once.

None of these is retried, carried to another pool, or held against the endpoint. What was too long here is too long there,
and what one provider filters must not silently be answered by another.
"""

import contextlib

import pytest

from tests.e2e.gateway import Gateway, live
from tests.scenarios.sides import HOSTED_NAME, SHORT, TOKENS, home, hosted, only, refused, scene, served, took

pytestmark = [pytest.mark.server, pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])]

CASES = [
    ("context_length_exceeded", "context_length_exceeded", "context_length_exceeded"),
    ("content_filter", "content_filter", "content_filtered"),
    ("reject_shape", "invalid_request", "upstream_rejected"),
]


@pytest.mark.parametrize(("fault", "code", "outcome"), CASES, ids=[case[0] for case in CASES])
@live
async def test_the_request_is_at_fault(gateway: Gateway, fault: str, code: str, outcome: str, stream: bool) -> None:
    async with scene(gateway, home(fault), home(name="west"), hosted(), rules={"breaker": {"failures": 1}}) as books:
        fleet = books.fleet
        for _ in range(3):
            answer = await fleet.ask(stream=stream)
            refused(fleet, answer, 400, code, "east", attempts=1, spill=None)
            assert answer.error["type"] == "invalid_request_error"
            used = {"prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0.0}
            await books.recorded(answer, outcome, pool="east", attempts=1, spilled=False, **used)

        assert took(fleet, "east") == ["faulted 400"] * 3
        assert took(fleet, "west") == took(fleet, "hosted") == []

        await books.failures("east")
        await fleet.shows("east", "breaker", "closed")


@live
async def test_a_prompt_that_is_really_too_long(gateway: Gateway, stream: bool) -> None:
    async with scene(gateway, home(), home(name="west")) as books:
        fleet = books.fleet
        long = [{"role": "user", "content": "word " * (SHORT.max_model_len + 10)}]
        answer = await fleet.ask(stream=stream, messages=long)
        refused(fleet, answer, 400, "context_length_exceeded", "east", attempts=1, spill=None)
        assert "32768" in answer.error["message"]  # the engine's own words
        assert took(fleet, "east") == ["refused 400"]
        assert took(fleet, "west") == []
        await books.recorded(answer, "context_length_exceeded", pool="east", attempts=1, cost_usd=0.0)


@live
async def test_a_filter_that_strikes_in_the_middle_is_the_answers_end(gateway: Gateway, stream: bool) -> None:
    """It is an answer, with its finish reason, and what was generated is billed."""
    async with scene(gateway, home("filtered_mid_stream:3"), home(name="west")) as books:
        fleet = books.fleet
        answer = await fleet.ask(stream=stream)
        assert answer.status == 200
        assert b'"finish_reason":"content_filter"' in answer.body
        served(fleet, answer, "east", attempts=1, spill=None, tokens=3 if stream else TOKENS)
        assert took(fleet, "east") == ["finished 200"]
        assert took(fleet, "west") == []
        tokens = only(fleet, "east").sent_tokens
        await books.recorded(answer, "ok", pool="east", attempts=1, completion_tokens=tokens, estimated=False)


@pytest.mark.parametrize("why", ["saturated", "failed"])
@live
async def test_the_spill_target_rejects_the_shape(gateway: Gateway, why: str, stream: bool) -> None:
    """Home would have taken it. The client hears what the provider said, under the name of the provider's pool."""
    rules = () if why == "saturated" else ("500",)
    async with scene(gateway, home(*rules), hosted("reject_shape")) as books, contextlib.AsyncExitStack() as stack:
        fleet = books.fleet
        if why == "saturated":
            path = f"/admin/v1/pools/{fleet.pool('east')}/limit"
            assert (await gateway.admin("PUT", path, {"limit": 0})).status == 204
            await fleet.shows("east", "limit", 0)
            stack.push_async_callback(gateway.admin, "PUT", path, {"limit": None})
        attempts = 1 if why == "saturated" else 2
        answer = await fleet.ask(stream=stream, tools=[{"type": "function", "function": {"name": "f"}}])
        refused(fleet, answer, 400, "invalid_request", "hosted", attempts=attempts, spill=why)
        assert answer.error["message"] == "Unsupported parameter for this model."

        assert took(fleet, "hosted") == ["faulted 400"]
        assert only(fleet, "hosted").model == HOSTED_NAME
        assert took(fleet, "east") == ([] if why == "saturated" else ["faulted 500"])

        used = {"prompt_tokens": 0, "completion_tokens": 0, "cost_usd": 0.0}
        await books.recorded(
            answer, "upstream_rejected", pool="hosted", attempts=attempts, spilled=True, version=HOSTED_NAME, **used
        )
        await books.failures("hosted")
        await fleet.shows("hosted", "breaker", "closed")
