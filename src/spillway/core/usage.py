"""What a request used, when things happened, and the record of both that is written exactly once."""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import KeyId, ModelName, OrganizationId, PoolName, RequestId, TenantId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one request. `cached_tokens` is None where the engine does not say; it is never invented."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    estimated: bool = False  # counted by us (a cut stream, a client that left), not reported by the engine


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens."""

    input_usd_per_mtok: float = 0.0
    output_usd_per_mtok: float = 0.0

    def cost_usd(self, usage: Usage) -> float:
        return (
            usage.prompt_tokens * self.input_usd_per_mtok + usage.completion_tokens * self.output_usd_per_mtok
        ) / 1e6


class UsageRecord(msgspec.Struct, frozen=True, gc=False):
    """One line of the ledger. `request` is its identity: the same record written twice is counted once.

    `pool` and `version` are None for a request that no pool served. Durations are seconds from the arrival of the
    complete request; `ttft_s` is None where no output came, `tpot_s` = (duration − ttft) / (completion_tokens − 1)
    is None below two output tokens.
    """

    request: RequestId
    finished_at_s: Seconds  # Unix time
    tenant: TenantId
    key: KeyId
    model: ModelName
    version: VersionName | None
    pool: PoolName | None
    priority: Priority
    outcome: Outcome
    attempts: int
    spilled: bool
    streamed: bool
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    estimated: bool
    ttft_s: Seconds | None
    tpot_s: Seconds | None
    duration_s: Seconds
    cost_usd: float
    organization: OrganizationId = OrganizationId("")  # empty: the tenant stands for itself
    item: str = ""  # of a batch: its id, and the number of the line; it is billed once, however often it was computed
    repeat: bool = False  # of an item that is billed by another record: what it cost is the platform's
