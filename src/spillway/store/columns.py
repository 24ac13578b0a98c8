"""Keys, tenants and organizations as rows of a table, and back."""

import msgspec

from spillway.core.ids import KeyId, ModelName, OrganizationId, PolicyName, TenantId
from spillway.core.priority import Priority
from spillway.quota.rules import Quota
from spillway.store.rows import Identity, KeyRow, OrganizationRow, TenantRow

KeyColumns = tuple[
    str, bytes, str, str, str | None, str, float, float | None, float | None, str, str | None, str, str | None
]  # fmt: skip
TenantColumns = tuple[str, str | None, str, str | None, str | None, str | None, int, float]
OrganizationColumns = tuple[str, str, str | None, str | None, int, float]

KEY_WIDTH, TENANT_WIDTH = 13, 8


def key_columns(row: KeyRow) -> KeyColumns:
    models = None if row.models is None else msgspec.json.encode(sorted(row.models)).decode()
    return (
        row.id, row.digest, row.tenant, row.name, models, row.highest_priority.value, row.created_at_s, row.expires_at_s,
        row.revoked_at_s, row.last4, row.policy, msgspec.json.encode(row.networks).decode(), row.successor,
    )  # fmt: skip


def key_row(columns: KeyColumns) -> KeyRow:
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


def tenant_columns(row: TenantRow) -> TenantColumns:
    return (
        row.id, row.organization, row.name, row.plan, _quota_text(row.quota), row.policy, int(row.suspended), row.created_at_s,
    )  # fmt: skip


def tenant_row(columns: TenantColumns) -> TenantRow:
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


def organization_columns(row: OrganizationRow) -> OrganizationColumns:
    return (row.id, row.name, row.plan, _quota_text(row.quota), int(row.suspended), row.created_at_s)


def organization_row(columns: OrganizationColumns) -> OrganizationRow:
    organization, name, plan, quota, suspended, created_at_s = columns
    return OrganizationRow(OrganizationId(organization), name, plan, _quota(quota), bool(suspended), created_at_s)


def identity(columns: tuple[object, ...]) -> Identity:
    """A key's columns, then its tenant's and its organization's, which are all null where there is none."""
    key = columns[:KEY_WIDTH]
    tenant = columns[KEY_WIDTH : KEY_WIDTH + TENANT_WIDTH]
    organization = columns[KEY_WIDTH + TENANT_WIDTH :]
    return Identity(
        key_row(key),  # pyright: ignore[reportArgumentType] - the statement says so
        None if tenant[0] is None else tenant_row(tenant),  # pyright: ignore[reportArgumentType]
        None if organization[0] is None else organization_row(organization),  # pyright: ignore[reportArgumentType]
    )


def _quota_text(quota: Quota | None) -> str | None:
    return None if quota is None else msgspec.json.encode(quota).decode()


def _quota(text: str | None) -> Quota | None:
    return None if text is None else msgspec.json.decode(text, type=Quota)
