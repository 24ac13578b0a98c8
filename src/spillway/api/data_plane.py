"""The public port: hot paths go straight to the pipeline, every other path to the ASGI app. Hot path.

One pass over the headers picks out what matters here; nothing a client sends is passed on but the request id, the trace
context and the body. Inbound x-spillway-* headers are therefore never seen by an upstream. Of `x-spillway-hops` it matters
only that it is there: it takes tiers away from whoever sends it, and gives nothing. `x-spillway-item` counts with a batch worker's pass.
"""

import re
from collections.abc import Callable
from typing import Protocol

from spillway.api.errors import OUTCOME_OF, error_answer, refusal
from spillway.api.openai_client import OpenAIClient
from spillway.core.clock import Seconds
from spillway.core.ids import RequestId, RequestIds
from spillway.core.outcome import Outcome
from spillway.core.rng import Rng
from spillway.gateway.call import Ask
from spillway.gateway.pipeline import Pipeline
from spillway.gateway.ports import Observer, Served
from spillway.net.ports import Exchange, Rejection, Route
from spillway.wire.envelope import Kind

HOT_PATHS: dict[bytes, Kind] = {
    b"/v1/chat/completions": Kind.CHAT,
    b"/v1/completions": Kind.COMPLETIONS,
    b"/v1/embeddings": Kind.EMBEDDINGS,
    b"/v1/moderations": Kind.EMBEDDINGS,
}
UPLOADS = b"/v1/files"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}\Z")
_SESSION_HEADERS = frozenset((b"x-session-id", b"session-id"))
_KEY_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key"))
_PRIORITY = b"x-priority"
_DEADLINE = b"x-deadline-ms"
_HOPS = b"x-spillway-hops"
_FORWARDED = b"x-forwarded-for"
_ITEM = b"x-spillway-item"
_PASS = b"pass-"
_READ = _KEY_HEADERS | _SESSION_HEADERS | {
    b"x-request-id", b"traceparent", b"content-encoding", _PRIORITY, _DEADLINE, _HOPS, _FORWARDED, _ITEM,
}  # fmt: skip
"""All other headers are passed over."""
_JSON = b"content-type: application/json\r\n"


class Tracing(Protocol):
    """Continues or starts a trace. Returns the header lines for the upstream, b"" where nothing is traced."""

    def begin(self, request: RequestId, traceparent: bytes) -> bytes: ...


class DataPlane:
    """`net.ports.Service` of the public port."""

    def __init__(
        self,
        pipeline: Pipeline,
        other: Route,
        uploads: Route,
        ids: RequestIds,
        rng: Rng,
        tracing: Tracing,
        observer: Observer,
        *,
        max_body_bytes: int,
        expose_pools: bool,
    ) -> None:
        self._pipeline = pipeline
        self._ids = ids
        self._rng = rng
        self._tracing = tracing
        self._observer = observer
        self._expose_pools = expose_pools
        self._other = other
        self._uploads = uploads
        self._hot = {
            path: Route(self._taker(path, kind), max_body_bytes=max_body_bytes) for path, kind in HOT_PATHS.items()
        }
        self._wrong_method = Route(self._refuse_method, max_body_bytes=max_body_bytes)

    def route(self, method: bytes, path: bytes) -> Route:
        hot = self._hot.get(path)
        if hot is None:
            return self._uploads if path == UPLOADS and method == b"POST" else self._other
        return hot if method == b"POST" else self._wrong_method

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        self._observer.refused(OUTCOME_OF[reason])
        return refusal(reason)

    def _taker(self, path: bytes, kind: Kind) -> Callable[[Exchange], None]:
        def take(exchange: Exchange) -> None:
            self._take(exchange, path, kind)

        return take

    def _take(self, exchange: Exchange, path: bytes, kind: Kind) -> None:
        secret = client_id = traceparent = b""
        session = priority = forwarded = item = ""
        deadline_s: Seconds | None = None
        encoded, hops = False, 0
        for name, value in exchange.headers:
            if name not in _READ:
                continue
            if name == b"authorization":
                secret = value[7:].strip() if value[:7].lower() == b"bearer " else secret
            elif name == b"x-request-id":
                client_id = value
            elif name == b"traceparent":
                traceparent = value
            elif name == b"content-encoding":
                encoded = value.lower() != b"identity"
            elif name in _SESSION_HEADERS:
                session = value.decode("latin-1")[:256]
            elif name == _PRIORITY:
                priority = value.decode("latin-1")
            elif name == _DEADLINE:
                deadline_s = _seconds_of_ms(value)
            elif name == _HOPS:
                hops = 1 if value.strip() not in (b"", b"0") else 0
            elif name == _FORWARDED:
                forwarded = f"{forwarded},{value.decode('latin-1')}" if forwarded else value.decode("latin-1")
            elif name == _ITEM:
                item = value.decode("latin-1")[:256]
            else:
                secret = secret or value
        if item and not secret.startswith(_PASS):  # only a batch worker may say so
            item = ""
        request = self._ids.next()
        client = OpenAIClient(exchange, self._rng, expose_pools=self._expose_pools)
        if encoded:
            self._observer.refused(Outcome.UNSUPPORTED_ENCODING)
            client.refuse(Outcome.UNSUPPORTED_ENCODING, "", Served(request))
            return
        extra = b"x-request-id: %b\r\n" % request.encode()
        if client_id and _REQUEST_ID.match(client_id):
            extra += b"x-client-request-id: %b\r\n" % client_id
        extra += self._tracing.begin(request, traceparent)
        ask = Ask(
            request,
            kind,
            path,
            secret,
            exchange.body,
            extra,
            session,
            priority,
            deadline_s,
            hops,
            exchange.peer,
            forwarded,
            item,
        )
        alive = self._pipeline.take(ask, client)
        if alive is not None:
            exchange.listener = alive

    def _refuse_method(self, exchange: Exchange) -> None:
        self._observer.refused(Outcome.METHOD_NOT_ALLOWED)
        status, body = error_answer(Outcome.METHOD_NOT_ALLOWED)
        exchange.respond(status, _JSON + b"allow: POST\r\n", body)


def _seconds_of_ms(value: bytes) -> Seconds | None:
    """None for what is not a number of milliseconds above 0: a deadline that cannot be read binds nobody."""
    try:
        ms = float(value)
    except ValueError:
        return None
    return ms / 1000.0 if 0.0 < ms < 86_400_000.0 else None
