"""What the admin API asks of the application, and the values that cross. `app` implements `Operations`."""

from typing import Protocol

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import ClusterName, EndpointUrl, KeyId, ModelName, PoolName, TenantId
from spillway.core.priority import Priority
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


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`models` null: all. `expires_in_s` null: never."""

    tenant: TenantId
    name: str = ""
    models: list[ModelName] | None = None
    priority: Priority = Priority.INTERACTIVE
    expires_in_s: Seconds | None = None


class KeyStatus(msgspec.Struct, frozen=True):
    """A key without its secret; `last4` are the secret's last characters."""

    id: KeyId
    tenant: TenantId
    name: str
    models: list[ModelName] | None
    priority: Priority
    created_at_s: Seconds
    expires_at_s: Seconds | None
    revoked_at_s: Seconds | None
    last4: str


class CreatedKey(msgspec.Struct, frozen=True):
    """The only answer that ever holds the secret."""

    key: KeyStatus
    secret: str


class KeyPage(msgspec.Struct, frozen=True):
    """`after`: give it to get the next page; null on the last."""

    keys: list[KeyStatus]
    after: KeyId | None


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


class UsageAsk(msgspec.Struct, frozen=True):
    """Hours that begin in [from_s, until_s). `by_pool`: a row per tenant, model and pool instead of one per tenant."""

    from_s: Seconds
    until_s: Seconds
    by_pool: bool
    tenant: TenantId | None
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


class Operations(Protocol):
    """May raise BadRequestError (the caller's mistake) and StoreError (the store cannot now)."""

    def pools(self) -> Pools: ...
    def metrics(self) -> bytes: ...
    def set_limit(self, pool: PoolName, limit: int | None) -> bool:
        """False: no such pool."""
        ...

    def set_draining(self, endpoint: EndpointUrl, draining: bool) -> bool:
        """False: no such endpoint."""
        ...

    async def reload(self) -> str | None:
        """Why the configuration was not taken; None when it was."""
        ...

    async def create_key(self, wanted: NewKey) -> CreatedKey: ...
    async def keys(self, tenant: TenantId | None, after: KeyId | None, limit: int) -> KeyPage: ...
    async def revoke_key(self, key: KeyId) -> bool: ...
    async def usage(self, ask: UsageAsk) -> UsagePage: ...
    async def usage_record(self, request: str) -> UsageRecord | None: ...
