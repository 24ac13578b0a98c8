"""An origin and its kept-alive connections.

Hot path. What matters for speed: an idle connection is the last element of a list; sending is a pop and a write.
"""

import asyncio
import logging

from spillway.net.client_connection import ClientConnection
from spillway.net.connecting import Destination
from spillway.net.ports import ConnectionFault, Receiver
from spillway.net.settings import ClientLimits
from spillway.net.ticket import ClientTicket

log = logging.getLogger(__name__)


class HttpOrigin:
    """`ports.Origin`. Made inside a running loop.

    `opened`, `reused`: connections made, and requests sent on one that had served before, since the start.
    """

    def __init__(self, destination: Destination, limits: ClientLimits) -> None:
        self.destination = destination
        self.max_head_bytes = limits.max_head_bytes
        self.opened = 0
        self.reused = 0
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._open: set[ClientConnection] = set()
        self._idle: list[ClientConnection] = []  # the longest idle first
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open(self) -> int:
        return len(self._open)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def connecting(self) -> int:
        return len(self._connecting)

    def send(self, request: bytes, receiver: Receiver) -> ClientTicket:
        ticket = ClientTicket(request, receiver)
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                self.reused += 1
                connection.reused = True
                connection.send(ticket, self._now())
                return ticket
        self._open_for(ticket)
        return ticket

    def close(self) -> None:
        """Closes idle connections now and the others when their response ends. What is sent later fails."""
        self._closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for connection in list(self._idle):
            connection.close()

    def abort(self) -> None:
        """Closes, and fails what is on its way."""
        self.close()
        for connection in list(self._open):
            connection.close()
        for task in list(self._connecting):
            task.cancel()

    def _open_for(self, ticket: ClientTicket) -> None:
        if self._closed or len(self._open) + len(self._connecting) >= self._limits.max_open:
            detail = "the origin is closed" if self._closed else "too many connections to this origin"
            self._loop.call_soon(ticket.fail, ConnectionFault.CONNECT, detail)
            return
        task = self._loop.create_task(self._connect(ticket))
        ticket.connecting = task
        self._connecting.add(task)
        task.add_done_callback(lambda task: self._connected(task, ticket))

    def _connected(self, task: asyncio.Task[None], ticket: ClientTicket) -> None:
        self._connecting.discard(task)
        if task.cancelled():
            ticket.fail(ConnectionFault.CONNECT, "the origin was closed")

    async def _connect(self, ticket: ClientTicket) -> None:
        timeout_s = self._limits.connect_timeout_s
        connection = ClientConnection(self)
        try:
            async with asyncio.timeout(timeout_s):
                await self.destination.connect(connection)
            ticket.connecting = None
            connection.send(ticket, self._now())
        except TimeoutError:
            ticket.fail(ConnectionFault.CONNECT, f"no connection after {timeout_s:g} s")
        except OSError as error:
            ticket.fail(ConnectionFault.CONNECT, str(error) or type(error).__name__)
        except Exception as error:
            log.exception("connecting to %s failed", self.destination.authority)
            ticket.fail(ConnectionFault.CONNECT, str(error))
        finally:
            # uvloop forgets to tell a protocol whose connecting was cancelled in its last step
            if ticket.carrier is None and connection in self._open:
                connection.close()

    # called by the connections

    def made(self, connection: ClientConnection) -> None:
        self.opened += 1
        self._open.add(connection)

    def released(self, connection: ClientConnection) -> None:
        if self._closed or len(self._idle) >= self._limits.max_idle:
            connection.close()
            return
        connection.idle_since_s = self._now()
        self._idle.append(connection)
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(self._limits.idle_timeout_s / 4, self._sweep)

    def lost(self, connection: ClientConnection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def sent_again(self, connection: ClientConnection, ticket: ClientTicket) -> bool:
        """Once, and only soon after sending: later the origin may have been at work on it."""
        if not connection.reused or ticket.resent or self._closed:
            return False
        if self._now() - connection.sent_at_s > self._limits.stale_window_s:
            return False
        ticket.resent = True
        ticket.carrier = None
        self._open_for(ticket)
        return True

    def _sweep(self) -> None:
        self._sweep_timer = None
        oldest_s = self._now() - self._limits.idle_timeout_s
        for connection in [each for each in self._idle if each.idle_since_s <= oldest_s]:
            connection.close()
        if self._idle:
            self._sweep_timer = self._loop.call_later(self._limits.idle_timeout_s / 4, self._sweep)
