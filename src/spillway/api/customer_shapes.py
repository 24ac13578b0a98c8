"""What crosses the admin API about organizations, tenants, their keys, and tokens."""

from typing import Annotated

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import KeyId, ModelName, OrganizationId, PolicyName, TenantId, TokenId
from spillway.core.priority import Priority
from spillway.core.role import Role
from spillway.quota.rules import Quota

Name = Annotated[str, msgspec.Meta(pattern="^[!-~]{1,128}$")]
Label = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Models = Annotated[
    list[Annotated[ModelName, msgspec.Meta(min_length=1, max_length=256)]], msgspec.Meta(max_length=1000)
]
Networks = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=100)]
Life = Annotated[Seconds, msgspec.Meta(gt=0, le=100 * 365 * 86_400.0)]
Overlap = Annotated[Seconds, msgspec.Meta(ge=0, le=90 * 86_400.0)]


class PutOrganization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`plan`: one of the configuration's; `quota` goes before it."""

    name: Label = ""
    plan: Name | None = None
    quota: Quota | None = None
    suspended: bool = False


class OrganizationStatus(msgspec.Struct, frozen=True):
    id: OrganizationId
    name: str
    plan: str | None
    quota: Quota | None
    suspended: bool
    created_at_s: Seconds


class OrganizationPage(msgspec.Struct, frozen=True):
    """`after`: give it to get the next page; null on the last."""

    organizations: list[OrganizationStatus]
    after: OrganizationId | None


class PutTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    organization: Annotated[OrganizationId, msgspec.Meta(pattern="^[!-~]{1,128}$")] | None = None
    name: Label = ""
    plan: Name | None = None
    quota: Quota | None = None
    policy: Annotated[PolicyName, msgspec.Meta(pattern="^[!-~]{1,128}$")] | None = None
    suspended: bool = False


class TenantStatus(msgspec.Struct, frozen=True):
    id: TenantId
    organization: OrganizationId | None
    name: str
    plan: str | None
    quota: Quota | None
    policy: PolicyName | None
    suspended: bool
    created_at_s: Seconds


class TenantPage(msgspec.Struct, frozen=True):
    tenants: list[TenantStatus]
    after: TenantId | None


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`models` null: all. `expires_in_s` null: never. `networks`: CIDR blocks that its requests must come from; none: from anywhere."""

    tenant: Annotated[TenantId, msgspec.Meta(pattern="^[!-~]{1,128}$")]
    name: Label = ""
    models: Models | None = None
    priority: Priority = Priority.INTERACTIVE
    expires_in_s: Life | None = None
    policy: Annotated[PolicyName, msgspec.Meta(pattern="^[!-~]{1,128}$")] | None = None
    networks: Networks = []


class KeyChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is not given stays as it is."""

    name: Label | msgspec.UnsetType = msgspec.UNSET
    models: Models | msgspec.UnsetType | None = msgspec.UNSET
    priority: Priority | msgspec.UnsetType = msgspec.UNSET
    expires_in_s: Life | msgspec.UnsetType | None = msgspec.UNSET
    policy: Annotated[PolicyName, msgspec.Meta(pattern="^[!-~]{1,128}$")] | msgspec.UnsetType | None = msgspec.UNSET
    networks: Networks | msgspec.UnsetType = msgspec.UNSET


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`overlap_s`: how long the old secret goes on beside the new one."""

    overlap_s: Overlap = 3600.0


class KeyStatus(msgspec.Struct, frozen=True):
    """A key without its secret; `last4` are the secret's last characters. `successor`: the key that took its place by a rotation."""

    id: KeyId
    tenant: TenantId
    name: str
    models: list[ModelName] | None
    priority: Priority
    created_at_s: Seconds
    expires_at_s: Seconds | None
    revoked_at_s: Seconds | None
    last4: str
    policy: PolicyName | None
    networks: list[str]
    successor: KeyId | None


class CreatedKey(msgspec.Struct, frozen=True):
    """The only answer that ever holds the secret; null where the answer is a repeated one."""

    key: KeyStatus
    secret: str | None


class KeyPage(msgspec.Struct, frozen=True):
    """`after`: give it to get the next page; null on the last."""

    keys: list[KeyStatus]
    after: KeyId | None


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`organization`: what it may do, it may do there only; null: everywhere."""

    role: Role
    name: Label = ""
    organization: Annotated[OrganizationId, msgspec.Meta(pattern="^[!-~]{1,128}$")] | None = None
    expires_in_s: Life | None = None


class TokenStatus(msgspec.Struct, frozen=True):
    id: TokenId
    name: str
    role: Role
    organization: OrganizationId | None
    created_at_s: Seconds
    expires_at_s: Seconds | None
    revoked_at_s: Seconds | None
    last4: str


class CreatedToken(msgspec.Struct, frozen=True):
    """The only answer that ever holds the secret; null where the answer is a repeated one."""

    token: TokenStatus
    secret: str | None


class TokenPage(msgspec.Struct, frozen=True):
    tokens: list[TokenStatus]
    after: TokenId | None


class AuditEntry(msgspec.Struct, frozen=True):
    """`before` and `after`: what was changed, without secrets; null where it was not, or is not, there."""

    number: int
    at_s: Seconds
    actor: str
    action: str
    target: str
    organization: OrganizationId | None
    before: msgspec.Raw
    after: msgspec.Raw


class AuditPage(msgspec.Struct, frozen=True):
    """Newest first. `before`: give it to get the next page; null on the last."""

    entries: list[AuditEntry]
    before: int | None
