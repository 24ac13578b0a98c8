"""What the stores cost on SQLite and on PostgreSQL, side by side in one run.

    .venv/bin/python benchmarks/databases.py [--rounds 200]

Milliseconds of waiting and of CPU in this process: of a look-up of 64 keys among 10,000, and of taking in 128 usage records.
PostgreSQL is one of its own on the loopback, with fsync off; SQLite is as in production. Prints one line of JSON.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from spillway.core.ids import KeyId, ModelName, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.store.minting import mint
from spillway.store.opening import Stores
from spillway.store.rows import Audit, KeyRow
from spillway.store.settings import Settings
from spillway.testing.postgres import PostgresServer
from spillway.testing.rng import SeededRng

SEAL = b"s" * 32
KEYS, ASKED, RECORDS = 10_000, 64, 128
AUDIT = Audit(1.0, "cli", "key.create", "key", None, None, None)
RECORD = UsageRecord(
    request=RequestId("req_0"), finished_at_s=1_767_225_660.0, tenant=TenantId("t0"), key=KeyId("key_a"), model=ModelName("npc"),
    version=VersionName("npc-1"), pool=PoolName("npc@east"), priority=Priority.INTERACTIVE, outcome=Outcome.OK, attempts=1,
    spilled=False, streamed=True, prompt_tokens=100, cached_tokens=None, completion_tokens=20, estimated=False, ttft_s=0.2,
    tpot_s=0.02, duration_s=0.6, cost_usd=0.000_123,
)  # fmt: skip


async def timed(rounds: int, act: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    for number in range(rounds):
        await act(number)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    return {"ms": round(wall_s / rounds * 1e3, 3), "cpu_ms": round(cpu_s / rounds * 1e3, 3)}


def minted(number: int) -> KeyRow:
    return mint(SeededRng(number), SEAL, now_s=1.0, tenant=TenantId(f"t{number}"))[0]


async def measure(url: str, home: Path, keys: list[KeyRow], rounds: int) -> dict[str, dict[str, float]]:
    async with Stores(Settings(url=url), home) as stores:
        for key in keys:
            await stores.keys.add(key, AUDIT)
        digests = [key.digest for key in keys]

        async def look_up(number: int) -> None:
            at = number * ASKED % (KEYS - ASKED)
            if len(await stores.keys.identities(digests[at : at + ASKED])) != ASKED:
                raise SystemExit("a key is missing")

        async def take_in(number: int) -> None:
            records = [
                msgspec.structs.replace(
                    RECORD, request=RequestId(f"req_{number}_{one}"), tenant=TenantId(f"t{one % 32}")
                )
                for one in range(RECORDS)
            ]
            if (await stores.usage.ingest(records)).fresh != RECORDS:
                raise SystemExit("a record is missing")

        return {"look_up_64_keys": await timed(rounds, look_up), "take_in_128_records": await timed(rounds, take_in)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    keys = [minted(number) for number in range(KEYS)]
    with tempfile.TemporaryDirectory() as folder, PostgresServer() as server:
        places = {"sqlite": "sqlite:spillway.db", "postgresql": server.database()}
        print(
            json.dumps(
                {name: asyncio.run(measure(url, Path(folder), keys, arguments.rounds)) for name, url in places.items()}
            )
        )


if __name__ == "__main__":
    main()
