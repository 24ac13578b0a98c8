"""Two and a half million tenants, of which some are active: what a gateway holds of them, and what their keys cost.

    .venv/bin/python benchmarks/tenants.py [--tenants 2500000] [--active 10000] [--home DIR]

Seeds a database (kept with --home, and taken again as it is), starts `spillway serve` with one worker on it and the scripted
upstream, and calls with the keys of the active ones: once each (first use), then again (known). Then a flood of made-up keys. All tenants
have three limits. Prints one line of JSON: seconds to seed, memory of the worker and the parent, latencies of first and known use and what
first use adds, the look-up of a known key by itself, and the flood's cost and traces.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

from spillway.app.system import SystemClock, SystemRng
from spillway.core.ids import KeyId, TenantId
from spillway.core.priority import Priority
from spillway.gateway.ports import Principal
from spillway.store.keyring import Entry, Keys, LookedUp
from spillway.store.minting import digest_of, load_seal
from spillway.store.opening import Stores
from spillway.store.seeding import seed, seeded_secret
from spillway.store.settings import Settings
from spillway.testing.processes import SpawnedProcess, descendants, started
from spillway.testing.rng import SeededRng
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble

PLAN = {"requests_per_minute": 600, "tokens_per_minute": 100_000, "usd_per_month": 100.0}
BODY = json.dumps({"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}).encode()
FLOOD = 20_000
SETTLE_S = 4.0  # until what was used is in the store
STEP = 251  # active tenants are spread over all


def configuration(home: Path, upstream: str) -> dict[str, object]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{probe.getsockname()[1]}"
    pool = {
        "model": "fake", "cluster": "here", "endpoints": [upstream], "limit": 64, "probe_path": "",
        "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0},
    }  # fmt: skip
    return {
        "gateway": {"listen": "127.0.0.1:0", "admin": admin, "home": str(home), "default_plan": "all"},
        "plans": {"all": PLAN},
        "clusters": {"here": {}},
        "pools": {"east": pool},
        "models": {"m": {"tiers": [["east"]]}},
    }


class Client:
    """One kept-alive connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, secret: str) -> tuple[int, float]:
        """The status, and milliseconds."""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {secret}\r\ncontent-length: {len(BODY)}\r\n\r\n"
        )
        begin = time.perf_counter()
        self._writer.write(head.encode() + BODY)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await self._reader.readexactly(length)
        return int(answer[9:12]), (time.perf_counter() - begin) * 1e3


def spread(values: list[float]) -> dict[str, float]:
    cut = statistics.quantiles(values, n=1000)
    return {"p50": round(cut[499], 3), "p99": round(cut[989], 3), "max": round(max(values), 3)}


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def prepared(home: Path, count: int) -> float:
    """Seconds that it took to seed."""
    begin = time.perf_counter()
    async with Stores(Settings(), home) as stores:
        seal = load_seal(home, SystemRng())
        known = await stores.keys.rows(tenant=TenantId(f"seeded-t{count - 1}"))
        if not known:
            await seed(stores.database, seal, count, SeededRng)
    return round(time.perf_counter() - begin, 1)


def looked_up_ns(secrets: list[str], seal: bytes) -> dict[str, float]:
    """Of a known key, by itself, over all active ones in turn."""
    loop = asyncio.get_running_loop()
    keys = Keys(seal, SystemClock(), loop, lambda _: None)
    entries = [
        Entry(digest, Principal(KeyId(f"k{number}"), TenantId(f"t{number}"), None, Priority.REALTIME), None)
        for number, secret in enumerate(secrets)
        if (digest := digest_of(secret.encode(), seal)) is not None
    ]
    keys.take(LookedUp(tuple(entries)))
    encoded, times = [secret.encode() for secret in secrets], list[float]()
    for secret in encoded * 2:
        begin = time.perf_counter_ns()
        keys.find(secret)
        times.append((time.perf_counter_ns() - begin) / 1e3)
    return spread(times[len(encoded) :])


async def measure(process: SpawnedProcess, port: int, home: Path, secrets: list[str]) -> dict[str, object]:
    worker, parent = descendants(process.pid)[0], process.pid
    figures: dict[str, object] = {"rss_mb_at_start": rss_mb(worker)}
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    first, known = list[float](), list[float]()
    for times in (first, known):
        for secret in secrets:
            status, ms = await client.ask(secret)
            if status != 200:
                raise SystemExit(f"a key was answered with {status}")
            times.append(ms)
    figures |= {"first_use_ms": spread(first), "known_ms": spread(known)}
    figures["first_use_adds_ms"] = round(statistics.median(first) - statistics.median(known), 3)
    figures |= {"worker_rss_mb": rss_mb(worker), "parent_rss_mb": rss_mb(parent)}
    await asyncio.sleep(SETTLE_S)
    size = {path.name: path.stat().st_size for path in (home / "spillway.db", home / "spillway.db-wal")}
    before, spool = cpu_s(worker), sum(path.stat().st_size for path in (home / "spool").glob("*"))
    for number in range(FLOOD):
        status, _ = await client.ask(f"sk-{number:040d}")
        if status != 401:
            raise SystemExit(f"a made-up key was answered with {status}")
    figures["flood_us_of_cpu"] = round((cpu_s(worker) - before) / FLOOD * 1e6, 1)
    figures["flood_rss_mb"] = rss_mb(worker)
    figures["flood_wrote_bytes"] = (
        sum(path.stat().st_size for path in (home / "spillway.db", home / "spillway.db-wal")) - sum(size.values())
        + sum(path.stat().st_size for path in (home / "spool").glob("*")) - spool
    )  # fmt: skip
    figures["look_up_us"] = looked_up_ns(secrets, load_seal(home, SystemRng()))
    return figures


async def benchmark(home: Path, tenants: int, active: int) -> dict[str, object]:
    figures: dict[str, object] = {"tenants": tenants, "active": active, "seeded_in_s": await prepared(home, tenants)}
    figures["database_mb"] = round((home / "spillway.db").stat().st_size / 1e6)
    seal = load_seal(home, SystemRng())
    secrets = [seeded_secret(number * STEP % tenants, seal, SeededRng) for number in range(active)]
    async with UpstreamDouble(UpstreamSpec(output_tokens=2)) as upstream:
        path = home / "benchmark.yaml"
        path.write_text(json.dumps(configuration(home, upstream.url)))
        loop = asyncio.get_running_loop()
        with started("serve", "--config", str(path)) as process:
            ready = await loop.run_in_executor(
                None, lambda: process.wait_for(r"ready: http://127\.0\.0\.1:(\d+)/v1", deadline_s=60.0)
            )
            figures |= await measure(process, int(ready[1]), home, secrets)
            await loop.run_in_executor(None, process.stop)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tenants", type=int, default=2_500_000)
    parser.add_argument("--active", type=int, default=10_000)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = arguments.home or Path(folder)
        print(json.dumps(asyncio.run(benchmark(home, arguments.tenants, arguments.active))))


if __name__ == "__main__":
    main()
