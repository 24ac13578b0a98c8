"""Safety at the gate: what is asked and what is answered goes past a classifier, and nothing that it found bad reaches a client."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spillway.testing.processes import started
from tests.e2e.canned import answer, canned
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, live, running
from tests.e2e.talking import Answer, Json, request

pytestmark = pytest.mark.server

WATCHDOG = Path(__file__).with_name("watchdog.py")
FLAGGED, FREE = "sk-e2e-flagged-0123456789", "sk-e2e-free-0123456789"
TENANTS: Json = {"flagged": {"safety": "flag"}, "free": {"safety": "off"}}
KEYS: list[Json] = [{"secret": FLAGGED, "tenant": "flagged"}, {"secret": FREE, "tenant": "free"}]
USAGE = '{"prompt_tokens":7,"completion_tokens":9,"total_tokens":16}'


@pytest.fixture(scope="module")
def classifier() -> Iterator[str]:
    words = ("--kind", "python", "--model", f"{WATCHDOG}:Watchdog", "--name", "dog", "--port", "0", "--json")
    with started("engine", *words) as process:
        yield json.loads(process.wait_for(r'\{"ready".*\}', deadline_s=30.0)[0])["url"]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as started_gateway:
        yield started_gateway


class Watched:
    """A gateway whose model is checked: `ask` as one tenant or another."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    async def ask(self, content: str, key: str = KEY, **fields: Any) -> Answer:
        body = self.fleet.body(messages=[{"role": "user", "content": content}], **fields)
        async with self.fleet.talk() as talk:
            talk.send(request(body, key=key))
            return await talk.answer()


async def watched(gateway: Gateway, classifier: str, site: Site, **rule: Any) -> Any:
    """A fleet whose second pool is the classifier."""
    return gateway.fleet(
        site,
        keys=KEYS,
        model={"safety": {"model": "safety", "window_chars": 20, "context_chars": 10, "timeout_s": 0.4, **rule}},
        rules={"tenants": TENANTS},
        extra={
            "pools": {
                "dog@here": {
                    "cluster": "here",
                    "endpoints": [classifier],
                    "model": "dog",
                    "limit": 64,
                    "probe_path": "",
                }
            },
            "models": {"safety": {"tiers": [["dog@here"]]}},
        },
    )


def whole(text: str) -> bytes:
    body = '{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    return answer(200, f'{body}"content":{json.dumps(text)}}},"finish_reason":"stop"}}],"usage":{USAGE}}}'.encode())


def stream(words: list[str]) -> bytes:
    events = ['{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}']
    events += [f'{{"choices":[{{"index":0,"delta":{{"content":{json.dumps(word)}}}}}]}}' for word in words]
    events += [
        '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        f'{{"choices":[],"usage":{USAGE}}}',
        "[DONE]",
    ]
    framed = "".join(f"{len(one) + 8:x}\r\ndata: {one}\n\n\r\n" for one in events)
    return f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{framed}0\r\n\r\n".encode()


def text_of(answered: Answer) -> str:
    parts: list[str] = []
    for event in answered.body.split(b"\n\n"):
        if event.startswith(b"data: {"):
            choices = json.loads(event[6:]).get("choices", [])
            parts += [choice.get("delta", {}).get("content") or "" for choice in choices]
    return "".join(parts)


@live
async def test_what_is_asked_is_checked_before_anybody_works_on_it(gateway: Gateway, classifier: str) -> None:
    async with await watched(gateway, classifier, Site("east")) as fleet:
        here = Watched(fleet)
        assert (await here.ask("hello")).status == 200
        blocked = await here.ask("something BAD")
        assert (blocked.status, blocked.error["code"]) == (400, "content_filter")
        assert "bad" in blocked.error["message"]
        flagged = await here.ask("something BAD", FLAGGED)
        assert (flagged.status, flagged.headers["x-spillway-safety"]) == (200, "bad")
        free = await here.ask("something BAD", FREE)
        assert (free.status, "x-spillway-safety" in free.headers) == (200, False)
        assert fleet["east"].log.arrived == 3
        record = await gateway.record(blocked.headers["x-request-id"])
        assert (record["outcome"], record["attempts"], record["completion_tokens"]) == ("content_filtered", 0, 0)
        await gateway.counts(1, "spillway_safety_checks_total", model=fleet.model, stage="input", verdict="passed")
        await gateway.counts(2, "spillway_safety_checks_total", model=fleet.model, stage="input", verdict="flagged")


