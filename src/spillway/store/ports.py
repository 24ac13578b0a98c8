"""The stores as their users see them. Every call may raise StoreError: the store cannot do it now, ask again later."""

from collections.abc import Sequence
from typing import Protocol

from spillway.core.clock import Seconds
from spillway.core.ids import BatchId, KeyId, OrganizationId, RequestId, TenantId, TokenId
from spillway.core.usage import UsageRecord
from spillway.store.rows import (
    Answered,
    Audit,
    AuditRow,
    Change,
    HourPage,
    HourQuery,
    Identity,
    Ingested,
    KeyRow,
    OrganizationRow,
    RecordQuery,
    Revision,
    TenantRow,
    TokenRow,
    UsageScope,
    Used,
)


class KeyStore(Protocol):
    """Each write commits with its audit, and with a `Change`."""

    async def add(self, row: KeyRow, audit: Audit) -> None:
        """Makes the tenant known where it was not. StoreError also when the id or the digest is there already."""
        ...

    async def rows(
        self,
        *,
        tenant: TenantId | None = None,
        organization: OrganizationId | None = None,
        after: KeyId | None = None,
        limit: int = 200,
    ) -> list[KeyRow]:
        """Keys in the order of their ids, revoked and expired ones too; `after` is the last id of the page before."""
        ...

    async def row(self, key: KeyId) -> KeyRow | None: ...

    async def change(self, was: KeyRow, row: KeyRow, audit: Audit) -> bool:
        """Puts the row in the place of the one with its id; its digest stays. False: there is none. ClashError where it is not as it
        was."""
        ...

    async def rotate(self, was: KeyRow, old: KeyRow, new: KeyRow, audit: Audit) -> bool:
        """As `change` with `old` (it ends some time from now), and in the same transaction `new` beside it."""
        ...

    async def identities(self, digests: Sequence[bytes]) -> list[Identity]:
        """Those that are there, in any order, revoked and expired ones too: one statement for all of them."""
        ...


class TenantStore(Protocol):
    async def put(self, row: TenantRow, audit: Audit) -> None:
        """Makes it, or takes the place of the one with its id. StoreError where its organization is not there."""
        ...

    async def row(self, tenant: TenantId) -> TenantRow | None: ...
    async def rows(
        self, *, organization: OrganizationId | None = None, after: TenantId | None = None, limit: int = 200
    ) -> list[TenantRow]: ...
    async def delete(self, tenant: TenantId, audit: Audit) -> bool:
        """Revokes its keys with it (at `audit.at_s`). False: there is no such tenant. Its usage stays."""
        ...


class OrganizationStore(Protocol):
    async def put(self, row: OrganizationRow, audit: Audit) -> None: ...
    async def row(self, organization: OrganizationId) -> OrganizationRow | None: ...
    async def rows(self, *, after: OrganizationId | None = None, limit: int = 200) -> list[OrganizationRow]: ...
    async def delete(self, organization: OrganizationId, audit: Audit) -> bool:
        """StoreError while it has tenants. False: there is none."""
        ...


class TokenStore(Protocol):
    async def add(self, row: TokenRow, audit: Audit) -> None:
        """ClashError where the id or the digest is there already."""
        ...

    async def row(self, token: TokenId) -> TokenRow | None: ...
    async def with_digest(self, digest: bytes) -> TokenRow | None:
        """Revoked and expired ones too."""
        ...

    async def rows(
        self, *, organization: OrganizationId | None = None, after: TokenId | None = None, limit: int = 200
    ) -> list[TokenRow]: ...
    async def revoke(self, token: TokenId, audit: Audit) -> bool:
        """At `audit.at_s`. False: there is none that is not revoked."""
        ...


class AnswerStore(Protocol):
    """How writes with an idempotency key were answered. `name`: the key, and whose it is."""

    async def begin(self, name: str, fingerprint: bytes, at_s: Seconds, *, stale_s: Seconds) -> Answered | None:
        """None: nobody has begun it (or before `stale_s`, and never finished): it is the caller's to do."""
        ...

    async def finish(self, name: str, status: int, body: bytes) -> None: ...
    async def give_up(self, name: str) -> None:
        """Nothing was done: who asks again may try."""
        ...

    async def forget(self, before_s: Seconds) -> None: ...


class AuditLog(Protocol):
    async def rows(
        self,
        *,
        organization: OrganizationId | None = None,
        target: str | None = None,
        before: int | None = None,
        limit: int = 200,
    ) -> list[AuditRow]:
        """Newest first; `before` is the last number of the page before."""
        ...

    async def note(self, audit: Audit) -> None:
        """Of a change that is not the store's own: a pool's limit, a drain, a reload."""
        ...


class ChangeLog(Protocol):
    async def latest(self) -> Revision: ...
    async def since(self, number: int, limit: int = 1000) -> list[Change]:
        """In order. A gap after `number` (old changes are forgotten) means: everything may have changed."""
        ...

    async def forget(self, *, keep: int = 10_000) -> None: ...


class UsageStore(Protocol):
    """Raw records, and sums per hour that are updated in the same transaction."""

    async def ingest(self, records: Sequence[UsageRecord]) -> Ingested:
        """All of them in one transaction. A record that is there already counts nothing; numbers are `bounded`."""
        ...

    async def record(self, request: RequestId) -> UsageRecord | None: ...

    async def records(self, query: RecordQuery) -> list[UsageRecord]:
        """At most `limit`; less than that: there are no more."""
        ...

    async def billed(self, batch: BatchId) -> frozenset[str]:
        """Items of a batch (`BATCH/NAME`, by their names) that have a record which bills them."""
        ...

    async def hours(self, query: HourQuery) -> HourPage:
        """BadRequestError for a cursor that is not ours."""
        ...

    async def used(self, scopes: Sequence[UsageScope]) -> list[Used]:
        """Of each scope, from the sums per hour."""
        ...

    async def forget(self, *, records_before_s: Seconds, hours_before_s: Seconds, limit: int = 10_000) -> int:
        """Delete older records and hours, at most `limit` of each; how many went."""
        ...
