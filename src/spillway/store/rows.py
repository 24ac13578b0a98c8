"""What the stores take and give. Times are Unix seconds."""

import enum

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import KeyId, ModelName, OrganizationId, PolicyName, PoolName, TenantId, TokenId
from spillway.core.priority import Priority
from spillway.core.role import Role
from spillway.quota.rules import Quota

NO_POOL = PoolName("")
"""The pool of a roll-up of requests that no pool served."""

MAX_PAGE_ROWS = 1000


class KeyRow(msgspec.Struct, frozen=True):
    """A key as it is kept: never its secret, only a keyed digest of it and its last four characters."""

    id: KeyId
    digest: bytes
    tenant: TenantId
    name: str
    models: frozenset[ModelName] | None  # None: all
    highest_priority: Priority
    created_at_s: Seconds
    expires_at_s: Seconds | None
    revoked_at_s: Seconds | None
    last4: str
    policy: PolicyName | None = None  # where requests may be served; None: as the tenant's
    networks: tuple[str, ...] = ()  # CIDR blocks that callers must come from; none: from anywhere
    successor: KeyId | None = None  # the key that took its place by a rotation

    def is_live(self, now_s: Seconds) -> bool:
        return self.revoked_at_s is None and (self.expires_at_s is None or now_s < self.expires_at_s)


class OrganizationRow(msgspec.Struct, frozen=True):
    """A customer of the platform. `plan`: a named quota of the configuration; `quota` goes before it."""

    id: OrganizationId
    name: str
    plan: str | None
    quota: Quota | None
    suspended: bool
    created_at_s: Seconds


class TenantRow(msgspec.Struct, frozen=True):
    """One experience or app, which owns keys. `organization` None: it stands for itself."""

    id: TenantId
    organization: OrganizationId | None
    name: str
    plan: str | None
    quota: Quota | None
    policy: PolicyName | None
    suspended: bool
    created_at_s: Seconds


class TokenRow(msgspec.Struct, frozen=True):
    """A token of the admin API, kept as keys are: its secret nowhere. `organization` None: it is the platform's own."""

    id: TokenId
    digest: bytes
    name: str
    role: Role
    organization: OrganizationId | None
    created_at_s: Seconds
    expires_at_s: Seconds | None
    revoked_at_s: Seconds | None
    last4: str

    def is_live(self, now_s: Seconds) -> bool:
        return self.revoked_at_s is None and (self.expires_at_s is None or now_s < self.expires_at_s)


class Answered(msgspec.Struct, frozen=True):
    """How a write was answered that had an idempotency key. `status` None: it is not answered yet."""

    fingerprint: bytes
    status: int | None
    body: bytes | None


class Audit(msgspec.Struct, frozen=True):
    """One change: who did what to what, and how it was before and after (JSON without secrets; None: was or is not there)."""

    at_s: Seconds
    actor: str  # a token's id, "admin.token", or "cli"
    action: str  # such as key.create
    target: str  # the id of what was changed
    organization: OrganizationId | None
    before: bytes | None
    after: bytes | None


class AuditRow(msgspec.Struct, frozen=True):
    number: int  # grows
    audit: Audit


class Identity(msgspec.Struct, frozen=True):
    """What a key stands for. `tenant` None: nothing was ever said of the tenant."""

    key: KeyRow
    tenant: TenantRow | None
    organization: OrganizationRow | None


class Subject(enum.StrEnum):
    KEY = "key"
    TENANT = "tenant"
    ORGANIZATION = "organization"


class Change(msgspec.Struct, frozen=True):
    """Something that gateways may remember is not as it was. `number` grows by one with each change, in the order of commits."""

    number: int
    subject: Subject
    id: str
    digest: bytes  # of a key; b"" else


class Revision(msgspec.Struct, frozen=True):
    """Differs whenever keys may have changed: by any process, or because the database file is another one."""

    opened: int
    changes: int


class HourRow(msgspec.Struct, frozen=True):
    """What one tenant used of one model on one pool in one hour. `model` and `pool` are None in a roll-up per tenant."""

    hour_s: int  # Unix time of the hour's begin
    tenant: TenantId
    model: ModelName | None
    pool: PoolName | None
    requests: int
    ok: int
    spilled: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_usd: float
    repeat_cost_usd: float = 0.0  # of lines of batches that were computed again: the tenant does not pay it


class Grain(enum.StrEnum):
    TENANT = "tenant"  # one row per hour and tenant
    POOL = "pool"  # one row per hour, tenant, model and pool


class HourQuery(msgspec.Struct, frozen=True):
    """Hours that begin in [from_s, until_s), oldest first. `cursor` is a page's `next`; `limit` is cut to MAX_PAGE_ROWS."""

    from_s: Seconds
    until_s: Seconds
    grain: Grain = Grain.TENANT
    tenant: TenantId | None = None
    organization: OrganizationId | None = None  # not together with a tenant
    cursor: str | None = None
    limit: int = 200


class HourPage(msgspec.Struct, frozen=True):
    rows: tuple[HourRow, ...]
    next: str | None  # None: no more rows


class UsageScope(msgspec.Struct, frozen=True):
    """Of a tenant or of an organization (one of both), of one model or of all, in hours that begin in [from_s, until_s)."""

    from_s: Seconds
    until_s: Seconds
    tenant: TenantId | None = None
    organization: OrganizationId | None = None
    model: ModelName | None = None


class Used(msgspec.Struct, frozen=True):
    """What counts against limits. `requests`: those that reached an upstream; `tokens`: input and output."""

    requests: int = 0
    tokens: int = 0
    nano_usd: int = 0


class RecordQuery(msgspec.Struct, frozen=True):
    """Single records that finished in [from_s, until_s), oldest first, from behind `after` (when the last one finished, and its id)."""

    from_s: Seconds
    until_s: Seconds
    tenant: TenantId | None = None
    organization: OrganizationId | None = None
    after: tuple[Seconds, str] = (-1.0, "")
    limit: int = 5000


class Ingested(msgspec.Struct, frozen=True):
    """How many records were counted, and how many had been counted before."""

    fresh: int
    known: int
