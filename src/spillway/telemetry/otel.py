"""Spans over OTLP/HTTP, by OpenTelemetry's SDK (extra `otel`). `app` imports this module only when an address is configured.

A span is made when its request is over; the SDK's own thread sends them, in batches, and drops what its bounded queue
cannot hold. A collector that is away costs the gateway nothing.
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.telemetry.genai import SEMCONV_VERSION, attributes
from spillway.telemetry.settings import TraceSettings
from spillway.telemetry.trace import Traced

_SENT_EVERY_S = 1.0
_EXPORT_TIMEOUT_S = 5.0
_NOT_FAULTS = frozenset((Outcome.OK, Outcome.CLIENT_LEFT))


class OtlpSpans:
    """telemetry.tracer.SpanSink."""

    def __init__(self, exporter: SpanExporter, *, version: str, instance: str, queue: int) -> None:
        self._resource = Resource.create(
            {"service.name": "spillway", "service.version": version, "service.instance.id": instance}
        )
        self._scope = InstrumentationScope("spillway", f"{version}+genai-{SEMCONV_VERSION}")
        self._processor = BatchSpanProcessor(
            exporter,
            max_queue_size=queue,
            max_export_batch_size=min(queue, 512),
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

    def close(self) -> None:
        """Sends what is left. Blocks, up to 30 s when the collector hangs: call it from a thread, with a deadline."""
        self._processor.shutdown()


def otlp_spans(settings: TraceSettings, *, version: str, instance: str) -> OtlpSpans:
    """`settings.otlp_url` must be given."""
    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_url, headers=settings.otlp_headers or None, timeout=_EXPORT_TIMEOUT_S
    )
    return OtlpSpans(exporter, version=version, instance=instance, queue=settings.queue)


def _context(trace_id: str, span_id: str, *, remote: bool) -> SpanContext:
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _parent(traced: Traced) -> SpanContext | None:
    if traced.parent_span_id is None:
        return None
    return _context(traced.context.trace_id, traced.parent_span_id, remote=True)
