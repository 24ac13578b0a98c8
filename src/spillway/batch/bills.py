"""The bill of a line, from its result: for lines whose gateway died before it had written its own."""

from spillway.batch.jobs import Batch, Result
from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, PoolName, RequestId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import UsageRecord


def bill(batch: Batch, result: Result, now_s: Seconds) -> UsageRecord:
    """Under the request's own id, so that the gateway's record of it, should it turn up, counts nothing. How long it took is not known."""
    return UsageRecord(
        request=RequestId(result.request),
        finished_at_s=now_s,
        tenant=batch.tenant,
        key=batch.key,
        model=ModelName(result.model),
        version=VersionName(result.version) if result.version else None,
        pool=PoolName(result.pool) if result.pool else None,
        priority=Priority.BATCH,
        outcome=Outcome.OK,
        attempts=result.attempts,
        spilled=False,
        streamed=False,
        prompt_tokens=result.prompt_tokens,
        cached_tokens=result.cached_tokens or None,
        completion_tokens=result.completion_tokens,
        estimated=False,
        ttft_s=None,
        tpot_s=None,
        duration_s=0.0,
        cost_usd=result.cost_nano_usd / 1e9,
        organization=batch.organization,
        item=f"{batch.id}/{result.line}",
    )
