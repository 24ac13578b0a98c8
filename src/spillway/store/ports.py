"""The stores as their users see them. Every call may raise StoreError: the store cannot do it now, ask again later."""

from collections.abc import Sequence
from typing import Protocol

from spillway.core.clock import Seconds
from spillway.core.ids import KeyId, RequestId, TenantId
from spillway.core.usage import UsageRecord
from spillway.store.rows import HourPage, HourQuery, Ingested, KeyRow, Revision


class KeyStore(Protocol):
    async def add(self, row: KeyRow) -> None:
        """StoreError also when the id or the digest is there already."""
        ...

    async def rows(
        self, *, tenant: TenantId | None = None, after: KeyId | None = None, limit: int = 200
    ) -> list[KeyRow]:
        """Keys in the order of their ids, revoked and expired ones too; `after` is the last id of the page before."""
        ...

    async def live(self, now_s: Seconds) -> list[KeyRow]:
        """Every key that may be used at `now_s`: what the workers hold in memory."""
        ...

    async def revoke(self, key: KeyId, at_s: Seconds) -> bool:
        """False: there is no such key. A key that was revoked before keeps its first time."""
        ...

    async def revision(self) -> Revision: ...


class UsageStore(Protocol):
    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        """All of them in one transaction. A record whose request is there already counts nothing; numbers are `bounded`."""
        ...

    async def record(self, request: RequestId) -> UsageRecord | None: ...

    async def hours(self, query: HourQuery) -> HourPage:
        """BadRequestError for a cursor that is not ours."""
        ...

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        """Delete what is older, at most `limit` rows of each kind; how many went. Call again until 0.

        A record that is forgotten can no longer be told from a new one: ingest what lies in the spool first.
        """
        ...
