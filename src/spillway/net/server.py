"""A server's connections as a whole: their bound, their sweep, and the way to end them without losing a request."""

import asyncio
import select
from collections.abc import Collection

from spillway.net.ports import Service
from spillway.net.server_connection import ServerConnection, Shared
from spillway.net.settings import ServerLimits

SLICES = 8  # of a sweep


class HttpServer:
    """HTTP/1.1 over what `loop.create_server` accepts. Made inside a running loop.

    `protocol` is the factory of its connections. `drain`, then `close`, end it; the listening socket is its owner's.
    """

    def __init__(self, service: Service, limits: ServerLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._shared = Shared(service, limits, self._loop.time)
        shortest_s = min(
            limits.head_timeout_s, limits.body_timeout_s, limits.idle_timeout_s, limits.write_timeout_s, limits.linger_s
        )
        self._slice_s = min(1.0, shortest_s / 8) / SLICES
        self._unswept: list[ServerConnection] = []
        self._slice_size = 1
        self._sweep_timer = self._loop.call_later(self._slice_s, self._sweep)

    def protocol(self) -> asyncio.Protocol:
        return ServerConnection(self._shared)

    @property
    def connections(self) -> int:
        return len(self._shared.open)

    @property
    def max_connections(self) -> int:
        return self._shared.limits.max_connections

    async def drain(self, deadline_s: float, *, patient: bool = False) -> int:
        """Lets every request that has come whole be answered, and closes. Stop listening first.

        Idle connections are closed at once, or, where `patient`, after `linger_s` without a request: a client that is just
        sending one would lose it. Answers that have not begun say `connection: close`. After `deadline_s` seconds,
        requests that were not received whole are refused. Returns how many connections are left then: those still answering.
        """
        shared = self._shared
        shared.draining = True
        spoken = _readable(shared.open)
        for connection in list(shared.open):
            connection.drain(patient=patient or connection in spoken)
        await self._emptied(deadline_s)
        for connection in list(shared.open):
            connection.refuse_unfinished()
        return len(shared.open)

    async def _emptied(self, deadline_s: float) -> None:
        shared = self._shared
        if not shared.open:
            return
        shared.emptied = self._loop.create_future()
        try:
            async with asyncio.timeout(deadline_s):
                await shared.emptied
        except TimeoutError:
            return
        finally:
            shared.emptied = None

    def close(self) -> None:
        """Cuts what is left and ends the sweep. Idempotent."""
        self._sweep_timer.cancel()
        for connection in list(self._shared.open):
            connection.cut()

    def _sweep(self) -> None:
        """Looks at every connection once in `SLICES` calls: 20,000 at once would hold the loop for 10 ms."""
        if not self._unswept:
            self._unswept = list(self._shared.open)
            self._slice_size = len(self._unswept) // SLICES + 1
        now_s = self._loop.time()
        for connection in self._unswept[-self._slice_size :]:
            if connection in self._shared.open:
                connection.sweep(now_s)
        del self._unswept[-self._slice_size :]
        self._sweep_timer = self._loop.call_later(self._slice_s, self._sweep)


def _readable(connections: Collection[ServerConnection]) -> set[ServerConnection]:
    """Connections with bytes in the kernel that the loop has not read yet: closing them would lose a request."""
    poll = select.poll()
    by_descriptor: dict[int, ServerConnection] = {}
    for connection in connections:
        peer_socket = connection.transport.get_extra_info("socket")
        if peer_socket is not None:
            by_descriptor[peer_socket.fileno()] = connection
            poll.register(peer_socket.fileno(), select.POLLIN)
    return {by_descriptor[descriptor] for descriptor, _ in poll.poll(0)}
