"""A crowd of callers: keep-alive connections, one request after another on each, and what became of every one of them.

Losses are counted here, on the client's side: a caller does not try again, and does not look away.

    async with Crowd(port, KEY, bodies, callers=8) as crowd:
        await crowd.asked(100)
        ...                       # something happens to the gateway
        await crowd.asked(200)
    assert not crowd.lost
"""

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import h11
import msgspec

from spillway.core.clock import Seconds
from spillway.testing.waiting import eventually
from tests.e2e.talking import Json, request

ANSWER_S = 25.0  # longest wait for the next bytes of an answer


class Asked(msgspec.Struct, kw_only=True):
    """One request as its caller saw it."""

    stream: bool
    local_port: int  # of the connection
    status: int = 0  # 0: the connection ended before a head came
    request_id: str = ""
    pool: str = ""
    content: bool = False  # something of the answer itself came
    complete: bool = False  # an answer with its proper end
    finished_at_s: Seconds = 0.0  # Unix time
    said: str = ""  # what was wrong

    @property
    def fine(self) -> bool:
        return self.status == 200 and self.complete


class Crowd:
    """Runs from entering to leaving; leaving lets every request that was sent come to its end. `bodies` are taken in turn."""

    def __init__(self, port: int, key: str, bodies: Sequence[Json], *, callers: int) -> None:
        self._port = port
        self._key = key
        self._bodies: Iterator[Json] = itertools.cycle(bodies)
        self._callers = callers
        self._leaving = False
        self.log: list[Asked] = []  # requests that are over
        self.ports: set[int] = set()  # local ports of the connections that stand

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        if kind is None:
            for end in ends:
                if end is not None:
                    raise end

    @property
    def lost(self) -> list[Asked]:
        return [asked for asked in self.log if not asked.fine]

    async def asked(self, more: int, *, deadline_s: Seconds = 20.0) -> None:
        """Until so many more requests are over."""
        goal = len(self.log) + more
        await eventually(lambda: len(self.log) >= goal, deadline_s=deadline_s, what=f"{more} more requests")

    async def _call(self) -> None:
        while not self._leaving:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError as error:
                self.log.append(Asked(stream=False, local_port=0, said=f"cannot connect: {error}"))
                await asyncio.sleep(0.05)  # a caller's own patience: a port without a listener refuses at once
                continue
            local_port = int(writer.get_extra_info("sockname")[1])
            self.ports.add(local_port)
            try:
                await self._talk(reader, writer, local_port)
            finally:
                self.ports.discard(local_port)
                writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, local_port: int) -> None:
        """Requests on one connection until it ends, by us or by the gateway."""
        parser = h11.Connection(h11.CLIENT)
        while not self._leaving and not reader.at_eof():
            body = next(self._bodies)
            asked = Asked(stream=bool(body.get("stream")), local_port=local_port)
            writer.write(request(body, key=self._key))
            parser.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
            parser.send(h11.EndOfMessage())
            await _read(reader, parser, asked)
            asked.finished_at_s = time.time()
            self.log.append(asked)
            if not asked.complete or parser.our_state is not h11.DONE or parser.their_state is not h11.DONE:
                return
            parser.start_next_cycle()


async def _read(reader: asyncio.StreamReader, parser: h11.Connection, asked: Asked) -> None:
    body = bytearray()
    while True:
        try:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await asyncio.wait_for(reader.read(65536), ANSWER_S))
                continue
        except (OSError, h11.RemoteProtocolError, TimeoutError) as error:
            asked.said = f"{type(error).__name__}: {error}; {bytes(body[-300:])!r}"
            return
        match event:
            case h11.Response():
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                asked.status = event.status_code
                asked.request_id = headers.get("x-request-id", "")
                asked.pool = headers.get("x-spillway-pool", "")
            case h11.Data():
                asked.content = True
                body += event.data
            case h11.EndOfMessage():
                asked.complete = _proper_end(bytes(body), stream=asked.stream and asked.status == 200)
                asked.said = "" if asked.complete and asked.status == 200 else repr(bytes(body[-300:]))
                return
            case _:
                asked.said = f"{event!r} before the end of the answer"
                return


def _proper_end(body: bytes, *, stream: bool) -> bool:
    if stream:
        return body.endswith(b"data: [DONE]\n\n") and b'"error"' not in body
    return "choices" in json.loads(body) if b'"choices"' in body else b'"error"' in body