@live
async def test_only_what_users_said_last_is_read(gateway: Gateway, classifier: str) -> None:
    async with await watched(gateway, classifier, Site("east"), output=False) as fleet:
        old: list[Json] = [
            {"role": "system", "content": "never say BAD"},
            {"role": "user", "content": "BAD"},
            {"role": "assistant", "content": "BAD"},
            {"role": "user", "content": [{"type": "text", "text": "fine"}]},
        ]
        assert (await fleet.ask(messages=old)).status == 200
        old[-1]["content"] = [{"type": "text", "text": "fine"}, {"type": "text", "text": "BAD"}]
        assert (await fleet.ask(messages=old)).status == 400


@live
async def test_a_whole_answer_is_checked_before_it_is_passed_on(gateway: Gateway, classifier: str) -> None:
    async with (
        canned([whole("all is well"), whole("this is BAD"), whole("this is BAD")]) as url,
        await watched(gateway, classifier, Site("odd", settings={"endpoints": [url]})) as fleet,
    ):
        here = Watched(fleet)
        assert (await here.ask("a")).json["choices"][0]["message"]["content"] == "all is well"
        blocked = await here.ask("b")
        assert (blocked.status, blocked.error["code"]) == (400, "content_filter")
        assert b"BAD" not in blocked.body
        record = await gateway.record(blocked.headers["x-request-id"])
        assert (record["outcome"], record["completion_tokens"]) == ("content_filtered", 9)  # it was generated
        flagged = await here.ask("c", FLAGGED)
        assert (flagged.status, flagged.headers["x-spillway-safety"]) == (200, "bad")


@pytest.mark.parametrize("place", [0, 1, 5, 30, 59])
@live
async def test_no_blocked_text_of_a_stream_reaches_the_client(gateway: Gateway, classifier: str, place: int) -> None:
    words = [f"word{number} " for number in range(60)]
    words[place : place + 1] = ["B", "A", "D "]  # across events
    async with (
        canned([stream(words)]) as url,
        await watched(gateway, classifier, Site("odd", settings={"endpoints": [url]})) as fleet,
    ):
        here = Watched(fleet)
        got = await here.ask("a", stream=True)
        said = text_of(got)
        assert "BAD" not in said
        assert "".join(words).startswith(said)
        assert b"[DONE]" not in got.body
        assert b"content_filter" in got.body
        assert got.status == (400 if not said else 200)
        free = await here.ask("a", FREE, stream=True)
        assert text_of(free) == "".join(words)
        flagged = await here.ask("a", FLAGGED, stream=True)
        assert text_of(flagged) == "".join(words)
        assert flagged.body.endswith(b"data: [DONE]\n\n")


@live
async def test_a_stream_that_is_well_comes_whole(gateway: Gateway, classifier: str) -> None:
    async with await watched(gateway, classifier, Site("east")) as fleet:
        got, plain = await Watched(fleet).ask("a", stream=True), await Watched(fleet).ask("a", FREE, stream=True)
        assert text_of(got) == text_of(plain) != ""
        assert got.body.endswith(b"data: [DONE]\n\n")
        record = await gateway.record(got.headers["x-request-id"])
        assert (record["outcome"], record["completion_tokens"]) == ("ok", 32)


@pytest.mark.parametrize(("on_failure", "status"), [("open", 200), ("closed", 503)])
@pytest.mark.parametrize("word", ["SLOW", "BROKEN"])
@live
async def test_a_check_that_fails_or_is_late(
    gateway: Gateway, classifier: str, on_failure: str, status: int, word: str
) -> None:
    async with await watched(gateway, classifier, Site("east"), on_failure=on_failure) as fleet:
        loop = asyncio.get_running_loop()
        began = loop.time()
        got = await Watched(fleet).ask(word)
        assert got.status == status
        assert loop.time() - began < 2.0
        assert fleet["east"].log.arrived == (status == 200)
        await gateway.counts(1, "spillway_safety_checks_total", model=fleet.model, stage="input", verdict="failed")


@live
async def test_a_client_that_leaves_during_the_check_is_gone(gateway: Gateway, classifier: str) -> None:
    async with await watched(gateway, classifier, Site("east")) as fleet:
        async with fleet.talk() as talk:
            talk.send(request(fleet.body(messages=[{"role": "user", "content": "SLOW"}]), key=KEY))
        await gateway.counts(1, "spillway_requests_total", model=fleet.model, outcome="client_left")
        await gateway.counts(1, "spillway_safety_checks_total", model=fleet.model, stage="input", verdict="failed")
        assert fleet["east"].log.arrived == 0
        assert (await Watched(fleet).ask("hello")).status == 200
