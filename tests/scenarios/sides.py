"""The three sides of a request: what the client saw, what the upstreams saw, and what was recorded of it."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

from spillway.testing.seen import Seen
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import Fleet, Gateway, Site, total_of
from tests.e2e.talking import Answer, Json

TIMEOUTS: Json = {"first_content_s": 0.6, "between_chunks_s": 0.6, "whole_s": 0.9, "sweep_s": 0.05}
Totals = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""What metrics come to, by name and labels."""
TOKENS = 8
SHORT = UpstreamSpec(output_tokens=TOKENS)
HOSTED_NAME = "small-hosted"
HOSTED = UpstreamSpec(models=(HOSTED_NAME,), output_tokens=12)
HOME_PRICE: Json = {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0}
HOSTED_PRICE: Json = {"input_usd_per_mtok": 150.0, "output_usd_per_mtok": 600.0}


def home(*rules: str, name: str = "east", **settings: Any) -> Site:
    """A pool of ours with the answer of `TOKENS` tokens."""
    return Site(name, SHORT, rules=rules, settings={"price": HOME_PRICE, **settings})


def hosted(*rules: str) -> Site:
    """A provider's account: another name of the model there, another price, a longer answer."""
    return Site("hosted", HOSTED, rules=rules, settings={"provider": "openai", "price": HOSTED_PRICE})


class Books:
    """A fleet and what its requests came to, so that ledger and metrics can be held against it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.outcomes: Counter[str] = Counter()

    async def recorded(self, answer: Answer, outcome: str, *, pool: str | None, **fields: Any) -> Json:
        """The usage record of a request, after a check of these fields of it."""
        record = await self.fleet.gateway.record(answer.headers["x-request-id"])
        expected = {"outcome": outcome, "pool": pool and self.fleet.pool(pool), **fields}
        assert {name: record[name] for name in expected} == expected
        self.outcomes[outcome] += 1
        return record

    async def balanced(self) -> None:
        """The metrics count each recorded request once, by its outcome; nothing is in flight."""
        model = self.fleet.model
        wanted: Totals = {("spillway_requests_total", (("model", model),)): sum(self.outcomes.values())}
        for outcome, count in self.outcomes.items():
            wanted["spillway_requests_total", (("model", model), ("outcome", outcome))] = count
        for site in self.fleet.sites:
            wanted["spillway_inflight", (("pool", self.fleet.pool(site)),)] = 0
        await self._show(wanted)

    async def failures(self, site: str, **faults: int) -> None:
        """How many attempts of a pool failed, and how: no others did."""
        name, pool = "spillway_attempt_failures_total", ("pool", self.fleet.pool(site))
        wanted: Totals = {(name, (pool,)): sum(faults.values())}
        for fault, count in faults.items():
            wanted[name, (pool, ("fault", fault))] = count
        await self._show(wanted)

    async def _show(self, wanted: Totals) -> None:
        """Until one page of metrics has all of these."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 5.0
        while True:
            page = await self.fleet.gateway.metrics()
            shown = {(name, labels): total_of(page, name, **dict(labels)) for name, labels in wanted}
            if shown == wanted:
                return
            assert loop.time() < deadline, f"{shown} instead of {wanted}"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def scene(gateway: Gateway, *sites: Site, **options: Any) -> AsyncGenerator[Books]:
    """A fleet with its books, which must balance at the end."""
    async with gateway.fleet(*sites, **options) as fleet:
        books = Books(fleet)
        yield books
        await books.balanced()


def served(fleet: Fleet, answer: Answer, site: str, *, attempts: int, spill: str | None, tokens: int = TOKENS) -> None:
    """The client has one complete answer, and its headers say who gave it."""
    assert (answer.status, answer.cut) == (200, False), answer.body
    _says(fleet, answer, site, attempts, spill)
    if "text/event-stream" in answer.headers["content-type"]:
        assert answer.events[-1] == "[DONE]"
        assert answer.body.count(b"[DONE]") == 1
        assert b'"error"' not in answer.body
        assert len(answer.text.split()) == tokens
    else:
        assert len(answer.json["choices"][0]["message"]["content"].split()) == tokens


def refused(
    fleet: Fleet, answer: Answer, status: int, code: str, site: str, *, attempts: int, spill: str | None
) -> None:
    """The client has an error with the four keys, and knows whether to come back: after load when, after faults not."""
    assert answer.status == status
    assert answer.error["code"] == code
    assert b"[DONE]" not in answer.body
    assert not answer.cut
    _says(fleet, answer, site, attempts, spill)
    assert answer.headers.get("x-should-retry") == ("false" if status >= 500 else None)
    assert ("retry-after" in answer.headers) == ("retry-after-ms" in answer.headers) == (status == 429)


def cut(fleet: Fleet, answer: Answer, site: str, *, tokens: range, attempts: int = 1, spill: str | None = None) -> None:
    """The client has a part of the answer, then an error in band, no [DONE], and the end of the connection."""
    assert (answer.status, answer.cut) == (200, True)
    _says(fleet, answer, site, attempts, spill)
    error = json.loads(answer.events[-1])["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "stream_cut"
    assert b"[DONE]" not in answer.body
    assert len(answer.text.split()) in tokens


def _says(fleet: Fleet, answer: Answer, site: str, attempts: int, spill: str | None) -> None:
    headers = answer.headers
    assert headers["x-spillway-pool"] == fleet.pool(site)
    assert headers["x-spillway-attempts"] == str(attempts)
    assert headers.get("x-spillway-spill") == spill


def took(fleet: Fleet, site: str) -> list[str]:
    """What an upstream saw, request by request: how it ended there, and with which status (0: none was sent)."""
    return [f"{seen.ending} {seen.status}" for seen in fleet[site].log.requests]


def only(fleet: Fleet, site: str) -> Seen:
    """The one request that an upstream saw."""
    [seen] = fleet[site].log.requests
    return seen


def prompt_tokens(fleet: Fleet, site: str) -> int:
    return fleet[site].log.requests[-1].prompt_tokens


def cost_usd(price: Json, prompt: int, completion: int) -> float:
    return (prompt * price["input_usd_per_mtok"] + completion * price["output_usd_per_mtok"]) / 1e6
