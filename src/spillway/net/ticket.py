"""What the sender of a request holds: the right to give it up, to hold its response back, and nothing after its end."""

import asyncio
from typing import Protocol

from spillway.net.ports import ConnectionFault, Receiver


class Carrier(Protocol):
    """The connection that carries the request."""

    def abandon(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ClientTicket:
    """`ports.Ticket`. At most one of `carrier` and `connecting` is set; neither after the end, so that every method is a no-op then."""

    __slots__ = ("carrier", "connecting", "paused", "receiver", "request", "resent")

    def __init__(self, request: bytes, receiver: Receiver) -> None:
        self.request = request
        self.receiver: Receiver | None = receiver
        self.carrier: Carrier | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.resent = False
        self.paused = False

    def cancel(self) -> None:
        self.receiver = None
        carrier, self.carrier = self.carrier, None
        connecting, self.connecting = self.connecting, None
        if carrier is not None:
            carrier.abandon()
        elif connecting is not None:
            connecting.cancel()

    def pause(self) -> None:
        self.paused = True
        if self.carrier is not None:
            self.carrier.pause()

    def resume(self) -> None:
        self.paused = False
        if self.carrier is not None:
            self.carrier.resume()

    def fail(self, fault: ConnectionFault, detail: str) -> None:
        """Tells the receiver, once."""
        self.carrier = self.connecting = None
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.response_failed(fault, detail)
