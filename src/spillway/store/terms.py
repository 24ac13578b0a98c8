"""Terms: what the configuration says of tenants and organizations. It goes before what the store says, field by field.

Where neither says anything of a tenant's quota, `default_plan` holds; an organization has no default.
"""

import msgspec

from spillway.core.ids import OrganizationId, PolicyName, TenantId
from spillway.gateway.ports import Principal
from spillway.quota.rules import Owner, Quota
from spillway.store.rows import KeyRow, OrganizationRow, TenantRow

NOBODY = OrganizationId("")
ANYWHERE = PolicyName("")


class OrganizationTerms(msgspec.Struct, frozen=True):
    """None: not said. `plan` and `quota` are one field: how much it may use. A quota goes before a plan."""

    plan: str | None = None
    quota: Quota | None = None
    suspended: bool | None = None


class TenantTerms(OrganizationTerms, frozen=True):
    organization: OrganizationId | None = None
    policy: PolicyName | None = None
    safety: str = "block"


NOTHING_OF_ORGANIZATION = OrganizationTerms()
NOTHING_OF_TENANT = TenantTerms()


class Terms(msgspec.Struct, frozen=True):
    tenants: dict[TenantId, TenantTerms] = {}
    organizations: dict[OrganizationId, OrganizationTerms] = {}
    plans: dict[str, Quota] = {}
    default_plan: str | None = None

    def principal(self, key: KeyRow, tenant: TenantRow | None, organization: OrganizationRow | None) -> Principal:
        """What a key stands for. A row is None where the store says nothing."""
        said = self.tenants.get(key.tenant, NOTHING_OF_TENANT)
        name = self.organization_of(key.tenant, tenant)
        theirs = organization if organization is not None and organization.id == name else None
        said_of_theirs = self.organizations.get(name, NOTHING_OF_ORGANIZATION)
        quota, shared_quota = self.tenant_quota(key.tenant, tenant), self.organization_quota(name, theirs)
        return Principal(
            key=key.id,
            tenant=key.tenant,
            models=key.models,
            highest_priority=key.highest_priority,
            organization=name,
            policy=key.policy or said.policy or (tenant.policy if tenant is not None else None) or ANYWHERE,
            networks=key.networks,
            owner=Owner(key.tenant, name, quota, shared_quota)
            if quota is not None or shared_quota is not None
            else None,
            safety=said.safety,
            suspended=_suspended(said, tenant) or _suspended(said_of_theirs, theirs),
        )

    def organization_of(self, tenant: TenantId, row: TenantRow | None) -> OrganizationId:
        """Empty: the tenant stands for itself."""
        said = self.tenants.get(tenant, NOTHING_OF_TENANT).organization
        return said or (row.organization if row is not None else None) or NOBODY

    def tenant_quota(self, tenant: TenantId, row: TenantRow | None) -> Quota | None:
        """What is in force. A plan that is no longer there counts as none."""
        said = self.tenants.get(tenant, NOTHING_OF_TENANT)
        return self._quota(said) or self._quota(row) or self.plans.get(self.default_plan or "")

    def organization_quota(self, organization: OrganizationId, row: OrganizationRow | None) -> Quota | None:
        return self._quota(self.organizations.get(organization)) or self._quota(row)

    def _quota(self, said: OrganizationTerms | OrganizationRow | TenantRow | None) -> Quota | None:
        if said is None:
            return None
        return said.quota or self.plans.get(said.plan or "")


def _suspended(said: OrganizationTerms, row: OrganizationRow | TenantRow | None) -> bool:
    return said.suspended if said.suspended is not None else row is not None and row.suspended
