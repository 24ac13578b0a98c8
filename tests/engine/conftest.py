"""Real engine processes with the bundled model."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spillway.wire import sse

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/npc-1.9m/openvino"
READY_S = 60.0
END_S = 30.0

Json = dict[str, Any]


class EngineUnderTest:
    """One `spillway engine`, ready. Every call opens a connection of its own."""

    def __init__(
        self, *arguments: str, env: dict[str, str] | None = None, command: tuple[str, ...] = ("-m", "spillway")
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command, "engine", "--model", str(MODEL), "--port", "0", "--json", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.port = int(json.loads(line)["url"].rsplit(":", 1)[1])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=END_S)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def announce(self, path: str, body_bytes: int) -> int:
        """The answer to a head that announces a body, of which nothing is sent: its status."""
        connection = self.connect()
        try:
            connection.putrequest("POST", path)
            connection.putheader("content-length", str(body_bytes))
            connection.endheaders()
            return connection.getresponse().status
        finally:
            connection.close()

    def chat(self, content: Any = "Describe the rare golden key.", **fields: Any) -> tuple[int, Json]:
        body = {"model": "npc-1.9m", "messages": [{"role": "user", "content": content}], **fields}
        status, _, answer = self.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
        return status, json.loads(answer)

    def complete(self, prompt: Any, **fields: Any) -> tuple[int, Json]:
        body = {"model": "npc-1.9m", "prompt": prompt, **fields}
        status, _, answer = self.ask("POST", "/v1/completions", json.dumps(body).encode())
        return status, json.loads(answer)

    def stream(self, content: str = "Describe the rare golden key.", **fields: Any) -> list[bytes]:
        """The data of every event."""
        body = {"model": "npc-1.9m", "stream": True, "messages": [{"role": "user", "content": content}], **fields}
        status, headers, answer = self.ask("POST", "/v1/chat/completions", json.dumps(body).encode())
        assert (status, headers["content-type"]) == (200, "text/event-stream"), answer
        return list(sse.events(answer))

    def metric(self, name: str) -> float:
        text = self.ask("GET", "/metrics")[2].decode()
        return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))

    def end(self) -> tuple[int, str]:
        """Exit status and what it said on stderr."""
        self.process.terminate()
        said = self.process.communicate(timeout=END_S)[1]
        return self.process.returncode, said

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


StartEngine = Callable[..., EngineUnderTest]


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    """Shared by the tests of a module. Ends in order, with nothing to say."""
    started = EngineUnderTest()
    try:
        yield started
        status, said = started.end()
        assert status == 0, said
        assert "Traceback" not in said
    finally:
        started.kill()


@pytest.fixture
def start_engine() -> Iterator[StartEngine]:
    started: list[EngineUnderTest] = []

    def start(*arguments: str, **options: Any) -> EngineUnderTest:
        started.append(EngineUnderTest(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def eventually(condition: Callable[[], bool]) -> None:
    """Waits for another thread or process, with a deadline: there is no event of theirs to wait on."""
    deadline = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
