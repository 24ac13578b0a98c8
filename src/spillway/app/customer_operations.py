"""Organizations and tenants as the admin API sees them: `api.ports.Customers` on the stores."""

import msgspec

from spillway.api.customer_shapes import (
    OrganizationPage,
    OrganizationStatus,
    PutOrganization,
    PutTenant,
    TenantPage,
    TenantStatus,
)
from spillway.api.ports import Caller
from spillway.app.scopes import Scopes, Steered
from spillway.core.errors import BadRequestError
from spillway.core.ids import OrganizationId, PolicyName, TenantId
from spillway.quota.rules import Quota
from spillway.store.rows import OrganizationRow, TenantRow


class CustomerOperations:
    def __init__(self, parent: Steered, scopes: Scopes) -> None:
        self._parent = parent
        self._scopes = scopes

    async def organizations(self, caller: Caller, after: OrganizationId, limit: int) -> OrganizationPage:
        store = self._parent.stores.organizations
        if caller.organization is not None:
            row = await store.row(caller.organization) if caller.organization > after else None
            return OrganizationPage([] if row is None else [organization_status(row)], None)
        rows = await store.rows(after=after, limit=limit)
        return OrganizationPage([organization_status(row) for row in rows], rows[-1].id if len(rows) >= limit else None)

    async def organization(self, caller: Caller, organization: OrganizationId) -> OrganizationStatus | None:
        if caller.organization not in (None, organization):
            return None
        row = await self._parent.stores.organizations.row(organization)
        return None if row is None else organization_status(row)

    async def put_organization(
        self, caller: Caller, organization: OrganizationId, wanted: PutOrganization
    ) -> OrganizationStatus:
        self._check(wanted.plan, wanted.quota, None)
        if wanted.quota is not None and wanted.quota.each_user is not None:
            raise BadRequestError("each_user bounds the end users of one tenant", param="quota")
        store = self._parent.stores.organizations
        before = await store.row(organization)
        created_at_s = self._parent.clock.wall() if before is None else before.created_at_s
        row = OrganizationRow(organization, wanted.name, wanted.plan, wanted.quota, wanted.suspended, created_at_s)
        was = None if before is None else msgspec.json.encode(organization_status(before))
        now = msgspec.json.encode(organization_status(row))
        await store.put(row, self._scopes.audit(caller, "organization.put", organization, organization, was, now))
        await self._parent.keys.refresh()
        return organization_status(row)

    async def delete_organization(self, caller: Caller, organization: OrganizationId) -> bool:
        store = self._parent.stores.organizations
        before = await store.row(organization)
        if before is None:
            return False
        was = msgspec.json.encode(organization_status(before))
        audit = self._scopes.audit(caller, "organization.delete", organization, organization, was, None)
        known = await store.delete(organization, audit)
        await self._parent.keys.refresh()
        return known

    async def tenants(
        self, caller: Caller, organization: OrganizationId | None, after: TenantId, limit: int
    ) -> TenantPage:
        if caller.organization is not None and organization not in (None, caller.organization):
            return TenantPage([], None)
        whose = caller.organization or organization
        rows = await self._parent.stores.tenants.rows(organization=whose, after=after, limit=limit)
        return TenantPage([tenant_status(row) for row in rows], rows[-1].id if len(rows) >= limit else None)

    async def tenant(self, caller: Caller, tenant: TenantId) -> TenantStatus | None:
        row = await self._parent.stores.tenants.row(tenant)
        return tenant_status(row) if row is not None and await self._scopes.sees(caller, tenant) else None

    async def put_tenant(self, caller: Caller, tenant: TenantId, wanted: PutTenant) -> TenantStatus:
        self._check(wanted.plan, wanted.quota, wanted.policy)
        store = self._parent.stores.tenants
        before = await store.row(tenant)
        row = TenantRow(
            id=tenant,
            organization=wanted.organization,
            name=wanted.name,
            plan=wanted.plan,
            quota=wanted.quota,
            policy=wanted.policy,
            suspended=wanted.suspended,
            created_at_s=self._parent.clock.wall() if before is None else before.created_at_s,
        )
        was = None if before is None else msgspec.json.encode(tenant_status(before))
        now = msgspec.json.encode(tenant_status(row))
        await store.put(row, self._scopes.audit(caller, "tenant.put", tenant, wanted.organization, was, now))
        await self._parent.keys.refresh()
        return tenant_status(row)

    async def delete_tenant(self, caller: Caller, tenant: TenantId) -> bool:
        store = self._parent.stores.tenants
        before = await store.row(tenant)
        if before is None:
            return False
        was = msgspec.json.encode(tenant_status(before))
        audit = self._scopes.audit(caller, "tenant.delete", tenant, before.organization, was, None)
        known = await store.delete(tenant, audit)
        await self._parent.keys.refresh()
        return known

    def _check(self, plan: str | None, quota: Quota | None, policy: PolicyName | None) -> None:
        configuration = self._parent.configuration
        if plan is not None and plan not in configuration.plans:
            raise BadRequestError(f"there is no plan {plan}", param="plan")
        if policy is not None and policy not in configuration.policies:
            raise BadRequestError(f"there is no policy {policy}", param="policy")
        unknown = sorted(set(quota.models if quota is not None else ()) - configuration.models.keys())
        if unknown:
            raise BadRequestError(f"unknown model: {', '.join(unknown)}", param="quota")


def organization_status(row: OrganizationRow) -> OrganizationStatus:
    return OrganizationStatus(row.id, row.name, row.plan, row.quota, row.suspended, row.created_at_s)


def tenant_status(row: TenantRow) -> TenantStatus:
    return TenantStatus(
        row.id, row.organization, row.name, row.plan, row.quota, row.policy, row.suspended, row.created_at_s
    )
