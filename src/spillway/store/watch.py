"""Notices what changed in the keys, whoever changed them, and says so.

A change is found by the revision that triggers keep in the database: one row read each `every_s` (with the default,
another process's new key is known well within 0.5 s). While the store cannot be read the keys stay as they are.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import StoreError
from spillway.store.keyring import KeyFeed, KeysPatched
from spillway.store.ports import KeyStore
from spillway.store.rows import KeyRow, Revision


class KeyWatch:
    """`await refresh()` once at start; then `run` until cancelled. `publish` gets each message for the workers."""

    def __init__(
        self,
        store: KeyStore,
        feed: KeyFeed,
        publish: Callable[[KeysPatched], Awaitable[None]],
        *,
        clock: Clock,
        log: logging.Logger,
        fixed: Sequence[KeyRow] = (),
        every_s: Seconds = 0.2,
    ) -> None:
        """`fixed`: keys that come from the configuration, beside those of the store."""
        self._store = store
        self._feed = feed
        self._publish = publish
        self._clock = clock
        self._log = log
        self._fixed = fixed
        self._every_s = every_s
        self._seen: Revision | None = None
        self._refreshing = asyncio.Lock()

    async def run(self) -> None:
        healthy = True
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.refresh()
                healthy = True
            except StoreError as error:
                if healthy:  # once, not five times a second
                    self._log.warning("keys cannot be read, those known stay in use: %s", error)
                healthy = False

    async def refresh(self) -> None:
        """Read the keys if they may have changed; publish what did. Also called by whoever just changed them."""
        async with self._refreshing:
            revision = await self._store.revision()
            if revision == self._seen:
                return
            rows = await self._store.live(self._clock.wall())
            change = self._feed.update((*self._fixed, *rows))
            self._seen = revision  # read before the rows: a change in between is seen next time
            if change is not None:
                await self._publish(change)

    async def fix(self, rows: Sequence[KeyRow]) -> None:
        """The configuration was read again. StoreError: nothing has changed."""
        before, self._fixed = self._fixed, rows
        self._seen = None
        try:
            await self.refresh()
        except StoreError:
            self._fixed = before
            raise
