"""The twins in memory of the stores of keys, tenants and organizations, and of what each write leaves behind; for tests."""

from collections.abc import Sequence

import msgspec

from spillway.core.errors import ClashError
from spillway.core.ids import KeyId, OrganizationId, TenantId
from spillway.store.rows import (
    MAX_PAGE_ROWS,
    Audit,
    AuditRow,
    Change,
    Identity,
    KeyRow,
    OrganizationRow,
    Revision,
    Subject,
    TenantRow,
)


class MemoryTrail:
    """AuditLog; and what the stores that share it change."""

    def __init__(self) -> None:
        self.audits: list[AuditRow] = []
        self.changes: list[Change] = []
        self.keys: dict[KeyId, KeyRow] = {}
        self.tenants: dict[TenantId, TenantRow] = {}
        self.organizations: dict[OrganizationId, OrganizationRow] = {}

    async def rows(
        self,
        *,
        organization: OrganizationId | None = None,
        target: str | None = None,
        before: int | None = None,
        limit: int = 200,
    ) -> list[AuditRow]:
        wanted = [
            one
            for one in reversed(self.audits)
            if (before is None or one.number < before)
            and organization in (None, one.audit.organization)
            and target in (None, one.audit.target)
        ]
        return wanted[: _size(limit)]

    async def note(self, audit: Audit) -> None:
        self.wrote(audit)

    def wrote(self, audit: Audit) -> None:
        self.audits.append(AuditRow(len(self.audits) + 1, audit))

    def tell(self, subject: Subject, name: str, digest: bytes = b"") -> None:
        self.changes.append(Change(len(self.changes) + 1, subject, name, digest))


class MemoryChanges:
    def __init__(self, trail: MemoryTrail) -> None:
        self._trail = trail
        self._forgotten = 0

    async def latest(self) -> Revision:
        return Revision(1, len(self._trail.changes))

    async def since(self, number: int, limit: int = 1000) -> list[Change]:
        return self._trail.changes[max(number, self._forgotten) :][:limit]

    async def forget(self, *, keep: int = 10_000) -> None:
        self._forgotten = max(self._forgotten, len(self._trail.changes) - max(1, keep))


class MemoryKeys:
    def __init__(self, trail: MemoryTrail) -> None:
        self._trail = trail

    async def add(self, row: KeyRow, audit: Audit) -> None:
        self._add(row)
        self._trail.wrote(audit)

    async def rows(
        self,
        *,
        tenant: TenantId | None = None,
        organization: OrganizationId | None = None,
        after: KeyId | None = None,
        limit: int = 200,
    ) -> list[KeyRow]:
        wanted = [
            row
            for key, row in sorted(self._trail.keys.items())
            if key > (after or "") and tenant in (None, row.tenant) and organization in (None, self._owner(row))
        ]
        return wanted[: _size(limit)]

    async def row(self, key: KeyId) -> KeyRow | None:
        return self._trail.keys.get(key)

    async def change(self, was: KeyRow, row: KeyRow, audit: Audit) -> bool:
        known = self._change(was, row)
        if known:
            self._trail.wrote(audit)
        return known

    async def rotate(self, was: KeyRow, old: KeyRow, new: KeyRow, audit: Audit) -> bool:
        if old.id not in self._trail.keys:
            return False
        self._check(was)
        self._add(new)
        self._change(was, old)
        self._trail.wrote(audit)
        return True

    async def identities(self, digests: Sequence[bytes]) -> list[Identity]:
        wanted = set(digests)
        return [self._identity(row) for row in self._trail.keys.values() if row.digest in wanted]

    def _add(self, row: KeyRow) -> None:
        if row.id in self._trail.keys or any(known.digest == row.digest for known in self._trail.keys.values()):
            raise ClashError(f"key {row.id} is there already")
        stranger = TenantRow(row.tenant, None, "", None, None, None, suspended=False, created_at_s=row.created_at_s)
        self._trail.tenants.setdefault(row.tenant, stranger)
        self._trail.keys[row.id] = row
        self._trail.tell(Subject.KEY, row.id, row.digest)

    def _check(self, was: KeyRow) -> None:
        if self._trail.keys[was.id] != was:
            raise ClashError(f"key {was.id} was changed meanwhile")

    def _change(self, was: KeyRow, row: KeyRow) -> bool:
        known = self._trail.keys.get(row.id)
        if known is not None:
            self._check(was)
            self._trail.keys[row.id] = msgspec.structs.replace(
                row, digest=known.digest, last4=known.last4, created_at_s=known.created_at_s
            )
            self._trail.tell(Subject.KEY, row.id, known.digest)
        return known is not None

    def _owner(self, row: KeyRow) -> OrganizationId | None:
        tenant = self._trail.tenants.get(row.tenant)
        return None if tenant is None else tenant.organization

    def _identity(self, row: KeyRow) -> Identity:
        organization = self._owner(row)
        owner = None if organization is None else self._trail.organizations.get(organization)
        return Identity(row, self._trail.tenants.get(row.tenant), owner)


class MemoryTenants:
    def __init__(self, trail: MemoryTrail) -> None:
        self._trail = trail

    async def put(self, row: TenantRow, audit: Audit) -> None:
        if row.organization is not None and row.organization not in self._trail.organizations:
            raise ClashError(f"there is no organization {row.organization}")
        self._trail.tenants[row.id] = row
        self._trail.wrote(audit)
        self._trail.tell(Subject.TENANT, row.id)

    async def row(self, tenant: TenantId) -> TenantRow | None:
        return self._trail.tenants.get(tenant)

    async def rows(
        self, *, organization: OrganizationId | None = None, after: TenantId | None = None, limit: int = 200
    ) -> list[TenantRow]:
        wanted = [
            row
            for name, row in sorted(self._trail.tenants.items())
            if name > (after or "") and organization in (None, row.organization)
        ]
        return wanted[: _size(limit)]

    async def delete(self, tenant: TenantId, audit: Audit) -> bool:
        if self._trail.tenants.pop(tenant, None) is None:
            return False
        for row in self._trail.keys.values():
            if row.tenant == tenant and row.revoked_at_s is None:
                self._trail.keys[row.id] = msgspec.structs.replace(row, revoked_at_s=audit.at_s)
        self._trail.wrote(audit)
        self._trail.tell(Subject.TENANT, tenant)
        return True


class MemoryOrganizations:
    def __init__(self, trail: MemoryTrail) -> None:
        self._trail = trail

    async def put(self, row: OrganizationRow, audit: Audit) -> None:
        self._trail.organizations[row.id] = row
        self._trail.wrote(audit)
        self._trail.tell(Subject.ORGANIZATION, row.id)

    async def row(self, organization: OrganizationId) -> OrganizationRow | None:
        return self._trail.organizations.get(organization)

    async def rows(self, *, after: OrganizationId | None = None, limit: int = 200) -> list[OrganizationRow]:
        wanted = [row for name, row in sorted(self._trail.organizations.items()) if name > (after or "")]
        return wanted[: _size(limit)]

    async def delete(self, organization: OrganizationId, audit: Audit) -> bool:
        if any(row.organization == organization for row in self._trail.tenants.values()):
            raise ClashError(f"organization {organization} still has tenants")
        if self._trail.organizations.pop(organization, None) is None:
            return False
        self._trail.wrote(audit)
        self._trail.tell(Subject.ORGANIZATION, organization)
        return True


def _size(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE_ROWS))
