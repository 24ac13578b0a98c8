"""One log line for each request, or for a share of them, and one for each failed attempt and each change of a breaker."""

import logging

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.rng import Rng
from spillway.core.usage import UsageRecord
from spillway.telemetry.logs import ACCESS


class GatewayLog:
    """An observer of the gateway. `share` of the requests are logged; what went wrong inside (INTERNAL) always is."""

    def __init__(self, log: logging.Logger, rng: Rng, *, share: float = 0.0) -> None:
        self._log = log
        self._access = log.getChild(ACCESS)
        self._rng = rng
        self._share = share

    def ended(self, record: UsageRecord, overhead_s: float) -> None:
        if record.outcome is Outcome.INTERNAL:
            self._log.error("request failed for a mistake of ours", extra=_fields(record, overhead_s))
        elif self._share > 0 and (self._share >= 1 or self._rng.random() < self._share):
            self._access.info("request", extra=_fields(record, overhead_s))

    def refused(self, outcome: Outcome) -> None:
        del outcome  # counted, not logged: anybody can cause any number of them

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None:
        del model, origin, target, reason  # counted, and in the request's own line

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: str, detail: str
    ) -> None:
        self._log.warning(
            "attempt failed",
            extra={"request": request, "pool": pool, "endpoint": endpoint, "fault": str(fault), "detail": detail},
        )

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None:
        self._log.warning("breaker changed", extra={"pool": pool, "endpoint": endpoint, "state": str(state)})


def _fields(record: UsageRecord, overhead_s: float) -> dict[str, str | int | float | None]:
    return {
        "request": record.request,
        "tenant": record.tenant,
        "key": record.key,
        "model": record.model,
        "version": record.version,
        "pool": record.pool,
        "priority": record.priority.value,
        "outcome": record.outcome.value,
        "attempts": record.attempts,
        "spilled": record.spilled,
        "streamed": record.streamed,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "ttft_s": record.ttft_s,
        "duration_s": record.duration_s,
        "overhead_s": overhead_s,
    }
