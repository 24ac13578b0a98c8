"""W3C Trace Context, level 1: the header `traceparent`, and whether a request is traced. Pure.

00-<trace id: 32 hex>-<parent span id: 16 hex>-<flags: 2 hex, bit 0 = sampled>
"""

import re

import msgspec

from spillway.core.rng import Rng

_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")


class TraceContext(msgspec.Struct, frozen=True, gc=False):
    """A place in a trace. Ids are lower-case hex and not all zeros."""

    trace_id: str
    span_id: str
    sampled: bool


class Traced(msgspec.Struct, frozen=True, gc=False):
    """A request whose span will be told: its own place, and its parent's span where the caller has one."""

    context: TraceContext
    parent_span_id: str | None


def parse(header: bytes) -> TraceContext | None:
    """None for what the standard says to ignore. A later version may have more fields after the four that count."""
    match = _FORM.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return TraceContext(trace_id.decode(), span_id.decode(), sampled=bool(int(flags, 16) & 1))


def header_value(context: TraceContext) -> str:
    return f"00-{context.trace_id}-{context.span_id}-{'01' if context.sampled else '00'}"


def header_line(context: TraceContext) -> bytes:
    """A whole header line for the upstream, ended by CRLF."""
    return f"traceparent: {header_value(context)}\r\n".encode()


def begin(inbound: TraceContext | None, rng: Rng, *, share: float, follow: bool) -> Traced | None:
    """Decide first, make ids only for what is traced. None: not traced here (the inbound header is passed on as it came).

    `share` of the requests are traced; with `follow` a caller's own decision comes before it.
    """
    obeyed = inbound if follow else None
    if not (obeyed.sampled if obeyed is not None else share > 0 and rng.random() < share):
        return None
    span_id = _id(rng, 8)
    if inbound is None:
        return Traced(TraceContext(_id(rng, 16), span_id, sampled=True), None)
    return Traced(TraceContext(inbound.trace_id, span_id, sampled=True), inbound.span_id)


def _id(rng: Rng, count: int) -> str:
    made = rng.token_bytes(count)
    return made.hex() if any(made) else f"{1:0{2 * count}x}"
