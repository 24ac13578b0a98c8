"""The engine as a process: how it ends, what it leaves behind, whom it calls, and what it does under load."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.engine.conftest import END_S, MODEL, EngineUnderTest, StartEngine, eventually

pytestmark = pytest.mark.server

LONG = {"max_tokens": 1500, "ignore_eos": True}
SLOW = ("--pace-ms", "5")


@contextmanager
def streaming(engine: EngineUnderTest, **fields: object) -> Generator[http.client.HTTPResponse]:
    """A stream whose first bytes are there. Leaving the block leaves the engine."""
    connection = engine.connect()
    body = {"model": "npc-1.9m", "stream": True, "messages": [{"role": "user", "content": "hello"}], **fields}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    answer = connection.getresponse()
    assert answer.status == 200
    try:
        yield answer
    finally:
        answer.close()
        connection.close()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_sigterm_finishes_what_runs_and_refuses_the_rest(start_engine: StartEngine) -> None:
    engine = start_engine(*SLOW)
    with streaming(engine, max_tokens=250, ignore_eos=True) as running:
        engine.process.send_signal(signal.SIGTERM)
        eventually(lambda: engine.ask("GET", "/health")[0] == 503)
        status, headers, body = engine.ask("POST", "/v1/chat/completions", b"{}")
        assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
        assert headers["connection"] == "close"
        assert running.read().endswith(b"data: [DONE]\n\n")
    assert engine.process.wait(END_S) == 0


def test_the_drain_has_an_end(start_engine: StartEngine) -> None:
    engine = start_engine("--pace-ms", "20", "--drain-s", "0.2")
    with streaming(engine, **LONG) as running:
        engine.process.send_signal(signal.SIGTERM)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            running.read()
    assert engine.process.wait(END_S) == 0


def test_a_second_signal_ends_it_at_once(start_engine: StartEngine) -> None:
    engine = start_engine("--pace-ms", "20")
    with streaming(engine, **LONG):
        engine.process.send_signal(signal.SIGINT)
        eventually(lambda: engine.ask("GET", "/health")[0] == 503)
        engine.process.send_signal(signal.SIGINT)
        assert engine.process.wait(END_S) == 0


PARENT = """
import os, subprocess, sys
read_end, write_end = os.pipe()
by = ["--lifeline-fd", str(read_end)] if sys.argv[1] == "pipe" else ["--parent-pid", str(os.getpid())]
engine = subprocess.Popen([sys.executable, "-m", "spillway", "engine", "--model", sys.argv[2], "--port", "0", *by],
                          pass_fds=(read_end,), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
engine.stdout.readline()
print(engine.pid, flush=True)
engine.wait()
"""


@pytest.mark.parametrize("way", ["pipe", "pid"])
def test_a_killed_parent_leaves_no_engine_behind(way: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, way, str(MODEL)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        assert not is_gone(pid)
        parent.kill()
        parent.wait()
        eventually(lambda: is_gone(pid))
    finally:
        parent.stdout.close()
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


WATCHED = """
import os, sys
seen = open(os.environ["SEEN"], "w", buffering=1)

def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.posix_spawn", "os.fork"):
        print(event, arguments[1:] if event == "socket.connect" else arguments, file=seen)

sys.addaudithook(hook)
from spillway.cli.main import main
sys.exit(main())
"""


def test_it_calls_nobody_and_writes_nothing_home(start_engine: StartEngine, tmp_path: Path) -> None:
    """Importing OpenVINO would start a telemetry client that does both."""
    home = tmp_path / "home"
    home.mkdir()
    seen = tmp_path / "seen"
    engine = start_engine(command=("-c", WATCHED), env={"HOME": str(home), "SEEN": str(seen)})
    assert engine.chat(max_tokens=3)[0] == 200
    status, _ = engine.end()
    assert status == 0
    assert seen.read_text() == ""
    assert list(home.iterdir()) == []


def test_clients_that_leave_free_their_places(start_engine: StartEngine) -> None:
    engine = start_engine(*SLOW, "--max-sequences", "4")
    with ExitStack() as streams:
        for _ in range(4):
            streams.enter_context(streaming(engine, **LONG))
        eventually(lambda: engine.metric("vllm:num_requests_running") == 4)
        assert engine.metric("vllm:kv_cache_usage_perc") > 0
    eventually(lambda: engine.metric("vllm:num_requests_running") == 0)
    eventually(lambda: engine.metric("vllm:kv_cache_usage_perc") == 0)
    before = engine.metric("vllm:generation_tokens_total")
    assert engine.chat(max_tokens=5, ignore_eos=True)[0] == 200
    assert engine.metric("vllm:generation_tokens_total") == before + 5


def test_a_full_waiting_room_is_a_429(start_engine: StartEngine) -> None:
    engine = start_engine(*SLOW, "--max-sequences", "2", "--max-waiting", "1")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(engine.ask, "POST", "/v1/chat/completions", json.dumps(
            {"model": "npc-1.9m", "max_tokens": 60, "ignore_eos": True, "messages": [{"role": "user", "content": "hello"}]}
        ).encode()) for _ in range(8)]  # fmt: skip
        answers = [one.result() for one in asked]
    statuses = sorted(status for status, _, _ in answers)
    assert statuses.count(200) >= 3
    assert set(statuses) == {200, 429}
    refused = next(headers for status, headers, _ in answers if status == 429)
    assert int(refused["retry-after"]) >= 1
    assert engine.chat(max_tokens=3)[0] == 200


def test_steps_last_what_the_pace_says(start_engine: StartEngine) -> None:
    engine = start_engine("--pace-ms", "10", "--pace-per-seq-ms", "2")
    for streams in (1, 4):
        steps, spent_s = (
            engine.metric("spillway_engine_steps_total"),
            engine.metric("spillway_engine_step_seconds_total"),
        )
        with ThreadPoolExecutor(streams) as pool:
            for _ in range(streams):
                pool.submit(engine.chat, max_tokens=40, ignore_eos=True)
        steps = engine.metric("spillway_engine_steps_total") - steps
        spent_s = engine.metric("spillway_engine_step_seconds_total") - spent_s
        step_ms = 1000 * spent_s / steps
        assert (
            10 + 2 * 1 - 0.2 <= step_ms <= 1.6 * (10 + 2 * streams)
        )  # never shorter; longer where the machine is busy


def test_a_folder_without_a_model_is_said_plainly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spillway", "engine", "--model", str(tmp_path), "--port", "0"],
        capture_output=True, text=True, timeout=END_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "spillway", "engine", "--model", str(MODEL), "--port", str(port)],
            capture_output=True, text=True, timeout=END_S, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_numbers_that_make_no_sense_are_usage_errors() -> None:
    for arguments in (("--max-sequences", "0"), ("--pace-ms", "-1"), ("--kv-cache-tokens", "100")):
        done = subprocess.run(
            [sys.executable, "-m", "spillway", "engine", "--model", str(MODEL), "--port", "0", *arguments],
            capture_output=True, text=True, timeout=END_S, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
