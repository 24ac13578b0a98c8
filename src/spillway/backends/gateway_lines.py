"""Sends lines of batches to a gateway, each in the name of a key: `batch.ports.Sender`."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle

from spillway.batch.ports import Reply
from spillway.core.clock import Seconds
from spillway.core.ids import KeyId
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.ports import ConnectionFault, Headers
from spillway.net.settings import ClientLimits

LONGEST_DEADLINE_S = 86_399.0  # that a gateway reads
MAX_ANSWER_BYTES = 64 << 20
NO_KEY = Reply(
    401,
    b'{"error":{"message":"The key that made this batch has ended.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}',
)

_READ = frozenset((
    b"x-request-id", b"retry-after-ms", b"x-spillway-cost-nano-usd", b"x-spillway-pool", b"x-spillway-version", b"x-spillway-attempts",
))  # fmt: skip

Passes = Callable[[KeyId], Awaitable[bytes | None]]
"""What to show in a key's place; None: the key has ended."""


class GatewayLines:
    """`gateways`: http(s)://HOST:PORT; lines go to each in turn. `answer_s`: the longest time to an answer. Made inside a running loop."""

    def __init__(
        self, gateways: Sequence[str], passes: Passes, *, most: int, answer_s: Seconds, tls: ssl.SSLContext | None
    ) -> None:
        limits = ClientLimits(max_open=2 * most, max_idle=most)
        self._origins = [HttpOrigin(Destination(url, tls=tls), limits) for url in gateways]
        self._turns = cycle(self._origins)
        self._passes = passes
        self._answer_s = answer_s

    async def send(self, key: KeyId, item: str, path: str, body: bytes, deadline_s: Seconds) -> Reply:
        secret = await self._passes(key)
        if secret is None:
            return NO_KEY
        origin = next(self._turns)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {origin.destination.authority}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {secret.decode()}\r\nx-priority: batch\r\nx-spillway-item: {item}\r\n"
            f"x-deadline-ms: {int(min(deadline_s, LONGEST_DEADLINE_S) * 1000)}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        answer = _Answer()
        ticket = origin.send(head.encode("ascii") + body, answer)
        try:
            async with asyncio.timeout(min(self._answer_s, deadline_s)):
                return await answer.reply
        except TimeoutError:
            ticket.cancel()
            return Reply(0, b"no answer in time")
        except asyncio.CancelledError:
            ticket.cancel()
            raise

    def close(self) -> None:
        for origin in self._origins:
            origin.abort()


class _Answer:
    """`net.ports.Receiver` of one answer."""

    def __init__(self) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: dict[bytes, str] = {}
        self._pieces: list[bytes] = []
        self._size_bytes = 0

    def response_head(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = {name: value.decode("latin-1") for name, value in headers if name in _READ}

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        self._size_bytes += sum(map(len, pieces))
        if self._size_bytes <= MAX_ANSWER_BYTES:
            self._pieces.extend(pieces)

    def response_end(self) -> None:
        if self._size_bytes > MAX_ANSWER_BYTES:
            self._settle(Reply(0, b"the answer is too large"))
        else:
            self._settle(self._read(b"".join(self._pieces)))

    def _read(self, body: bytes) -> Reply:
        headers = self._headers
        return Reply(
            self._status,
            body,
            headers.get(b"x-request-id", ""),
            None if b"retry-after-ms" not in headers else _whole(headers[b"retry-after-ms"]) / 1000.0,
            _whole(headers.get(b"x-spillway-cost-nano-usd", "")),
            headers.get(b"x-spillway-pool", ""),
            headers.get(b"x-spillway-version", ""),
            _whole(headers.get(b"x-spillway-attempts", "1")),
        )

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        self._settle(Reply(0, f"{fault.value}: {detail}".encode()))

    def _settle(self, reply: Reply) -> None:
        if not self.reply.done():
            self.reply.set_result(reply)


def _whole(text: str) -> int:
    """0 for what is no number."""
    return int(text) if text.isascii() and text.isdigit() else 0
