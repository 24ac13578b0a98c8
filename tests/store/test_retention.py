"""Old usage goes, in its time, and a store that is away only delays it."""

import asyncio
import logging

import pytest
from tests.store.conftest import HOUR_S, MakeRecord

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.core.ids import RequestId
from spillway.store.memory_usage import MemoryUsage
from spillway.store.retention import Retention
from spillway.store.rows import HourQuery
from spillway.store.settings import Settings
from spillway.testing.clock import ManualClock
from spillway.testing.waiting import eventually

KEEP = Settings(keep_records_s=86_400.0, keep_hours_s=10 * 86_400.0)


class OnceAway(MemoryUsage):
    """Cannot forget the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        self.asked += 1
        if self.asked == 1:
            raise StoreError("away")
        return await super().forget(records_before_s=records_before_s, hours_before_s=hours_before_s, limit=limit)


def test_records_go_before_their_sums(make_record: MakeRecord, log: logging.Logger) -> None:
    async def scenario() -> None:
        store, clock = MemoryUsage(), ManualClock(wall_s=HOUR_S + 2 * 86_400.0)
        retention = Retention(store, KEEP, clock, log)
        await store.ingest([make_record(f"req_{number}") for number in range(5000)])
        await store.ingest([make_record("req_late", finished_at_s=clock.wall() - 60.0)])
        assert await retention.forget() == 5000
        assert await store.record(RequestId("req_late")) is not None
        rows = (await store.hours(HourQuery(from_s=0, until_s=1e12))).rows
        assert [row.requests for row in rows] == [5000, 1]
        clock.advance(9 * 86_400.0)
        assert await retention.forget() == 2
        assert await retention.forget() == 0

    asyncio.run(scenario())


def test_a_store_that_is_away_only_delays_it(
    make_record: MakeRecord, log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        store = OnceAway()
        await store.ingest([make_record("req_1")])
        retention = Retention(store, KEEP, ManualClock(wall_s=HOUR_S + 2 * 86_400.0), log, every_s=0.001)
        task = asyncio.create_task(retention.run())
        try:
            await eventually(lambda: store.asked >= 3)
            assert await store.record(RequestId("req_1")) is None
        finally:
            task.cancel()
        assert "stays for now" in caplog.text

    asyncio.run(scenario())
