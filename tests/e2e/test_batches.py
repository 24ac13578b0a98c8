"""Files and batches as tenants use them: with the official client, and with what is wrong in every way."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from spillway.testing.seen import Ending
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, live, running
from tests.e2e.talking import Answer, Talk

pytestmark = pytest.mark.server

OTHER = "sk-e2e-other-0123456789"
CHAT = "/v1/chat/completions"
LIMITS = {"file_bytes": 200_000, "lines": 100, "line_bytes": 5_000, "tenant_batches": 3}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    batch = {"poll_s": 0.1, "lease_s": 2.0, "shard_lines": 8, "limits": LIMITS}
    with running(batch=batch) as started:
        yield started


def client_of(gateway: Gateway, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=key, max_retries=0)


def line(fleet: Fleet, number: int, **fields: Any) -> dict[str, Any]:
    body = {"model": fleet.model, "max_tokens": 4, "messages": [{"role": "user", "content": f"say {number}"}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body | fields}


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, lines)).encode()


async def submitted(client: openai.AsyncOpenAI, content: bytes, endpoint: Any = CHAT, **fields: Any) -> Any:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields)


async def ended(client: openai.AsyncOpenAI, batch: str, *states: str) -> Any:
    return await until(client, batch, lambda now: now.status in states)


async def until(client: openai.AsyncOpenAI, batch: str, right: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(20.0):
        while not right(now := await client.batches.retrieve(batch)):
            await asyncio.sleep(0.05)
    return now


async def rows(client: openai.AsyncOpenAI, file: str | None) -> list[dict[str, Any]]:
    assert file is not None
    return [json.loads(text) for text in (await client.files.content(file)).text.splitlines()]


@live
async def test_a_batch_from_upload_to_results(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet, client_of(gateway) as client:
        content = jsonl([line(fleet, number) for number in range(20)])
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        assert (file.bytes, file.filename, file.purpose, file.status) == (
            len(content),
            "in.jsonl",
            "batch",
            "processed",
        )
        assert (await client.files.content(file.id)).content == content
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"night": "7"}
        )
        assert (batch.status, batch.metadata, batch.input_file_id) == ("validating", {"night": "7"}, file.id)
        done = await ended(client, batch.id, "completed")
        assert done.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
        assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
        assert done.expires_at == done.created_at + 86_400
        assert done.error_file_id is None
        found = await rows(client, done.output_file_id)
        assert [row["custom_id"] for row in found] == [f"line-{number}" for number in range(20)]
        assert all(set(row) == {"id", "custom_id", "response", "error"} and row["error"] is None for row in found)
        assert all(row["response"]["status_code"] == 200 and row["response"]["request_id"] for row in found)
        usages = [row["response"]["body"]["usage"] for row in found]
        assert done.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
        assert done.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages) == 80
        output = await client.files.retrieve(done.output_file_id)
        assert output.purpose == "batch_output"
        record = await gateway.record(found[0]["response"]["request_id"])
        assert (record["priority"], record["item"], record["repeat"]) == ("batch", f"{batch.id}/0", False)


@live
async def test_lines_that_fail_are_in_the_error_file(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet, client_of(gateway) as client:
        lines = [line(fleet, 0), line(fleet, 1, user="fault:context_length_exceeded"), line(fleet, 2)]
        lines += [line(fleet, 3, user="fault:500"), line(fleet, 4, messages=[]), line(fleet, 5)]
        done = await ended(client, (await submitted(client, jsonl(lines))).id, "completed")
        assert done.request_counts.completed + done.request_counts.failed == done.request_counts.total == 6
        good, bad = await rows(client, done.output_file_id), await rows(client, done.error_file_id)
        assert {row["custom_id"] for row in good} | {row["custom_id"] for row in bad} == {f"line-{n}" for n in range(6)}
        told = {row["custom_id"]: row["response"]["status_code"] for row in bad}
        assert told["line-1"] == 400
        assert told["line-3"] == 502
        assert all(row["response"]["body"]["error"]["message"] for row in bad)


@live
async def test_embeddings_and_completions(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet, client_of(gateway) as client:
        for endpoint, body in (
            ("/v1/embeddings", {"input": "a b c"}),
            ("/v1/completions", {"prompt": "a b", "max_tokens": 3}),
        ):
            wanted = {"custom_id": "one", "method": "POST", "url": endpoint, "body": {"model": fleet.model, **body}}
            done = await ended(client, (await submitted(client, jsonl([wanted]), endpoint)).id, "completed", "failed")
            assert done.status == "completed", done.errors
            (row,) = await rows(client, done.output_file_id)
            assert row["response"]["status_code"] == 200


@live
async def test_cancelling_keeps_what_is_finished(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=0.05, inter_token_latency_s=0.02)
    async with gateway.fleet(Site("east", slow, limit=3)) as fleet, client_of(gateway) as client:
        batch = await submitted(client, jsonl([line(fleet, number) for number in range(90)]))
        await until(client, batch.id, lambda now: now.request_counts.completed >= 5)
        with pytest.raises(openai.ConflictError):
            await client.files.delete(batch.input_file_id)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        done = await ended(client, batch.id, "cancelled")
        assert done.cancelling_at <= done.cancelled_at
        found = await rows(client, done.output_file_id)
        assert 5 <= len(found) == done.request_counts.completed < 90
        assert (await client.batches.cancel(batch.id)).status == "cancelled"  # twice changes nothing
        await client.files.delete(batch.input_file_id)


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (b'{"custom_id": "a"\n', "invalid_json_line", 1),
        (b"\n\n  \n", "empty_file", None),
        (b"[1, 2]", "invalid_request", 1),
        (b"\xff\xfe{}", "invalid_json_line", 1),
        ({"custom_id": ""}, "invalid_custom_id", 1),
        ({"method": "GET"}, "invalid_method", 1),
        ({"url": "/v1/embeddings"}, "mismatched_endpoint", 1),
        ({"body": {"messages": []}}, "missing_required_parameter", 1),
        ({"body": {"model": "nobody", "messages": []}}, "model_not_found", 1),
        ({"stream": True}, "stream_not_allowed", 1),
        ("twice", "duplicate_custom_id", 2),
        ("too many", "too_many_requests", 101),
        ("too long", "line_too_long", 1),
    ],
)
@live
async def test_a_bad_input_file_fails_with_the_line(
    gateway: Gateway, content: Any, code: str, place: int | None
) -> None:
    async with gateway.fleet(Site("east")) as fleet, client_of(gateway) as client:
        if isinstance(content, dict):
            first = line(fleet, 0)
            stream = content.pop("stream", False)
            first |= content
            if stream:
                first["body"]["stream"] = True
            content = jsonl([first])
        elif content == "twice":
            content = jsonl([line(fleet, 0), line(fleet, 0)])
        elif content == "too many":
            content = jsonl([line(fleet, number) for number in range(101)])
        elif content == "too long":
            content = jsonl([line(fleet, 0, user="x" * 6000)])
        done = await ended(client, (await submitted(client, content)).id, "failed", "completed")
        assert done.status == "failed"
        mistake = done.errors.data[0]
        assert (mistake.code, mistake.line) == (code, place)
        assert mistake.message
        assert done.request_counts.total == 0
        assert (done.output_file_id, done.error_file_id) == (None, None)
        assert fleet["east"].log.arrived == 0


@live
async def test_what_is_not_a_batch(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet, client_of(gateway) as client:
        file = await client.files.create(file=("in.jsonl", jsonl([line(fleet, 0)])), purpose="batch")
        before = len((await client.batches.list(limit=100)).data)
        wrong: list[dict[str, Any]] = [
            {"endpoint": "/v1/nothing"},
            {"completion_window": "1h"},
            {"input_file_id": "file-nobody"},
            {"metadata": {"a": "x" * 513}},
            {"metadata": {str(n): "x" for n in range(17)}},
            {"output_expires_after": {"anchor": "created_at", "seconds": -5}},
            {"output_expires_after": {"anchor": "yesterday", "seconds": 7200}},
        ]
        for fields in wrong:
            asked: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"} | fields
            with pytest.raises(openai.BadRequestError) as caught:
                await client.batches.create(**asked)
            assert set(caught.value.body or {}) == {"message", "type", "param", "code"}  # pyright: ignore[reportArgumentType]
        other = await client.files.create(file=("in.jsonl", b"x"), purpose="user_data")
        with pytest.raises(openai.BadRequestError):
            await client.batches.create(input_file_id=other.id, endpoint=CHAT, completion_window="24h")
        assert len((await client.batches.list(limit=100)).data) == before


@live
async def test_uploads_that_are_refused_leave_nothing(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        before = len((await client.files.list()).data), objects_of(gateway)
        with pytest.raises(openai.APIStatusError) as caught:
            await client.files.create(file=("in.jsonl", b"x" * (LIMITS["file_bytes"] + 1)), purpose="batch")
        assert caught.value.status_code == 413
        for purpose, content in (("nothing", b"x"), ("batch_output", b"x"), ("batch", b"")):
            with pytest.raises(openai.BadRequestError):
                await client.files.create(file=("in.jsonl", content), purpose=purpose)  # pyright: ignore[reportArgumentType]
        for seconds in (-1, 0, 3599, 2_592_001):
            with pytest.raises(openai.BadRequestError):
                await client.files.create(
                    file=("a", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
                )
        for body, kind in (
            (b'--form\r\ncontent-disposition: form-data; name="file"\r\n\r\nabc', "multipart/form-data; boundary=form"),
            (b"{}", "application/json"),
            (b"--form--\r\n", "multipart/form-data; boundary=form"),
            (b"\x00" * 50, "multipart/form-data; boundary=form"),
        ):
            assert (await posted(gateway, "/v1/files", body, kind)).status == 400
        kept = await client.files.create(
            file=("a", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
        )
        assert kept.expires_at == kept.created_at + 3600
        await client.files.delete(kept.id)
        assert (len((await client.files.list()).data), objects_of(gateway)) == before


@live
async def test_ids_of_another_tenant_are_not_there(gateway: Gateway) -> None:
    async with (
        gateway.fleet(Site("east"), keys=[{"secret": OTHER, "tenant": "other"}]) as fleet,
        client_of(gateway) as mine,
        client_of(gateway, OTHER) as theirs,
    ):
        batch = await submitted(mine, jsonl([line(fleet, 0)]))
        done = await ended(mine, batch.id, "completed")
        for file in (done.input_file_id, done.output_file_id):
            for ask in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(file)
        for act in (theirs.batches.retrieve, theirs.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                await act(batch.id)
        with pytest.raises(openai.BadRequestError):
            await theirs.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
        for page in (theirs.batches.list(after=batch.id), theirs.files.list(after=batch.input_file_id)):
            with pytest.raises(openai.BadRequestError):
                await page
        assert (await theirs.batches.list()).data == (await theirs.files.list()).data == []
        for path in ("/v1/files", f"/v1/files/{batch.input_file_id}/content", "/v1/batches", f"/v1/batches/{batch.id}"):
            assert (await gateway.get(path, key=None)).status == 401


@live
async def test_lists_have_cursors(gateway: Gateway) -> None:
    async with client_of(gateway) as client:
        made = [(await client.files.create(file=(str(n), b"x"), purpose="evals")).id for n in range(5)]
        page = await client.files.list(limit=2, purpose="evals")
        assert ([file.id for file in page.data], page.has_more) == (made[:2:-1], True)
        assert [file.id async for file in client.files.list(limit=2, purpose="evals")] == made[::-1]
        assert [file.id async for file in client.files.list(limit=2, purpose="evals", order="asc")] == made
        for file in made:
            assert (await client.files.delete(file)).deleted
        for query in ("order=up", "limit=x", "purpose=none", "after=file-x"):
            assert (await gateway.get(f"/v1/files?{query}")).status == 400


@live
async def test_only_so_many_batches_at_a_time(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=10.0)
    async with gateway.fleet(Site("east", slow, limit=1)) as fleet, client_of(gateway) as client:
        batches = [(await submitted(client, jsonl([line(fleet, 0)]))).id for _ in range(3)]
        with pytest.raises(openai.ConflictError):
            await submitted(client, jsonl([line(fleet, 0)]))
        for batch in batches:
            await client.batches.cancel(batch)
            await ended(client, batch, "cancelled")


async def posted(gateway: Gateway, path: str, body: bytes, kind: str) -> Answer:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    async with Talk(gateway.port) as talk:
        talk.send(head.encode() + body)
        return await talk.answer()


def objects_of(gateway: Gateway) -> int:
    return sum(path.is_file() for path in (gateway.home / "objects").rglob("*"))


@live
async def test_lines_yield_to_online_requests_and_come_again(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=0.6, inter_token_latency_s=0.0)
    async with gateway.fleet(Site("east", slow, limit=10)) as fleet, client_of(gateway) as client:
        batch = await submitted(client, jsonl([line(fleet, number) for number in range(30)]))
        await fleet.arrived("east", 7)
        burst = await asyncio.gather(*(fleet.ask(max_tokens=2) for _ in range(8)))
        assert {answer.status for answer in burst} == {200}
        done = await ended(client, batch.id, "completed")
        assert done.request_counts.completed == 30
        log = fleet["east"].log
        left = log.endings[Ending.LEFT]
        assert left >= 3  # cancelled at the engine, as soon as the burst came
        assert log.arrived == 38 + left
        await gateway.counts(left, "spillway_decisions_total", kind="yielded")
        first_burst = min(seen.arrived_s for seen in log.requests if seen.asked_tokens == 2)
        yielded = [seen.ended_s for seen in log.requests if seen.ending is Ending.LEFT]
        assert all(ended_s is not None and ended_s - first_burst < 0.5 for ended_s in yielded[:3])
