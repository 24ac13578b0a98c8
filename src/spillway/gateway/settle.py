"""Settlement: the one place where a request's usage record is made, exactly once."""

from spillway.core.clock import Clock, Seconds
from spillway.core.ids import ModelName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Usage, UsageRecord
from spillway.gateway.call import Call
from spillway.gateway.ports import Observer, Principal, UsageSink

NOTHING_USED = Usage()


class Settlement:
    def __init__(self, usage: UsageSink, observer: Observer, clock: Clock) -> None:
        self._usage = usage
        self._observer = observer
        self._clock = clock

    @property
    def can_account(self) -> bool:
        """False while records have nowhere to go; then nothing may be admitted."""
        return not self._usage.full

    def settle(self, call: Call, outcome: Outcome, usage: Usage) -> None:
        """Write the record of a call that is over."""
        now = self._clock.monotonic()
        duration_s = now - call.arrived_at
        streamed = call.envelope.stream
        ttft_s = call.content_at - call.arrived_at if streamed and call.content_at is not None else None
        record = UsageRecord(  # by position: half the cost of by name, once a request
            call.request, self._clock.wall(), call.principal.tenant, call.principal.key, call.model, call.version, call.pool,
            call.priority, outcome, call.attempt, call.spill is not None, streamed,
            usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.estimated,
            ttft_s, time_per_output_token(ttft_s, duration_s, usage.completion_tokens) if streamed else None,
            duration_s, call.price.cost_usd(usage), call.principal.organization, call.ask.item,
        )  # fmt: skip
        self._usage.put(record)
        self._observer.ended(record, call.overhead_s(now if call.content_at is None else call.content_at))

    def settle_refusal(
        self,
        request: RequestId,
        principal: Principal,
        model: ModelName,
        priority: Priority,
        outcome: Outcome,
        arrived_at: Seconds,
    ) -> None:
        """Write the record of a request by a known caller that never became a call."""
        record = UsageRecord(
            request=request,
            finished_at_s=self._clock.wall(),
            tenant=principal.tenant,
            organization=principal.organization,
            key=principal.key,
            model=model,
            version=None,
            pool=None,
            priority=priority,
            outcome=outcome,
            attempts=0,
            spilled=False,
            streamed=False,
            prompt_tokens=0,
            cached_tokens=None,
            completion_tokens=0,
            estimated=False,
            ttft_s=None,
            tpot_s=None,
            duration_s=self._clock.monotonic() - arrived_at,
            cost_usd=0.0,
        )
        self._usage.put(record)
        self._observer.ended(record, record.duration_s)


def time_per_output_token(ttft_s: Seconds | None, duration_s: Seconds, completion_tokens: int) -> Seconds | None:
    """TPOT = (e2e − TTFT) / (n_out − 1); None where there is no second token."""
    if ttft_s is None or completion_tokens < 2:
        return None
    return (duration_s - ttft_s) / (completion_tokens - 1)
