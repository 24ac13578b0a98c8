"""Very large inputs on a Ray cluster of two node processes: the same row function, and what is begun again goes on."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spillway.batch.blocks import cut, lines_in
from spillway.testing.processes import SpawnedProcess, started_command
from spillway.testing.seen import Ending
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, free_port, running

ray = pytest.importorskip("ray", reason="needs spillway[ray]")
pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(240)]

CHAT = "/v1/chat/completions"
LINES = 600
RAY = str(Path(sys.executable).parent / "ray")
ENVIRON = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one CPU each; the head's address."""
    port = free_port()
    common = ["--num-cpus", "1", "--object-store-memory", "100000000", "--disable-usage-stats", "--block"]
    head = [
        RAY,
        "start",
        "--head",
        "--port",
        str(port),
        "--node-ip-address",
        "127.0.0.1",
        "--include-dashboard=false",
        *common,
    ]
    with started_command(head, env=ENVIRON) as first:
        first.wait_for("Ray runtime started", deadline_s=60.0)
        worker = [RAY, "start", "--address", f"127.0.0.1:{port}", "--node-ip-address", "127.0.0.1", *common]
        with started_command(worker, env=ENVIRON) as second:
            second.wait_for("Ray runtime started", deadline_s=60.0)
            yield f"127.0.0.1:{port}"


def body_of(fleet: Fleet, number: int) -> dict[str, Any]:
    text = " ".join(["word"] * (1 + number % 37))
    return {"model": fleet.model, "max_tokens": 2, "messages": [{"role": "user", "content": text}]}


def submitting(gateway: Gateway, cluster: str, source: Path, target: Path) -> list[str]:
    return [
        sys.executable, "-m", "spillway", "batch", "submit", str(source), "--executor", "ray", "--ray-address", cluster,
        "--output", str(target), "--url", f"http://127.0.0.1:{gateway.port}", "--key", KEY, "--json", "--in-flight", "8",
    ]  # fmt: skip


async def ended(process: SpawnedProcess) -> dict[str, Any]:
    assert await asyncio.to_thread(process.wait, deadline_s=120.0) == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_two_nodes_compute_it_and_what_was_killed_goes_on(gateway: Gateway, cluster: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        spec = UpstreamSpec(time_to_first_token_s=0.05)
        async with gateway.fleet(Site("east", spec)) as fleet:
            source, target = tmp_path / "in.jsonl", tmp_path / "out"
            with source.open("w") as file:
                for number in range(LINES):
                    line = {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body_of(fleet, number)}
                    file.write(json.dumps(line) + " " * 9000 + "\n")  # several blocks
            command = submitting(gateway, cluster, source, target)
            with started_command(command, env=ENVIRON) as process:
                async with asyncio.timeout(90.0):
                    while not list((target / "output").glob("0*.jsonl")):
                        assert process.exit_status is None, process.stderr[-3000:]
                        await asyncio.sleep(0.05)
                process.kill()
            finished = {path.name: path.stat().st_mtime_ns for path in (target / "output").glob("0*.jsonl")}
            with started_command(command, env=ENVIRON) as process:
                outcome = await ended(process)
            assert outcome["blocks"] == 6
            assert outcome["skipped"] >= len(finished) >= 1
            assert all((target / "output" / name).stat().st_mtime_ns == at for name, at in finished.items())
            rows = rows_in(target / "output")
            assert [row["custom_id"] for row in rows] == [str(number) for number in range(LINES)]
            told = [row["response"]["body"]["usage"]["prompt_tokens"] for row in rows]
            assert told == [1 + number % 37 for number in range(LINES)]
            assert fleet["east"].log.endings[Ending.FINISHED] >= LINES
            with started_command(command, env=ENVIRON) as process:  # nothing is left to do
                assert await ended(process) == {"blocks": 6, "skipped": 6, "completed": 0, "failed": 0}

    asyncio.run(asyncio.wait_for(scenario(), 220.0))


def test_parquet_by_row_groups(gateway: Gateway, cluster: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with gateway.fleet(Site("east")) as fleet:
            source, target = tmp_path / "in.parquet", tmp_path / "out"
            bodies = [json.dumps(body_of(fleet, number)) for number in range(60)]
            bodies[7] = bodies[7].replace('"messages"', '"user": "fault:context_length_exceeded", "messages"')
            table = pa.table({"custom_id": [str(number) for number in range(60)], "body": bodies})
            pq.write_table(table, source, row_group_size=20)
            with started_command(submitting(gateway, cluster, source, target), env=ENVIRON) as process:
                assert await asyncio.to_thread(process.wait, deadline_s=90.0) == 1, process.stderr[
                    -3000:
                ]  # a line failed
                outcome = json.loads(process.stdout.splitlines()[-1])
            assert outcome == {"blocks": 3, "skipped": 0, "completed": 59, "failed": 1}
            assert [row["custom_id"] for row in rows_in(target / "errors")] == ["7"]
            assert [row["custom_id"] for row in rows_in(target / "output")] == [str(n) for n in range(60) if n != 7]

    asyncio.run(asyncio.wait_for(scenario(), 120.0))


def test_blocks_hold_all_lines_once(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        json.dumps(
            {"custom_id": str(n), "method": "POST", "url": CHAT, "body": {"model": "m", "x": "y" * (n * 7 % 50)}}
        )
        for n in range(100)
    ]
    source.write_text("\n".join(lines))
    blocks = cut(source, 500)
    assert len(blocks) > 10
    found = [(number, line.custom_id) for block in blocks for number, line in lines_in(block, CHAT)]
    assert found == [(n, str(n)) for n in range(100)]
    assert [block.first for block in blocks] == [sum(b.lines for b in blocks[:n]) for n in range(len(blocks))]
