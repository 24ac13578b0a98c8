"""Spans as a collector gets them, over a real connection."""

import asyncio
import logging
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as official  # pyright: ignore[reportPrivateImportUsage]
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.schemas import Schemas
from tests.telemetry.conftest import MakeRecord

from spillway.core.outcome import Outcome
from spillway.telemetry import genai
from spillway.telemetry.otel import SpanExporter
from spillway.telemetry.settings import TraceSettings
from spillway.telemetry.trace import TraceContext, Traced

pytestmark = pytest.mark.server

TRACED = Traced(TraceContext("0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7", sampled=True), "b7ad6b7169203331")


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP on a free port."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.headers: list[dict[str, str]] = []
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        collector = cast("Collector", self.server)
        collector.requests.append(ExportTraceServiceRequest.FromString(body))
        collector.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def collector() -> Generator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes_of(span: Span) -> dict[str, object]:
    return {
        attribute.key: getattr(attribute.value, str(attribute.value.WhichOneof("value")))
        for attribute in span.attributes
    }


def test_a_request_becomes_one_span(collector: Collector, make_record: MakeRecord) -> None:
    exporter = SpanExporter(
        TraceSettings(otlp_url=collector.url, otlp_headers={"x-token": "t"}), logging.Logger("spillway.test")
    )
    exporter.put(TRACED, make_record(cached_tokens=30), 0.001)
    exporter.put(TRACED, make_record(outcome=Outcome.CUT, pool=None, version=None), 0.001)
    asyncio.run(exporter.close())
    assert collector.headers[0]["x-token"] == "t"
    spans = {attributes_of(span)["spillway.outcome"]: span for span in collector.spans()}
    assert spans.keys() == {"ok", "cut"}
    span, cut = spans["ok"], spans["cut"]
    assert span.trace_id.hex() == TRACED.context.trace_id
    assert span.span_id.hex() == TRACED.context.span_id
    assert span.parent_span_id.hex() == TRACED.parent_span_id
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (1_000_000_000_000, 1_000_500_000_000)
    assert span.status.code == 0
    known = attributes_of(span)
    assert known["gen_ai.request.model"] == "npc"
    assert known["gen_ai.usage.input_tokens"] == 100
    assert known["gen_ai.usage.output_tokens"] == 20
    assert known["gen_ai.usage.cache_read.input_tokens"] == 30
    assert known["spillway.pool"] == "npc@east"
    assert cut.status.code == 2
    assert attributes_of(cut)["error.type"] == "cut"
    assert "spillway.pool" not in attributes_of(cut)


def test_the_names_are_those_of_the_conventions_version_that_is_named() -> None:
    assert genai.REQUEST_MODEL == official.GEN_AI_REQUEST_MODEL
    assert genai.RESPONSE_MODEL == official.GEN_AI_RESPONSE_MODEL
    assert genai.RESPONSE_ID == official.GEN_AI_RESPONSE_ID
    assert genai.INPUT_TOKENS == official.GEN_AI_USAGE_INPUT_TOKENS
    assert genai.OUTPUT_TOKENS == official.GEN_AI_USAGE_OUTPUT_TOKENS
    assert genai.CACHED_TOKENS == official.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS
    assert genai.ERROR_TYPE == error_attributes.ERROR_TYPE
    assert genai.SEMCONV_VERSION in {schema.value.rpartition("/")[2] for schema in Schemas}
