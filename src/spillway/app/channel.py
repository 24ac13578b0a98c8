"""The channel between the parent and a worker: length-prefixed MessagePack on a Unix socket pair.

Its end is the lifeline: a worker whose channel closes has lost its parent and leaves; a parent whose channel closes has
lost its worker.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

MAX_MESSAGE_BYTES = 64 << 20
"""Configurations and reports are far smaller: a longer message means that the other side is broken."""

_LENGTH = struct.Struct("!I")
Incoming = TypeVar("Incoming")


class Channel(asyncio.Protocol, Generic[Incoming]):
    """`incoming` is the union of message types that the other side sends. Both callbacks run on the event loop."""

    def __init__(self, incoming: object, received: Callable[[Incoming], None], closed: Callable[[], None]) -> None:
        self._decode = msgspec.msgpack.Decoder(incoming).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._received = received
        self._closed = closed
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.get_running_loop().create_future()
        self._leaving = False

    @classmethod
    async def over(
        cls, pair_end: socket.socket, incoming: object, received: Callable[[Incoming], None], closed: Callable[[], None]
    ) -> "Channel[Incoming]":
        pair_end.setblocking(False)
        channel = cls(incoming, received, closed)
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=pair_end)
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is one by structure only

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                self.close()
                return
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message = self._decode(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
            self._received(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended.set_result(None)
        if not self._leaving:
            self._closed()

    def send(self, message: object) -> None:
        """A message to a side that is gone is dropped: `closed` has been or will be called."""
        if self._transport is None:
            return
        encoded = self._encode(message)
        self._transport.write(_LENGTH.pack(len(encoded)) + encoded)

    def close(self) -> None:
        """What was sent still leaves; `closed` is not called for an end of our own making."""
        self._leaving = True
        if self._transport is not None:
            self._transport.close()

    async def finish(self) -> None:
        """Close, and wait until everything sent has left or the other side is gone."""
        self.close()
        await self._ended
