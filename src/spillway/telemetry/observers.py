"""Several observers behind one. Each is told in order; one that fails is a mistake of ours and is not hidden."""

from collections.abc import Sequence
from typing import Protocol

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord


class Observing(Protocol):
    """What the gateway tells, in plain values (the same shape as its own port)."""

    def ended(self, record: UsageRecord, overhead_s: float) -> None: ...

    def refused(self, outcome: Outcome) -> None: ...

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None: ...

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: str, detail: str
    ) -> None: ...

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None: ...


class Observers:
    __slots__ = ("_ended", "_observers")

    def __init__(self, observers: Sequence[Observing]) -> None:
        self._observers = tuple(observers)
        self._ended = tuple(observer.ended for observer in observers)  # once a request: looked up beforehand

    def ended(self, record: UsageRecord, overhead_s: float) -> None:
        for ended in self._ended:
            ended(record, overhead_s)

    def refused(self, outcome: Outcome) -> None:
        for observer in self._observers:
            observer.refused(outcome)

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None:
        for observer in self._observers:
            observer.spilled(model, origin, target, reason)

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: str, detail: str
    ) -> None:
        for observer in self._observers:
            observer.attempt_failed(request, pool, endpoint, fault, detail)

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None:
        for observer in self._observers:
            observer.breaker_changed(pool, endpoint, state)
