"""The bill of a line, from its result: for lines whose gateway died before it had written its own."""

from spillway.batch.jobs import Batch, Part, Result, item_of
from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PoolName, RequestId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord


def bills(batch: Batch, result: Result, billed: frozenset[str], now_s: Seconds) -> list[UsageRecord]:
    """Of the parts that have none. `billed`: names of those that have one (`item_of`)."""
    named = {item_of(result.line, number): part for number, part in enumerate(result.parts)}
    return [_bill(batch, result, name, part, now_s) for name, part in named.items() if name not in billed]


def _bill(batch: Batch, result: Result, name: str, part: Part, now_s: Seconds) -> UsageRecord:
    """Under the request's own id, so that the gateway's record of it, should it turn up, counts nothing. How long it took is not known."""
    return UsageRecord(
        request=RequestId(part.request),
        finished_at_s=now_s,
        tenant=batch.tenant,
        key=batch.key,
        model=ModelName(result.model),
        version=VersionName(part.version) if part.version else None,
        pool=PoolName(part.pool) if part.pool else None,
        priority=Priority.BATCH,
        outcome=Outcome.OK,
        attempts=part.attempts,
        spilled=False,
        streamed=False,
        prompt_tokens=part.prompt_tokens,
        cached_tokens=part.cached_tokens or None,
        completion_tokens=part.completion_tokens,
        estimated=False,
        ttft_s=None,
        tpot_s=None,
        duration_s=0.0,
        cost_usd=part.cost_nano_usd / 1e9,
        organization=batch.organization,
        item=f"{batch.id}/{name}",
    )
