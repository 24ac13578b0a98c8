"""A link between two that talk over TCP, which a test can cut: then bytes go nowhere, and nobody is told, as in a partition."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator


class Link:
    """`port` is this side's; what comes there goes to `far_port` and back."""

    def __init__(self, far_port: int) -> None:
        self._far_port = far_port
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps = set[asyncio.Task[None]]()
        self.port = 0

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        """What was sent meanwhile arrives now."""
        self._whole.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await self._whole.wait()
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far_port)
            except OSError:
                return
            with contextlib.closing(far_writer), contextlib.suppress(OSError):
                there = asyncio.ensure_future(self._pump(reader, far_writer))
                back = asyncio.ensure_future(self._pump(far_reader, writer))
                self._pumps |= {there, back}
                try:
                    await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
                    await asyncio.gather(there, back, return_exceptions=True)
                    self._pumps -= {there, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def linked(far_port: int, port: int = 0) -> AsyncGenerator[Link]:
    link = Link(far_port)
    async with await asyncio.start_server(link.serve, "127.0.0.1", port) as listening:
        link.port = listening.sockets[0].getsockname()[1]
        yield link
        link.mend()
