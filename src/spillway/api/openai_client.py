"""The client's side of a relay in the OpenAI dialect (`gateway.ports.ClientPort`). Hot path: one object per request.

A whole answer and a refusal are one write; a stream's head leaves with its first content.
"""

from spillway.api.errors import error_answer, retry_headers
from spillway.core.outcome import Outcome
from spillway.core.rng import Rng
from spillway.gateway.ports import Served
from spillway.net.ports import Exchange
from spillway.wire import sse

_JSON = b"content-type: application/json\r\n"


class OpenAIClient:
    __slots__ = ("_exchange", "_expose_pools", "_rng", "_streams")

    def __init__(self, exchange: Exchange, rng: Rng, *, expose_pools: bool) -> None:
        self._exchange = exchange
        self._rng = rng
        self._expose_pools = expose_pools
        self._streams = False  # server-sent events, so that an error can be told in band

    def reply(self, status: int, content_type: bytes, body: bytes, served: Served) -> None:
        headers = b"content-type: %b\r\n%b" % (content_type, self._headers(served))
        if served.cost_usd is not None:
            headers += b"x-spillway-cost-nano-usd: %d\r\n" % round(served.cost_usd * 1e9)
        self._exchange.respond(status, headers, body)

    def open(self, status: int, content_type: bytes, served: Served) -> None:
        self._streams = content_type.startswith(sse.CONTENT_TYPE)
        self._exchange.start(
            status, b"content-type: %b\r\ncache-control: no-cache\r\n%b" % (content_type, self._headers(served))
        )

    def send(self, data: bytes, pieces: list[bytes]) -> None:
        if data and self._exchange.accepts_framed:
            self._exchange.write_framed(data)
        else:
            self._exchange.write(pieces)

    def close(self) -> None:
        self._exchange.finish()

    def cut(self, outcome: Outcome, message: str) -> None:
        if self._streams:
            self._exchange.write([sse.error_event(error_answer(outcome, message)[1])])
        self._exchange.abort()

    def refuse(
        self,
        outcome: Outcome,
        message: str,
        served: Served,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        status, body = error_answer(outcome, message, param=param, code=code)
        headers = _JSON + retry_headers(outcome, retry_after_s, self._rng) + self._headers(served)
        self._exchange.respond(status, headers, body)

    def _headers(self, served: Served) -> bytes:
        if served.pool is None or not self._expose_pools:
            return b"x-request-id: %b\r\n%b" % (served.request.encode(), served.limits)
        lines = (
            f"x-request-id: {served.request}\r\nx-spillway-pool: {served.pool}\r\nx-spillway-version: {served.version}\r\n"
            f"x-spillway-attempts: {served.attempts}\r\nx-spillway-overhead-ms: {served.overhead_ms:.3f}\r\n"
        )
        if served.spill is not None:
            lines += f"x-spillway-spill: {served.spill}\r\n"
        return lines.encode("latin-1", "replace") + served.limits
