"""A client that costs little: one request at a time on a kept connection, and an honest word on whether its answer was whole."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping

import msgspec

CHAT = "/v1/chat/completions"


class Answer(msgspec.Struct):
    """`whole`: nothing of what the framing announced is missing. A stream that broke ends whole too: look for `[DONE]`."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    whole: bool = False

    @property
    def request_id(self) -> str:
        return self.headers.get(b"x-request-id", b"").decode()

    @property
    def complete(self) -> bool:
        """A 200 of which nothing is missing, also by the words of its own protocol."""
        streamed = self.headers.get(b"content-type", b"").startswith(b"text/event-stream")
        return self.status == 200 and self.whole and (not streamed or self.body.endswith(b"data: [DONE]\n\n"))


class Connection:
    """`await Connection.open(port)`. Raises OSError and EOFError (asyncio.IncompleteReadError) as its socket does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.kept = True

    @classmethod
    async def open(cls, port: int, *, receive_bytes: int | None = None) -> "Connection":
        """`receive_bytes`: of the kernel's buffer and of ours, for a client that reads slowly."""
        if receive_bytes is None:
            return cls(*await asyncio.open_connection("127.0.0.1", port))
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=connected, limit=receive_bytes))

    @property
    def usable(self) -> bool:
        return self.kept and not self._reader.at_eof() and not self._writer.is_closing()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def head(self) -> Answer:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        pairs = (line.partition(b":") for line in lines[1:] if line)
        answer = Answer(int(lines[0][9:12]), {name.lower(): value.strip() for name, _, value in pairs})
        self.kept = answer.headers.get(b"connection", b"").lower() != b"close"
        return answer

    async def piece(self, answer: Answer) -> bool:
        """Reads one chunk, or all of a counted body. False: the body is complete."""
        if answer.headers.get(b"transfer-encoding") != b"chunked":
            length = int(answer.headers.get(b"content-length", b"0"))
            answer.body += await self._reader.readexactly(length - len(answer.body))
            answer.whole = True
            return False
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        answer.body += (await self._reader.readexactly(size + 2))[:-2]
        answer.whole = size == 0
        return size > 0

    async def answer(self) -> Answer:
        answer = await self.head()
        while await self.piece(answer):
            pass
        return answer

    async def trickle(self, size: int) -> bytes:
        """Some bytes as they are, at most `size`; b"": the other side has ended."""
        return await self._reader.read(size)

    def abort(self) -> None:
        self.kept = False
        self._writer.transport.abort()

    async def close(self) -> None:
        self.kept = False
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def request(
    body: bytes | Mapping[str, object], *, key: str | None, path: str = CHAT, method: str = "POST", more: str = ""
) -> bytes:
    """The bytes of a request. `more`: further whole header lines, each ended by CRLF."""
    content = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    authorization = f"authorization: Bearer {key}\r\n" if key is not None else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n{authorization}{more}\r\n"
    )
    return head.encode() + content


async def ask(port: int, data: bytes) -> Answer:
    """One request on a connection of its own."""
    connection = await Connection.open(port)
    try:
        connection.send(data)
        return await connection.answer()
    finally:
        await connection.close()
