"""Keys and their changes on a shelf: the part of the stores that the directory and the watch see, slow or away as a test likes."""

import asyncio
from collections.abc import Sequence

import msgspec

from spillway.core.errors import StoreError
from spillway.core.ids import OrganizationId, TenantId
from spillway.store.minting import mint
from spillway.store.rows import Change, Identity, KeyRow, OrganizationRow, Revision, Subject, TenantRow
from spillway.testing.rng import SeededRng

SEAL = b"s" * 32


def minted(number: int, **changes: object) -> tuple[KeyRow, bytes]:
    row, secret = mint(SeededRng(number), SEAL, now_s=100.0, tenant=TenantId(f"tenant-{number}"))
    return msgspec.structs.replace(row, **changes), secret.encode()


class Shelf:
    """What is read is what was there when the reading began: the answer may be old when it comes."""

    def __init__(self) -> None:
        self.keys: dict[bytes, KeyRow] = {}
        self.tenants: dict[TenantId, TenantRow] = {}
        self.organizations: dict[OrganizationId, OrganizationRow] = {}
        self.changes: list[Change] = []
        self.forgotten = 0  # changes that are not kept any more
        self.opened = 1
        self.slow_s = 0.0
        self.broken = False
        self.reads: list[tuple[bytes, ...]] = []
        self.polls = 0

    def put(self, row: KeyRow) -> None:
        self.keys[row.digest] = row
        self._changed(Subject.KEY, row.id, row.digest)

    def put_tenant(self, row: TenantRow) -> None:
        self.tenants[row.id] = row
        self._changed(Subject.TENANT, row.id)

    def put_organization(self, row: OrganizationRow) -> None:
        self.organizations[row.id] = row
        self._changed(Subject.ORGANIZATION, row.id)

    async def identities(self, digests: Sequence[bytes]) -> list[Identity]:
        self._ready()
        self.reads.append(tuple(digests))
        found = [self._identity(self.keys[digest]) for digest in digests if digest in self.keys]
        await asyncio.sleep(self.slow_s)
        self._ready()
        return found

    async def latest(self) -> Revision:
        self.polls += 1
        self._ready()
        return Revision(self.opened, len(self.changes))

    async def since(self, number: int, limit: int = 1000) -> list[Change]:
        self._ready()
        return self.changes[max(number, self.forgotten) :][:limit]

    async def forget(self, *, keep: int = 10_000) -> None:
        self.forgotten = max(self.forgotten, len(self.changes) - keep)

    def _changed(self, subject: Subject, name: str, digest: bytes = b"") -> None:
        self.changes.append(Change(len(self.changes) + 1, subject, name, digest))

    def _identity(self, row: KeyRow) -> Identity:
        tenant = self.tenants.get(row.tenant)
        organization = None if tenant is None or tenant.organization is None else tenant.organization
        return Identity(row, tenant, None if organization is None else self.organizations.get(organization))

    def _ready(self) -> None:
        if self.broken:
            raise StoreError("away")
