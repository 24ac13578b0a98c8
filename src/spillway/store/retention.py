"""Old usage goes: single records after one time, hourly sums after a longer one."""

import asyncio
import logging

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import StoreError
from spillway.store.ports import UsageStore
from spillway.store.settings import Settings

_ROWS_AT_ONCE = 2000
"""So short a transaction (some 10 ms) lets usage come in between."""


class Retention:
    """`run` until cancelled. Start it after the intake's first `drain`: a record that is forgotten would count as new."""

    def __init__(
        self, store: UsageStore, settings: Settings, clock: Clock, log: logging.Logger, *, every_s: Seconds = 3600.0
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._log = log
        self._every_s = every_s

    async def run(self) -> None:
        while True:
            try:
                await self.forget()
            except StoreError as error:
                self._log.warning("old usage stays for now: %s", error)
            await asyncio.sleep(self._every_s)

    async def forget(self) -> int:
        """Delete everything that is old enough; how many rows went."""
        now_s = self._clock.wall()
        gone = 0
        while True:
            count = await self._store.forget(
                records_before_s=now_s - self._settings.keep_records_s,
                hours_before_s=now_s - self._settings.keep_hours_s,
                limit=_ROWS_AT_ONCE,
            )
            gone += count
            if count == 0:
                return gone
