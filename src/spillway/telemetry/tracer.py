"""Traces of requests, made after the fact: a span is built when the request is over, and only for those that are traced."""

from typing import Protocol

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.rng import Rng
from spillway.core.usage import UsageRecord
from spillway.telemetry.trace import Traced, begin, header_line, parse


class SpanSink(Protocol):
    """Takes finished spans; never waits. At its bound it drops them."""

    def put(self, traced: Traced, record: UsageRecord, overhead_s: float) -> None: ...


class NoTracing:
    """Passes a caller's trace on to the upstream, and tells nobody."""

    def begin(self, request: RequestId, traceparent: bytes) -> bytes:
        del request
        if not traceparent:
            return b""
        return b"traceparent: %b\r\n" % traceparent if parse(traceparent) is not None else b""


class Tracer:
    """Also an observer of the gateway. At most `max_open` traced requests are remembered; at the bound the oldest goes
    untold: that is also how those leave that end without a record."""

    def __init__(self, sink: SpanSink, rng: Rng, *, share: float, follow: bool, max_open: int = 8192) -> None:
        self._sink = sink
        self._rng = rng
        self._share = share
        self._follow = follow
        self._max_open = max_open
        self._open: dict[RequestId, Traced] = {}

    def begin(self, request: RequestId, traceparent: bytes) -> bytes:
        """Header lines for the upstream: our span where the request is traced, else what the caller sent."""
        inbound = parse(traceparent) if traceparent else None
        traced = begin(inbound, self._rng, share=self._share, follow=self._follow)
        if traced is None:
            return b"traceparent: %b\r\n" % traceparent if inbound is not None else b""
        if len(self._open) >= self._max_open:
            del self._open[next(iter(self._open))]
        self._open[request] = traced
        return header_line(traced.context)

    def ended(self, record: UsageRecord, overhead_s: float) -> None:
        traced = self._open.pop(record.request, None)
        if traced is not None:
            self._sink.put(traced, record, overhead_s)

    def refused(self, outcome: Outcome) -> None:
        del outcome  # nobody knows which request that was

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None:
        del model, origin, target, reason

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: str, detail: str
    ) -> None:
        del request, pool, endpoint, fault, detail

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None:
        del pool, endpoint, state
