"""Faults in pairs, drawn by a seed: whatever comes together, each request has one ending, one record, and gives its slot back.

The seed is in the test's name; `pytest "tests/scenarios/test_any_two_faults.py::test_…[17]"` draws the same faults again.
"""

import asyncio
import json
import random

import pytest

from spillway.testing.spec import UpstreamSpec
from spillway.testing.waiting import eventually
from tests.e2e.gateway import Fleet, Gateway, Site, live
from tests.e2e.talking import Answer, Json
from tests.scenarios.sides import HOSTED_NAME, HOSTED_PRICE, TOKENS, scene

pytestmark = pytest.mark.server

ROUNDS, TOGETHER = 5, 12
SHARE = ":share=0.5"
FAULTS = (
    "429:retry_after_s=0.2", "429", "500", "503:retry_after_s=0.2", "reset", "no_response", "slow_first_token:0.2", "slow_first_token:5",
    "cut:3", "cut:0", "reset_mid_stream:2", "stall:0", "stall:3", "stall:after_tokens=2,delay_s=0.2", "malformed_chunk:2", "bad_framing:2",
    "no_done", "no_usage", "error_event:0", "error_event:3", "context_length_exceeded", "content_filter", "filtered_mid_stream:2",
    "reject_shape", "malformed_http", "huge_header", "close_after_head", "garbage_after", "flap:period_s=0.2,down_s=0.1",
)  # fmt: skip
STATUS_OF = {
    "ok": 200, "cut": 200, "refused": 429, "evicted": 429, "unavailable": 503, "upstream_error": 502, "upstream_timeout": 504,
    "context_length_exceeded": 400, "content_filtered": 400, "upstream_rejected": 400,
}  # fmt: skip
RULES = {
    "priorities": {"interactive": {"max_wait_s": 1.0}},
    "breaker": {"failures": 3, "open_s": 0.1, "max_open_s": 0.4, "trial_gap_s": 0.05},
}
BRISK = UpstreamSpec(inter_token_latency_s=0.005, output_tokens=TOKENS)
THERE = UpstreamSpec(models=(HOSTED_NAME,), inter_token_latency_s=0.005, output_tokens=TOKENS)
SITES = (
    Site("east", BRISK, limit=4),
    Site("west", BRISK, limit=4),
    Site("hosted", THERE, limit=4, settings={"provider": "openai", "price": HOSTED_PRICE}),
)


class Asked:
    """One request and what became of it. `answer` None: its client left."""

    def __init__(self, request: str, answer: Answer | None) -> None:
        self.request = request
        self.answer = answer


@pytest.mark.parametrize("seed", range(3))
@live
async def test_every_request_has_one_ending_and_one_record(gateway: Gateway, seed: int) -> None:
    rng = random.Random(seed)
    known = await gateway.metric("spillway_usage_known_total")
    async with scene(gateway, *SITES, rules=RULES) as books:
        fleet = books.fleet
        asked: list[Asked] = []
        for _ in range(ROUNDS):
            for site in fleet.sites:
                fleet[site].misbehave(*(f"{fault}{SHARE}" for fault in rng.sample(FAULTS, 2)))
            asked += await asyncio.gather(*(one(fleet, rng, f"{seed}-{len(asked) + n}") for n in range(TOGETHER)))
        for site in fleet.sites:
            await fleet[site].quiet()
            await fleet.shows(site, "in_flight", 0)

        assert len({each.request for each in asked}) == ROUNDS * TOGETHER
        for each in asked:
            record = await gateway.record(each.request)
            books.outcomes[record["outcome"]] += 1
            agree(fleet, each, record)
        await ledger_has(fleet, len(asked))
        assert await gateway.metric("spillway_usage_known_total") == known  # no record was written twice


async def one(fleet: Fleet, rng: random.Random, name: str) -> Asked:
    """A request, whole or streamed; one in seven clients leaves when an upstream has its request, or its answer begins."""
    stream, leaves = rng.random() < 0.5, rng.random() < 0.15
    async with fleet.talk() as talk:
        talk.send(fleet.request(stream=stream, headers={"x-request-id": name}))
        if not leaves:
            answer = await talk.answer()
            return Asked(answer.headers["x-request-id"], answer)
        head = asyncio.ensure_future(talk.head())
        await eventually(lambda: head.done() or ids_of(fleet, name), what="an upstream or an answer")
        talk.leave()
        known = ids_of(fleet, name)
        if head.done():
            known.add(head.result().headers["x-request-id"])
        head.cancel()
        await asyncio.wait([head])
        [request] = known
        return Asked(request, None)


def ids_of(fleet: Fleet, name: str) -> set[str]:
    """Under which ids the upstreams saw a request that its client calls `name`."""
    requests = (seen for site in fleet.sites for seen in fleet[site].log.requests)
    return {seen.request_id for seen in requests if seen.header("x-client-request-id") == name}


def agree(fleet: Fleet, asked: Asked, record: Json) -> None:
    """The three sides say the same of a request."""
    seen = [seen for site in fleet.sites for seen in fleet[site].log.requests if seen.request_id == asked.request]
    unseen = sum(
        each.fault == "reset" for each in seen
    )  # on a kept-alive connection: sent once more within the same attempt
    answer, outcome = asked.answer, record["outcome"]
    if answer is None:
        assert len(seen) - unseen <= record["attempts"]
        assert outcome in {"client_left", *STATUS_OF}
        return
    assert len(seen) - unseen <= record["attempts"] <= len(seen), record
    assert record["attempts"] == int(answer.headers.get("x-spillway-attempts", 0))
    assert answer.status == STATUS_OF[outcome], record
    assert record["pool"] == answer.headers.get("x-spillway-pool")
    assert answer.cut is (outcome == "cut")
    if answer.status != 200:
        assert answer.error["message"]
        return
    assert record["completion_tokens"] > 0
    if not record["streamed"]:
        assert answer.json["choices"]
    elif answer.cut:
        assert json.loads(answer.events[-1])["error"]["code"] == "stream_cut"
        assert b"[DONE]" not in answer.body
    else:
        assert answer.events[-1] == "[DONE]"
        assert b'"error"' not in answer.body


async def ledger_has(fleet: Fleet, count: int) -> None:
    answer = await fleet.gateway.admin("GET", "/admin/v1/usage?by=pool&limit=1000")
    hours = [hour for hour in answer.json["hours"] if hour["model"] == fleet.model]
    assert sum(hour["requests"] for hour in hours) == count
