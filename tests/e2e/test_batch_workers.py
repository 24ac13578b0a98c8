"""Batch workers on hosts of their own: nothing but a PostgreSQL, an S3 and a gateway's address."""

import asyncio
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from spillway.testing.postgres import PostgresServer
from spillway.testing.processes import started, started_command
from spillway.testing.spec import UpstreamSpec
from tests.e2e.gateway import DEADLINE_S, KEY, Site, running, write_config
from tests.needs import needs_postgres

pytestmark = [pytest.mark.server, pytest.mark.slow, needs_postgres]

CHAT = "/v1/chat/completions"
SEAL = "5a" * 32
S3 = {"url": "s3://objects/here", "access_key": "test", "secret_key": "test", "region": "us-east-1"}


def test_two_of_them_share_the_work_and_one_may_die(tmp_path: Path) -> None:
    moto = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", "0"]
    with PostgresServer() as server, started_command(moto, env=dict(os.environ)) as objects:
        address = objects.wait_for(r"Running on (http://127\.0\.0\.1:\d+)", deadline_s=30.0)[1]
        made = urllib.request.Request(f"{address}/objects", method="PUT")
        urllib.request.urlopen(made, timeout=10.0).close()
        store = {"url": server.database(), "spool": {"segment_s": 0.1}, "objects": {**S3, "endpoint": address}}
        batch = {"workers": 0, "poll_s": 0.1, "lease_s": 1.5, "shard_lines": 16, "in_flight": 8}
        with running({"key_secret": SEAL}, store=store, batch=batch) as gateway:
            asyncio.run(asyncio.wait_for(scenario(gateway, tmp_path), 2 * DEADLINE_S))


async def scenario(gateway: Any, tmp_path: Path) -> None:
    site = Site("east", UpstreamSpec(time_to_first_token_s=0.05))
    async with (
        gateway.fleet(site) as fleet,
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=KEY) as client,
    ):
        lines = [
            {"custom_id": str(n), "method": "POST", "url": CHAT, "body": fleet.body(max_tokens=2)} for n in range(400)
        ]
        content = "\n".join(map(json.dumps, lines)).encode()
        file = await client.files.create(file=("in.jsonl", content), purpose="batch")
        made = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        words = (
            "batch",
            "worker",
            "--config",
            str(write_config(tmp_path, gateway.config)),
            "--home",
            str(tmp_path / "own"),
        )
        words += ("--gateway", f"http://127.0.0.1:{gateway.port}")
        with started(*words) as first, started(*words) as second:
            await asyncio.to_thread(first.wait_for, "is at work")
            await asyncio.to_thread(second.wait_for, "is at work")
            while True:
                now = await client.batches.retrieve(made.id)
                counts = now.request_counts
                if counts is not None and counts.completed > 50 and first.exit_status is None:
                    first.kill()
                if now.status not in ("validating", "in_progress", "finalizing"):
                    break
                await asyncio.sleep(0.05)
            assert (now.status, first.exit_status) == ("completed", -9)
            assert await asyncio.to_thread(second.stop) == 0
        assert now.output_file_id is not None
        rows = [json.loads(row) for row in (await client.files.content(now.output_file_id)).text.splitlines()]
        assert [row["custom_id"] for row in rows] == [str(n) for n in range(400)]
