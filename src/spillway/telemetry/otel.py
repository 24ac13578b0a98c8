"""Spans over OTLP/HTTP, by OpenTelemetry's SDK (extra `otel`). `app` imports this module only when an address is configured.

A span is made when its request is over; the SDK's own thread sends them, in batches, and drops what its bounded queue
cannot hold. A collector that is away costs the gateway nothing.
"""

import asyncio
import logging
import threading

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from spillway import __version__
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.telemetry.genai import SEMCONV_VERSION, attributes
from spillway.telemetry.settings import TraceSettings
from spillway.telemetry.trace import Traced

_SENT_EVERY_S = 1.0
_EXPORT_TIMEOUT_S = 5.0
_CLOSE_S = 5.0
_NOT_FAULTS = frozenset((Outcome.OK, Outcome.CLIENT_LEFT))


class SpanExporter:
    """telemetry.tracer.SpanSink. `settings.otlp_url` must be given."""

    def __init__(self, settings: TraceSettings, log: logging.Logger) -> None:
        self._log = log
        self._resource = Resource.create({"service.name": "spillway", "service.version": __version__})
        self._scope = InstrumentationScope("spillway", f"{__version__}+genai-{SEMCONV_VERSION}")
        self._processor = BatchSpanProcessor(
            OTLPSpanExporter(
                endpoint=settings.otlp_url, headers=settings.otlp_headers or None, timeout=_EXPORT_TIMEOUT_S
            ),
            max_queue_size=settings.queue,
            max_export_batch_size=min(settings.queue, 512),
            schedule_delay_millis=_SENT_EVERY_S * 1000,
        )

    def put(self, traced: Traced, record: UsageRecord, overhead_s: float) -> None:
        end_ns = round(record.finished_at_s * 1e9)
        failed = record.outcome not in _NOT_FAULTS
        self._processor.on_end(
            ReadableSpan(
                name=f"inference {record.model}",
                context=_context(traced.context.trace_id, traced.context.span_id, remote=False),
                parent=_parent(traced),
                resource=self._resource,
                attributes=attributes(record, overhead_s),
                kind=SpanKind.SERVER,
                status=Status(StatusCode.ERROR, record.outcome.value) if failed else Status(StatusCode.UNSET),
                start_time=end_ns - round(record.duration_s * 1e9),
                end_time=end_ns,
                instrumentation_scope=self._scope,
            )
        )

    async def close(self) -> None:
        """Sends what is left, and gives up after a few seconds."""
        done = threading.Event()

        def shut() -> None:
            self._processor.shutdown()
            done.set()

        # a thread that nobody has to wait for: the SDK may take half a minute when the collector hangs
        threading.Thread(target=shut, name="spillway-otel-close", daemon=True).start()
        if not await asyncio.to_thread(done.wait, _CLOSE_S):
            self._log.warning("the collector did not take the last spans in time")


def _context(trace_id: str, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _parent(traced: Traced) -> SpanContext | None:
    if traced.parent_span_id is None:
        return None
    return _context(traced.context.trace_id, traced.parent_span_id, remote=True)
