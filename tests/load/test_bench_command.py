"""The command as a process: what it prints, what it writes, and its exit status."""

import asyncio
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from spillway.load.record import RequestRecord
from spillway.testing.processes import SpawnedProcess, started
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble

pytestmark = pytest.mark.server

SPEC = UpstreamSpec(time_to_first_token_s=0.02, inter_token_latency_s=0.001, output_tokens=10)


def against_upstream(
    words: list[str], follow: Callable[[SpawnedProcess, UpstreamDouble], None], *rules: str
) -> tuple[int, str, str]:
    """Exit status, output and messages of the command. `follow` runs beside it, in a thread."""

    async def work() -> tuple[int, str, str]:
        async with UpstreamDouble(SPEC) as upstream:
            upstream.misbehave(*rules)
            with started("bench", "--url", upstream.url, "--model", "fake", *words) as process:
                await asyncio.to_thread(follow, process, upstream)
                status = await asyncio.to_thread(process.wait, deadline_s=40.0)
                return status, process.stdout, process.stderr

    return asyncio.run(work())


def watch(process: SpawnedProcess, upstream: UpstreamDouble) -> None:
    """Does nothing beside the command."""


def test_results_in_every_form(tmp_path: Path) -> None:
    log, page, output = tmp_path / "log.jsonl", tmp_path / "page.html", tmp_path / "out.json"
    keys = tmp_path / "keys"
    keys.write_text("one sk-1\ntwo sk-2-secret 3\n")
    status, out, err = against_upstream(
        [
            "--profile", "poisson", "--rate", "100", "--burstiness", "0.5", "--duration", "2", "--warmup", "0.5",
            "--slo", "ttft_ms=1000,tpot_ms=60", "--require", "goodput_rps>=10", "--require", "ttft_ms.p99<5000",
            "--keys-file", str(keys), "--log", str(log), "--html", str(page), "--output", str(output), "--json",
        ],
        watch,
    )  # fmt: skip
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result == json.loads(output.read_text())
    assert result["slo"] == {"ttft_ms": 1000.0, "tpot_ms": 60.0}
    assert result["requests"] == result["ok"] > 50
    assert set(result["clients"]) == {"one", "two"}
    assert [verdict["met"] for verdict in result["requirements"]] == [True, True]

    records = [msgspec.json.decode(line, type=RequestRecord) for line in log.read_text().splitlines()]
    assert sum(not record.warmup for record in records) == result["requests"]
    assert [record.index for record in sorted(records, key=lambda record: record.index)] == list(range(len(records)))
    for text in (out, log.read_text(), page.read_text()):
        assert "secret" not in text

    html = page.read_text()
    assert html.count("<svg") == html.count("</svg>") >= 6
    assert set(re.findall(r"https?://[^\"'<\s]*", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_a_missed_requirement_is_exit_status_1() -> None:
    status, out, err = against_upstream(
        ["--profile", "concurrent", "--rate", "4", "--max-requests", "40", "--require", "failed==0"],
        watch,
        "503:share=0.5",
    )
    assert status == 1
    assert "MISSED failed==0" in out
    assert "time to first token" in out
    assert err == ""


def test_ctrl_c_gives_the_results_so_far() -> None:
    def interrupt(process: SpawnedProcess, upstream: UpstreamDouble) -> None:
        process.wait_until(lambda: upstream.log.arrived > 30, deadline_s=20, what="load")
        process.signal(signal.SIGINT)

    status, out, _ = against_upstream(
        ["--profile", "constant", "--rate", "50", "--duration", "600", "--json"], interrupt
    )
    result = json.loads(out)
    assert status == 0
    assert result["stopped"] is True
    assert result["ok"] > 10
    assert result["duration_s"] < 60


def test_ctrl_c_before_there_are_results() -> None:
    def interrupt(process: SpawnedProcess, upstream: UpstreamDouble) -> None:
        process.wait_until(lambda: upstream.log.arrived > 0, deadline_s=20, what="a probe")
        process.signal(signal.SIGINT)

    status, out, err = against_upstream(["--rate", "50"], interrupt, "no_response")
    assert (status, out) == (1, "")
    assert "stopped before anything was measured" in err
