"""What accounting costs a request on its way: the key's look-up, the counting of its end, its usage record.

CPU microseconds for each, best of `--rounds` rounds with the loop taken off; the machine is noisy upwards only. Also how
many records a second the database takes from the spool. Prints JSON.

    python benchmarks/accounting.py [--rounds 7] [--times 100000]
"""

import argparse
import asyncio
import gc
import json
import logging
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec

from spillway.core.ids import KeyId, ModelName, OrganizationId, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.gateway.ports import Principal
from spillway.quota.rules import Owner, Quota
from spillway.store.intake import Intake
from spillway.store.keyring import Entry, Keys, LookedUp
from spillway.store.minting import new_secret
from spillway.store.opening import Stores
from spillway.store.settings import Settings, SpoolSettings
from spillway.store.spool import Spool
from spillway.telemetry.gateway_metrics import GatewayMetrics
from spillway.telemetry.metrics import Registry
from spillway.testing.clock import ManualClock, ManualTimers
from spillway.testing.rng import SeededRng

SEAL = b"s" * 32
RECORD = UsageRecord(
    request=RequestId("req_abcdefghijkl0"), finished_at_s=1_767_225_600.0, tenant=TenantId("acme"), key=KeyId("key_abcdefghijkl"),
    model=ModelName("npc"), version=VersionName("npc-1.9m"), pool=PoolName("npc@east"), priority=Priority.INTERACTIVE,
    outcome=Outcome.OK, attempts=1, spilled=False, streamed=True, prompt_tokens=200, cached_tokens=None,
    completion_tokens=80, estimated=False, ttft_s=0.2, tpot_s=0.02, duration_s=1.8, cost_usd=0.000_078,
)  # fmt: skip


def best_us(work: Callable[[], object], rounds: int, times: int) -> float:
    """CPU time of one call, without that of calling nothing."""
    repeated = range(times)

    def measured(call: Callable[[], object]) -> int:
        gc.collect()
        start = time.process_time_ns()
        for _ in repeated:
            call()
        return time.process_time_ns() - start

    nothing = min(measured(lambda: None) for _ in range(rounds))
    return round((min(measured(work) for _ in range(rounds)) - nothing) / times / 1000, 3)


def principal(number: int) -> Principal:
    return Principal(KeyId(f"key_{number:012x}"), TenantId(f"tenant-{number}"), None, Priority.INTERACTIVE)


def keyring(max_secrets: int) -> Keys:
    return Keys(SEAL, ManualClock(), ManualTimers(), lambda _: None, max_secrets=max_secrets)


def known_bytes(count: int) -> float:
    """What one key costs a worker that has used it: as it comes over the channel, a tenant, an organization and a plan each."""
    made = [new_secret(SeededRng(seed), SEAL) for seed in range(count)]
    plan = Quota(tokens_per_minute=6000, usd_per_day=0.5)
    entries: list[Entry] = []
    for number, (_, digest) in enumerate(made):
        one = principal(number)
        owner = Owner(one.tenant, OrganizationId(f"organization-{number // 10}"), plan, plan)
        entries.append(Entry(digest, msgspec.structs.replace(one, organization=owner.organization, owner=owner), None))
    sent = msgspec.msgpack.encode(LookedUp(tuple(entries)))
    secrets = [secret.encode() for secret, _ in made]
    del made, entries
    keys = keyring(16_384)
    gc.collect()
    tracemalloc.start()
    keys.take(msgspec.msgpack.decode(sent, type=LookedUp))
    for secret in secrets:
        keys.find(bytes(bytearray(secret)))  # as a request brings it: bytes of its own
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(used / count)


def keys_us(rounds: int, times: int) -> dict[str, float]:
    made = [new_secret(SeededRng(seed), SEAL) for seed in range(10_000)]
    warm, cold, stranger = keyring(16_384), keyring(1), keyring(1)
    answer = LookedUp(tuple(Entry(digest, principal(number), None) for number, (_, digest) in enumerate(made)))
    for keys in (warm, cold):
        keys.take(answer)
    one, two, unknown = made[0][0].encode(), made[1][0].encode(), b"sk-" + b"x" * 40
    return {
        "look_up_answered": best_us(lambda: stranger.take(answer), rounds, 10) / len(made),
        "seen_lately": best_us(lambda: warm.find(one), rounds, times),
        "not_seen": best_us(lambda: (cold.find(one), cold.find(two)), rounds, times // 2) / 2,
        "unknown": best_us(lambda: warm.find(unknown), rounds, times),
    }


def ended_us(rounds: int, times: int) -> float:
    metrics = GatewayMetrics(Registry(), [ModelName("npc")])
    return best_us(lambda: metrics.ended(RECORD, 0.0003), rounds, times)


def put_us(rounds: int, times: int, folder: Path) -> float:
    """Writing to the file included. The disk's room is never reached: nobody closes segments by time here."""
    settings = SpoolSettings(segment_bytes=1 << 40, max_bytes=1 << 40)
    spool = Spool(folder, worker="w1", timers=ManualTimers(), settings=settings, closed=lambda _: None)
    return best_us(lambda: spool.put(RECORD), rounds, times)


async def ingested_per_s(folder: Path, records: int) -> int:
    settings = SpoolSettings(max_bytes=1 << 40)
    spool = Spool(folder / "spool", worker="w1", timers=ManualTimers(), settings=settings, closed=lambda _: None)
    for number in range(records):
        spool.put(msgspec.structs.replace(RECORD, request=RequestId(f"req_abcdefghijkl{number:x}")))
    spool.close()
    async with Stores(Settings(), folder) as stores:
        intake = Intake(folder / "spool", stores.usage, log=logging.getLogger("spillway"))
        start = time.perf_counter()
        await intake.drain()
        return round(intake.state.ingested / (time.perf_counter() - start))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=100_000)
    arguments = parser.parse_args()
    rounds, times = arguments.rounds, arguments.times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "key_us": keys_us(rounds, times),
            "key_bytes": known_bytes(10_000),
            "ended_us": ended_us(rounds, times),
            "put_us": put_us(3, times, folder / "put"),
            "ingested_per_s": asyncio.run(ingested_per_s(folder, 100_000)),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
