"""Bounds of the server's and the client's connections, and what happens at each."""

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of an `HttpServer`. Times are kept to about an eighth, never shorter than set."""

    max_head_bytes: Count = 32 * 1024  # request line and headers; over it 431
    max_headers: Count = 100  # over it 431
    max_connections: Count = 20_000  # over it 503 and the connection is closed
    head_timeout_s: Seconds = 10.0  # from the first byte of a request to the end of its headers; then 408
    body_timeout_s: Seconds = 30.0  # without a byte of a body that is due; then 408
    idle_timeout_s: Seconds = 75.0  # between requests; then the connection is closed
    write_timeout_s: Seconds = 60.0  # while a client takes nothing of its answer; then the connection is cut
    linger_s: Seconds = 2.0  # what a client still sends after a refusal is read and thrown away this long
    write_buffer_bytes: Count = 64 * 1024  # buffered towards a client before its producer is told to stop


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of one `HttpOrigin`."""

    connect_timeout_s: Seconds = 5.0  # name, TCP, proxy and TLS together; then `ConnectionFault.CONNECT`
    idle_timeout_s: Seconds = 30.0  # an unused connection is closed after this
    max_idle: Annotated[int, msgspec.Meta(ge=0)] = 1024  # over it a connection is closed after its response
    max_open: Count = 8192  # over it a request fails with `ConnectionFault.CONNECT`
    max_head_bytes: Count = 64 * 1024  # status line and headers; over it `ConnectionFault.TOO_LARGE`
    stale_window_s: Seconds = 1.0  # a reused connection lost later than this is a fault of the request, not stale
