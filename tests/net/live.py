"""Servers on loopback and clients that speak to them byte by byte. Every test runs on asyncio's own loop and on uvloop."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import h11
import pytest
import uvloop

from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.ports import Service
from spillway.net.server import HttpServer
from spillway.net.serving import bound_port, listen
from spillway.net.settings import ClientLimits, ServerLimits
from spillway.testing.waiting import eventually
from tests.net.played import Receiver

Main = Callable[[], Coroutine[Any, Any, None]]
DEADLINE_S = 20.0

on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


class Live:
    """A server on a free port of loopback."""

    def __init__(self, server: HttpServer, port: int, listening: asyncio.Server) -> None:
        self.server = server
        self.port = port
        self.listening = listening

    async def talk(self) -> "Talk":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return Talk(reader, writer)


@contextlib.asynccontextmanager
async def serving(
    service: Service, limits: ServerLimits | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Live]:
    server = HttpServer(service, limits or ServerLimits())
    listening = await listen(server, "127.0.0.1", 0, tls=tls)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield Live(server, bound_port(listening), listening)
    finally:
        listening.close()
        server.close()
        await eventually(lambda: server.connections == 0, what="the end of the server's connections")


@contextlib.asynccontextmanager
async def origin(url: str | Destination, limits: ClientLimits | None = None) -> AsyncGenerator[HttpOrigin]:
    made = HttpOrigin(url if isinstance(url, Destination) else Destination(url), limits or ClientLimits())
    try:
        yield made
    finally:
        made.abort()
        await eventually(lambda: made.open == 0 and made.connecting == 0, what="the end of the origin's connections")


async def fetch(from_origin: HttpOrigin, request: bytes = b"GET /auto HTTP/1.1\r\nhost: x\r\n\r\n") -> Receiver:
    receiver, over = Receiver(), asyncio.Event()
    receiver.told_over = over.set
    from_origin.send(request, receiver)
    async with asyncio.timeout(DEADLINE_S):
        await over.wait()
    return receiver


class Talk:
    """The client's side of a TCP connection; answers are parsed by h11."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._parser = h11.Connection(h11.CLIENT)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, method: str = "GET") -> tuple[h11.Response, bytes]:
        """The next answer, to a request that was sent by `send`."""
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._parser.send(h11.EndOfMessage())
        response = None
        body: list[bytes] = []
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                self._parser.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None
                return response, b"".join(body)

    async def ended(self) -> bool:
        """Waits for the end of what the server sends; whether it ended without anything more."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
