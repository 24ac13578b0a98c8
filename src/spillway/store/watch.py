"""Notices what changed of keys, tenants and organizations, whoever changed it, and says what to forget.

Each change has a number in the database, in the order of commits and without gaps. One row is read each `every_s`; only where it differs are
the changes read too. So with the default a revocation is known to every connected gateway well within 2 s. While the store cannot
be read nothing is said, and what is known stays in use until it is too old.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.core.ids import OrganizationId, TenantId
from spillway.store.keyring import Forget
from spillway.store.ports import ChangeLog
from spillway.store.rows import Change, Revision, Subject

MOST_CHANGES = 1000  # when more came at once, everything is forgotten
CONFIRM_S = 1.0  # how often it is said that all is as it was
TRIM_S = 600.0  # how often old changes are deleted
EVERYTHING = Forget(everything=True)


class ChangeWatch:
    """`await start()` first; then `run` until cancelled. `publish` gets what to forget."""

    def __init__(
        self, changes: ChangeLog, publish: Callable[[Forget], None], *, log: logging.Logger, every_s: Seconds = 0.2
    ) -> None:
        self._changes = changes
        self._publish = publish
        self._log = log
        self._every_s = every_s
        self._seen: Revision | None = None
        self._refreshing = asyncio.Lock()
        self._said_at: Seconds = 0.0

    async def start(self) -> None:
        """StoreError where the store cannot be read."""
        self._seen = await self._changes.latest()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        healthy, trimmed_at = True, loop.time()
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.refresh()
                if loop.time() - trimmed_at >= TRIM_S:
                    trimmed_at = loop.time()
                    await self._changes.forget()
                healthy = True
            except StoreError as error:
                if healthy:  # once, not five times a second
                    self._log.warning("changes of keys cannot be read, what is known stays in use: %s", error)
                healthy = False

    async def refresh(self) -> None:
        """Say what changed, if anything did. Also called by whoever just changed something."""
        async with self._refreshing:
            revision, seen = await self._changes.latest(), self._seen
            if revision != seen:
                forget = await self._between(seen, revision)
                self._seen = revision
                self._say(forget)
            elif asyncio.get_running_loop().time() - self._said_at >= CONFIRM_S:
                self._say(Forget())

    async def _between(self, seen: Revision | None, revision: Revision) -> Forget:
        if seen is None or seen.opened != revision.opened or not 0 <= revision.changes - seen.changes <= MOST_CHANGES:
            return EVERYTHING
        changes = await self._changes.since(seen.changes, MOST_CHANGES)
        count = revision.changes - seen.changes
        numbers = [change.number for change in changes[:count]]
        if numbers != list(range(seen.changes + 1, revision.changes + 1)):
            return EVERYTHING
        return forget_of(changes)

    def _say(self, forget: Forget) -> None:
        self._said_at = asyncio.get_running_loop().time()
        self._publish(forget)


def forget_of(changes: Sequence[Change]) -> Forget:
    return Forget(
        digests=frozenset(one.digest for one in changes if one.subject is Subject.KEY),
        tenants=frozenset(TenantId(one.id) for one in changes if one.subject is Subject.TENANT),
        organizations=frozenset(OrganizationId(one.id) for one in changes if one.subject is Subject.ORGANIZATION),
    )
