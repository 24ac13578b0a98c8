"""Trace context by the W3C's rules, decided before anything is made."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry.conftest import MakeRecord

from spillway.core.ids import RequestId
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.telemetry.trace import TraceContext, Traced, begin, header_line, header_value, parse
from spillway.telemetry.tracer import NoTracing, Tracer
from spillway.testing.rng import SeededRng

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
UNSAMPLED = f"00-{TRACE}-{SPAN}-00".encode()


def test_a_header_is_read() -> None:
    assert parse(SAMPLED) == TraceContext(TRACE, SPAN, sampled=True)
    assert parse(UNSAMPLED) == TraceContext(TRACE, SPAN, sampled=False)
    assert parse(f"00-{TRACE}-{SPAN}-03".encode()) == TraceContext(TRACE, SPAN, sampled=True)
    assert parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like".encode()) == TraceContext(
        TRACE, SPAN, sampled=True
    )


@pytest.mark.parametrize(
    "header",
    [
        "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[:-1]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\r\nx: y", f"cc-{TRACE}-{SPAN}-01-\r\nx: y", f"0g-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01 ",
    ],
)  # fmt: skip
def test_what_the_standard_says_to_ignore_is_ignored(header: str) -> None:
    assert parse(header.encode()) is None


@given(st.binary(max_size=80))
@settings(deadline=None)
def test_any_bytes_are_read_without_failing(header: bytes) -> None:
    context = parse(header)
    assert context is None or header_value(context).encode()[:-1] == b"00" + header[2:54]


@given(st.integers(0, 1000), st.booleans())
@settings(deadline=None)
def test_what_is_written_is_read_back(seed: int, sampled: bool) -> None:
    traced = begin(None, SeededRng(seed), share=1.0, follow=True)
    assert traced is not None
    context = TraceContext(traced.context.trace_id, traced.context.span_id, sampled)
    assert parse(header_line(context).removeprefix(b"traceparent: ").removesuffix(b"\r\n")) == context


def test_a_callers_trace_is_continued_with_a_span_of_our_own() -> None:
    traced = begin(parse(SAMPLED), SeededRng(1), share=0.0, follow=True)
    assert traced is not None
    assert traced.context.trace_id == TRACE
    assert traced.parent_span_id == SPAN
    assert traced.context.span_id != SPAN


def test_a_caller_decides_only_where_it_is_followed() -> None:
    assert begin(parse(UNSAMPLED), SeededRng(1), share=1.0, follow=True) is None
    assert begin(parse(SAMPLED), SeededRng(1), share=0.0, follow=False) is None
    traced = begin(parse(UNSAMPLED), SeededRng(1), share=1.0, follow=False)
    assert traced is not None
    assert traced.context.trace_id == TRACE


def test_the_share_is_kept() -> None:
    rng = SeededRng(1)
    count = sum(begin(None, rng, share=0.05, follow=True) is not None for _ in range(10_000))
    assert 400 < count < 600


class Told:
    """A SpanSink: a list."""

    def __init__(self) -> None:
        self.spans: list[tuple[Traced, UsageRecord, float]] = []

    def put(self, traced: Traced, record: UsageRecord, overhead_s: float) -> None:
        self.spans.append((traced, record, overhead_s))


def test_a_traced_request_is_told_when_it_ends_and_the_upstream_hears_of_our_span(make_record: MakeRecord) -> None:
    told = Told()
    tracer = Tracer(told, SeededRng(1), share=0.0, follow=True)
    line = tracer.begin(RequestId("req_0"), SAMPLED)
    assert told.spans == []
    tracer.ended(make_record(), 0.001)
    tracer.ended(make_record(), 0.001)  # and once
    tracer.refused(Outcome.UNAUTHENTICATED)
    ((traced, record, overhead_s),) = told.spans
    assert line == header_line(traced.context)
    assert (record.request, overhead_s) == ("req_0", 0.001)


@pytest.mark.parametrize("header", [UNSAMPLED, SAMPLED, b"", b"nonsense"])
def test_what_is_not_traced_passes_on_as_it_came(header: bytes, make_record: MakeRecord) -> None:
    told = Told()
    tracer = Tracer(told, SeededRng(1), share=0.0, follow=False)
    expected = b"traceparent: %b\r\n" % header if parse(header) else b""
    assert tracer.begin(RequestId("req_0"), header) == expected
    assert NoTracing().begin(RequestId("req_0"), header) == expected
    tracer.ended(make_record(), 0.0)
    assert told.spans == []


def test_requests_that_never_end_are_forgotten_oldest_first(make_record: MakeRecord) -> None:
    told = Told()
    tracer = Tracer(told, SeededRng(1), share=1.0, follow=True, max_open=10)
    for number in range(25):
        tracer.begin(RequestId(f"req_{number}"), b"")
    for number in range(25):
        tracer.ended(make_record(request=f"req_{number}"), 0.0)
    assert [record.request for _, record, _ in told.spans] == [f"req_{number}" for number in range(15, 25)]
