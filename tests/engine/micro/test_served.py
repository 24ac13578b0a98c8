"""Custom models as processes, and behind the gateway like any pool."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from spillway.core.errors import ConfigError
from spillway.engine.micro.kinds import made
from spillway.testing.processes import SpawnedProcess, started
from tests.e2e.gateway import KEY, Gateway, live, running

pytestmark = pytest.mark.server
MINE = Path(__file__).with_name("mine.py")


def url_of(process: SpawnedProcess) -> str:
    return json.loads(process.wait_for(r'\{"ready".*\}', deadline_s=30.0)[0])["url"]


@pytest.fixture(scope="module")
def classifier() -> Iterator[str]:
    with started("engine", "--kind", "classifier", "--port", "0", "--json", "--name", "safety") as process:
        yield url_of(process)


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    words = ("--kind", "python", "--model", f"{MINE}:Loudness", "--name", "loudness")
    with started("engine", *words, "--port", "0", "--json") as process:
        yield url_of(process)


def post(url: str, body: Any, path: str = "/v1/moderations", **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_shipped_classifier_knows_its_task(classifier: str) -> None:
    texts = ["you are a worthless noob", "buy cheap gold now at my shop", "great job everyone", "where is the castle?"]
    status, said = post(classifier, {"model": "safety", "input": texts})
    assert status == 200
    assert [result["flagged"] for result in said["results"]] == [True, True, False, False]
    assert said["results"][0]["categories"] == {"toxic": True, "spam": False}
    assert all(0.0 <= score <= 1.0 for result in said["results"] for score in result["category_scores"].values())
    assert said["usage"]["prompt_tokens"] > 10


def test_a_model_of_one_s_own(own: str) -> None:
    assert post(own, {"input": "HELLO!"})[1]["results"] == [
        {"flagged": True, "categories": {"loud": True}, "category_scores": {"loud": 1.0}}
    ]
    status, said = post(own, {"input": ["fine", "broken"]})
    assert (status, said["error"]["code"], said["error"]["param"]) == (422, "item_failed", "input[1]")
    with urllib.request.urlopen(f"{own}/metrics", timeout=5.0) as answer:
        figures = answer.read().decode()
    assert 'vllm:num_requests_waiting{model_name="loudness"} 0' in figures
    assert 'spillway_engine_items_failed_total{model_name="loudness"} 1' in figures


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400), (b"", 400), ({"input": []}, 400), ({"input": ""}, 400), ({"input": 3}, 400), ({"input": ["a", 3]}, 400),
        ({"input": "a" * 40_000}, 400), ({"input": ["a"] * 2049}, 400), ({"input": "a", "model": "other"}, 404), ({}, 400),
        (b"\xff", 400), (b"[" * 100_000, 400),
    ],
)  # fmt: skip
def test_what_is_no_request(own: str, body: Any, status: int) -> None:
    said_status, said = post(own, body)
    assert said_status == status
    assert said["error"].keys() == {"message", "type", "param", "code"}
    assert post(own, {"input": "ok"})[0] == 200


def test_a_deadline_that_cannot_be_met(own: str) -> None:
    status, said = post(own, {"input": "a"}, **{"x-deadline-ms": "0"})
    assert (status, said["error"]["code"]) == (503, "deadline_exceeded")
    assert post(own, {"input": "a"}, path="/v1/embeddings")[0] == 404


@live
async def test_through_the_gateway_like_any_pool(classifier: str) -> None:
    sections: dict[str, Any] = {
        "pools": {"safety@here": {"cluster": "here", "endpoints": [classifier], "model": "safety", "limit": 64}},
        "models": {"chat-safety": {"tiers": [["safety@here"]]}},
        "batch": {"poll_s": 0.1},
    }
    with running(**sections) as gateway:
        await checked(gateway)


async def checked(gateway: Gateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=KEY, max_retries=0) as client:
        said = await client.moderations.create(model="chat-safety", input=["shut up you stupid bot", "nice shot"])
        assert [result.flagged for result in said.results] == [True, False]
        lines = [
            {
                "custom_id": str(n),
                "method": "POST",
                "url": "/v1/moderations",
                "body": {"model": "chat-safety", "input": f"gg {n}"},
            }
            for n in range(5)
        ]
        file = await client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/moderations", completion_window="24h")
        async with asyncio.timeout(15.0):
            while (batch := await client.batches.retrieve(batch.id)).status not in ("completed", "failed"):
                await asyncio.sleep(0.05)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 5


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("python", None), ("python", "nothing.py:X"), ("python", f"{MINE}:Nobody"), ("python", str(MINE)),
        ("python", f"{__file__}:Echo"), ("embedding", None),
    ],
)  # fmt: skip
def test_models_that_are_none(kind: str, place: str | None) -> None:
    with pytest.raises(ConfigError):
        made(kind, place)
