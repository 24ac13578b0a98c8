"""A process that spools usage until it is killed: `python spool_writer.py DIRECTORY WORKER`.

Prints, after each record, its number and the monotonic time at which it was put.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from spillway.core.ids import KeyId, ModelName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord
from spillway.store.settings import SpoolSettings
from spillway.store.spool import Spool


async def main(directory: Path, worker: str) -> None:
    settings = SpoolSettings(segment_bytes=40_000, segment_s=0.1)
    spool = Spool(directory, worker=worker, timers=asyncio.get_running_loop(), settings=settings, closed=lambda _: None)
    number = 0
    while True:
        for _ in range(5):
            spool.put(record_of(worker, number))
            os.write(1, b"%d %.6f\n" % (number, time.monotonic()))
            number += 1
        await asyncio.sleep(0.001)


def record_of(worker: str, number: int) -> UsageRecord:
    return UsageRecord(
        request=RequestId(f"{worker}-{number}"), finished_at_s=1_767_225_600.0, tenant=TenantId("acme"),
        key=KeyId("key_a"), model=ModelName("npc"), version=None, pool=None, priority=Priority.BATCH,
        outcome=Outcome.OK, attempts=1, spilled=False, streamed=False, prompt_tokens=10, cached_tokens=None,
        completion_tokens=1, estimated=False, ttft_s=None, tpot_s=None, duration_s=0.1, cost_usd=0.0,
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
