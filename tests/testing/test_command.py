"""`spillway upstream` as a process, and the tools that start and stop processes."""

import json
import signal
import sys
import urllib.error
import urllib.request
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from spillway.cli import upstream
from spillway.core.errors import ConfigError, UsageError
from spillway.testing.processes import ProcessError, descendants, running, started, started_command, wait_gone
from spillway.testing.spec import LatencyLine


def parsed(*words: str) -> Namespace:
    parser = ArgumentParser()
    upstream.add_arguments(parser)
    return parser.parse_args(words)


def test_options_make_a_spec() -> None:
    spec = upstream.spec_of(
        parsed("--model", "a", "--model", "b", "--inter-token-latency", "20ms", "--max-num-seqs", "7",
               "--latency-line", "0.9,0.02", "--reference", "100,50")
    )  # fmt: skip
    assert spec.models == ("a", "b")
    assert spec.inter_token_latency_s == pytest.approx(0.02)
    assert spec.max_num_seqs == 7
    assert spec.latency_line == LatencyLine(0.9, 0.02, 100, 50)


@pytest.mark.parametrize(
    "words",
    [
        ("--inter-token-latency", "20"),
        ("--latency-line", "0.9"),
        ("--max-num-seqs", "0"),
        ("--time-factor-under-load", "0.5"),
    ],
)
def test_options_that_make_no_spec(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        upstream.spec_of(parsed(*words))


@pytest.mark.parametrize("text", ["- 503@5-65\n", '["503@5-65"]', 'faults: ["503@5-65"]\nforget: true\n'])
def test_a_script_file_and_the_command_line_together(text: str, tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)
    orders = upstream.orders_of(parsed("--script", str(path), "--fault", "cut:1", "--failure-injection-rate", "5"))
    assert orders.faults == ["503@5-65", "cut:1"]
    assert orders.failures is not None
    assert orders.failures.failure_injection_rate == 5.0


def test_a_script_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    with pytest.raises(ConfigError, match=r"script\.yaml"):
        upstream.orders_of(parsed("--script", str(path)))
    path.write_text("sunspots: 1")
    with pytest.raises(ConfigError, match="sunspots"):
        upstream.orders_of(parsed("--script", str(path)))


@pytest.mark.server
def test_the_command_serves_logs_and_stops(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    words = ("upstream", "--model", "npc", "--fault", "503:count=1", "--log", str(log), "--json")
    with started(*words) as process:
        url = process.wait_for(r'"url":"([^"]+)"')[1]
        body = json.dumps({"model": "npc", "prompt": "a", "max_tokens": 2}).encode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}/v1/completions", body, timeout=10)
        assert caught.value.code == 503
        caught.value.close()
        with urllib.request.urlopen(f"{url}/v1/completions", body, timeout=10) as reply:
            assert json.load(reply)["usage"]["completion_tokens"] == 2
        assert process.stop() == 0
    endings = [json.loads(line)["ending"] for line in log.read_text().splitlines()]
    assert endings == ["open", "faulted", "open", "finished"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("words", "status"), [(("--fault", "sunspots"), 2), (("--latency-line", "1"), 2), (("--host", "203.0.113.1"), 1)]
)
def test_the_command_says_what_is_wrong(words: tuple[str, ...], status: int) -> None:
    with started("upstream", *words) as process:
        assert process.wait(deadline_s=20) == status
        assert process.stderr.startswith("spillway upstream: ")
        assert "Traceback" not in process.stderr


SLEEPER = "import signal, subprocess, sys\nchild = subprocess.Popen(['sleep', '600'])\nprint('up', child.pid, flush=True)\nsignal.pause()\n"


@pytest.mark.server
def test_children_are_found_and_nothing_is_left() -> None:
    with started_command([sys.executable, "-c", SLEEPER]) as process:
        child = int(process.wait_for(r"up (\d+)")[1])
        assert descendants(process.pid) == [child]
        process.kill()
        assert process.exit_status == -signal.SIGKILL
        assert running(child)
        with pytest.raises(ProcessError, match=str(child)):
            wait_gone([child], deadline_s=0.1)
    wait_gone([child])


@pytest.mark.server
def test_waiting_for_words_that_never_come() -> None:
    with started_command([sys.executable, "-c", "print('last words'); raise SystemExit(3)"]) as process:
        with pytest.raises(ProcessError, match=r"ended with 3 before[\s\S]*last words"):
            process.wait_for("ready")
        assert process.wait() == 3
    with started_command([sys.executable, "-c", SLEEPER]) as process:
        with pytest.raises(ProcessError, match="within"):
            process.wait_for("ready", deadline_s=0.2)
        with pytest.raises(ProcessError, match="still runs"):
            process.wait(deadline_s=0.1)
