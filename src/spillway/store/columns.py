"""Keys, tenants and organizations as rows of a table, and back."""

import msgspec

from spillway.core.ids import KeyId, ModelName, OrganizationId, PolicyName, TenantId
from spillway.core.priority import Priority
from spillway.quota.rules import Quota
from spillway.store.database import Row, Value
from spillway.store.rows import Identity, KeyRow, OrganizationRow, TenantRow

KEY_WIDTH, TENANT_WIDTH = 13, 8


def key_values(row: KeyRow) -> dict[str, Value]:
    return {
        "id": row.id,
        "digest": row.digest,
        "tenant": row.tenant,
        "name": row.name,
        "models": None if row.models is None else msgspec.json.encode(sorted(row.models)).decode(),
        "highest_priority": row.highest_priority.value,
        "created_at_s": row.created_at_s,
        "expires_at_s": row.expires_at_s,
        "revoked_at_s": row.revoked_at_s,
        "last4": row.last4,
        "policy": row.policy,
        "networks": msgspec.json.encode(row.networks).decode(),
        "successor": row.successor,
    }


def key_row(columns: Row) -> KeyRow:
    (
        key,
        digest,
        tenant,
        name,
        models,
        priority,
        created_at_s,
        expires_at_s,
        revoked_at_s,
        last4,
        policy,
        networks,
        successor,
    ) = columns
    return KeyRow(
        id=KeyId(key),
        digest=digest,
        tenant=TenantId(tenant),
        name=name,
        models=None if models is None else msgspec.json.decode(models, type=frozenset[ModelName]),
        highest_priority=Priority(priority),
        created_at_s=created_at_s,
        expires_at_s=expires_at_s,
        revoked_at_s=revoked_at_s,
        last4=last4,
        policy=None if policy is None else PolicyName(policy),
        networks=msgspec.json.decode(networks, type=tuple[str, ...]),
        successor=None if successor is None else KeyId(successor),
    )


def tenant_values(row: TenantRow) -> dict[str, Value]:
    return {
        "id": row.id,
        "organization": row.organization,
        "name": row.name,
        "plan": row.plan,
        "quota": _quota_text(row.quota),
        "policy": row.policy,
        "suspended": int(row.suspended),
        "created_at_s": row.created_at_s,
    }


def tenant_row(columns: Row) -> TenantRow:
    tenant, organization, name, plan, quota, policy, suspended, created_at_s = columns
    return TenantRow(
        id=TenantId(tenant),
        organization=None if organization is None else OrganizationId(organization),
        name=name,
        plan=plan,
        quota=_quota(quota),
        policy=None if policy is None else PolicyName(policy),
        suspended=bool(suspended),
        created_at_s=created_at_s,
    )


def organization_values(row: OrganizationRow) -> dict[str, Value]:
    return {
        "id": row.id,
        "name": row.name,
        "plan": row.plan,
        "quota": _quota_text(row.quota),
        "suspended": int(row.suspended),
        "created_at_s": row.created_at_s,
    }


def organization_row(columns: Row) -> OrganizationRow:
    organization, name, plan, quota, suspended, created_at_s = columns
    return OrganizationRow(OrganizationId(organization), name, plan, _quota(quota), bool(suspended), created_at_s)


def identity(columns: Row) -> Identity:
    """A key's columns, then its tenant's and its organization's, which are all null where there is none."""
    key = columns[:KEY_WIDTH]
    tenant = columns[KEY_WIDTH : KEY_WIDTH + TENANT_WIDTH]
    organization = columns[KEY_WIDTH + TENANT_WIDTH :]
    return Identity(
        key_row(key),
        None if tenant[0] is None else tenant_row(tenant),
        None if organization[0] is None else organization_row(organization),
    )


def _quota_text(quota: Quota | None) -> str | None:
    return None if quota is None else msgspec.json.encode(quota).decode()


def _quota(text: str | None) -> Quota | None:
    return None if text is None else msgspec.json.decode(text, type=Quota)
