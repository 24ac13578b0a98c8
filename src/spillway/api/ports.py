"""What the admin API asks of the application, and the values that cross. `app` implements `Operations`."""

from typing import Protocol

import msgspec

from spillway.api.customer_shapes import (
    AuditPage,
    CreatedKey,
    CreatedToken,
    KeyChange,
    KeyPage,
    KeyStatus,
    NewKey,
    NewToken,
    OrganizationPage,
    OrganizationStatus,
    PutOrganization,
    PutTenant,
    TenantPage,
    TenantStatus,
    TokenPage,
)
from spillway.core.clock import Seconds
from spillway.core.ids import ClusterName, EndpointUrl, KeyId, ModelName, OrganizationId, PoolName, TenantId, TokenId
from spillway.core.role import Role
from spillway.core.usage import UsageRecord
from spillway.traffic.effects import BreakerState
from spillway.traffic.snapshot import EndpointView, ModelView, QueueView


class PoolStatus(msgspec.Struct, frozen=True):
    """One pool, over all workers. `tiers`: its place (1 is first) in each model that uses it; `tier` is the lowest of them. `limit` is
    the one in force, `configured_limit` that of the file; `x_s`, `y_s` are T(b) as corrected by what requests took, 0: not known."""

    name: PoolName
    cluster: ClusterName | None
    tier: int | None
    models: list[ModelName]
    tiers: dict[ModelName, int]
    limit: int
    configured_limit: int
    in_flight: int
    load_index: float
    spill_share: float
    foreign: float  # requests of others
    x_s: Seconds
    y_s: Seconds
    breaker: BreakerState  # the worst of its endpoints
    endpoints: tuple[EndpointView, ...]


class Pools(msgspec.Struct, frozen=True):
    pools: list[PoolStatus]
    queues: list[QueueView]
    models: list[ModelView]
    workers: int


class HourUsage(msgspec.Struct, frozen=True):
    """What a tenant used in one hour (`hour_s`: Unix time of its start). `model` and `pool` are null in a roll-up per tenant."""

    hour_s: int
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
    repeat_cost_usd: float  # of lines of batches that were computed again; not the tenant's


class UsageAsk(msgspec.Struct, frozen=True):
    """Hours that begin in [from_s, until_s). `by_pool`: a row per tenant, model and pool instead of one per tenant."""

    from_s: Seconds
    until_s: Seconds
    by_pool: bool
    tenant: TenantId | None
    organization: OrganizationId | None
    cursor: str | None
    limit: int


class UsagePage(msgspec.Struct, frozen=True):
    """`next`: the cursor of the next page; null on the last."""

    hours: list[HourUsage]
    next: str | None


class PoolChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`limit` null gives the limit back to the configuration."""

    limit: int | None


class EndpointChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: EndpointUrl
    draining: bool


class ReloadResult(msgspec.Struct, frozen=True):
    """`error` null: the file is in force. Else why it is not."""

    error: str | None


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `organization` set: what is not that organization's is not there for it."""

    name: str  # a token's id, or "admin.token"
    role: Role
    organization: OrganizationId | None = None


class Answered(msgspec.Struct, frozen=True):
    """What a write with an idempotency key was answered before. `status` None: it is being done."""

    same: bool  # the request is the same
    status: int | None
    body: bytes


class Callers(Protocol):
    async def caller(self, secret: bytes) -> Caller | None:
        """None: nobody. May raise StoreError."""
        ...


class Repeats(Protocol):
    """Writes with an idempotency key: each is done once."""

    async def begin(self, name: str, fingerprint: bytes) -> Answered | None:
        """None: it is the caller's to do."""
        ...

    async def finish(self, name: str, status: int, body: bytes) -> None: ...
    async def give_up(self, name: str) -> None: ...


class Keys(Protocol):
    """None: there is no such tenant, or key, for this caller. May raise BadRequestError, ClashError, StoreError."""

    async def create(self, caller: Caller, wanted: NewKey) -> CreatedKey | None: ...
    async def page(self, caller: Caller, tenant: TenantId | None, after: KeyId | None, limit: int) -> KeyPage: ...
    async def one(self, caller: Caller, key: KeyId) -> KeyStatus | None: ...
    async def change(self, caller: Caller, key: KeyId, change: KeyChange) -> KeyStatus | None: ...
    async def rotate(self, caller: Caller, key: KeyId, overlap_s: Seconds) -> CreatedKey | None: ...
    async def revoke(self, caller: Caller, key: KeyId) -> bool: ...


class Customers(Protocol):
    """Organizations and tenants. As `Keys`."""

    async def organizations(self, caller: Caller, after: OrganizationId, limit: int) -> OrganizationPage: ...
    async def organization(self, caller: Caller, organization: OrganizationId) -> OrganizationStatus | None: ...
    async def put_organization(
        self, caller: Caller, organization: OrganizationId, wanted: PutOrganization
    ) -> OrganizationStatus: ...
    async def delete_organization(self, caller: Caller, organization: OrganizationId) -> bool: ...
    async def tenants(
        self, caller: Caller, organization: OrganizationId | None, after: TenantId, limit: int
    ) -> TenantPage: ...
    async def tenant(self, caller: Caller, tenant: TenantId) -> TenantStatus | None: ...
    async def put_tenant(self, caller: Caller, tenant: TenantId, wanted: PutTenant) -> TenantStatus: ...
    async def delete_tenant(self, caller: Caller, tenant: TenantId) -> bool: ...


class Tokens(Protocol):
    """Tokens, and what was done with them. As `Keys`."""

    async def create(self, caller: Caller, wanted: NewToken) -> CreatedToken: ...
    async def page(self, caller: Caller, after: TokenId, limit: int) -> TokenPage: ...
    async def revoke(self, caller: Caller, token: TokenId) -> bool: ...
    async def audit(
        self, caller: Caller, organization: OrganizationId | None, target: str | None, before: int, limit: int
    ) -> AuditPage: ...


class Operations(Protocol):
    """May raise BadRequestError (the caller's mistake) and StoreError (the store cannot now)."""

    callers: Callers
    repeats: Repeats
    keys: Keys
    customers: Customers
    tokens: Tokens

    def pools(self) -> Pools: ...
    def metrics(self) -> bytes: ...
    async def set_limit(self, caller: Caller, pool: PoolName, limit: int | None) -> bool:
        """False: no such pool."""
        ...

    async def set_draining(self, caller: Caller, endpoint: EndpointUrl, draining: bool) -> bool:
        """False: no such endpoint."""
        ...

    async def reload(self, caller: Caller) -> str | None:
        """Why the configuration was not taken; None when it was."""
        ...

    async def usage(self, caller: Caller, ask: UsageAsk) -> UsagePage | None:
        """None: no such tenant, for this caller."""
        ...

    async def usage_record(self, caller: Caller, request: str) -> UsageRecord | None: ...
