"""Which tracing a worker does: none of its own, or spans to a collector."""

import importlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from spillway.api.data_plane import Tracing as TraceSource
from spillway.core.rng import Rng
from spillway.telemetry.observers import Observing
from spillway.telemetry.settings import TraceSettings
from spillway.telemetry.tracer import NoTracing, Tracer


class Tracing(NamedTuple):
    source: TraceSource
    observers: Sequence[Observing]
    close: Callable[[], Awaitable[None]]


def tracing_of(settings: TraceSettings, rng: Rng, log: logging.Logger) -> Tracing:
    """The exporter's module is imported only where it is configured: it needs the extra `otel`."""
    if settings.otlp_url is None:
        return Tracing(NoTracing(), (), _nothing)
    exporter = importlib.import_module("spillway.telemetry.otel").SpanExporter(settings, log)
    tracer = Tracer(exporter, rng, share=settings.share, follow=settings.follow)
    return Tracing(tracer, (tracer,), exporter.close)


async def _nothing() -> None:
    pass
