"""Listening sockets. The parent binds one per worker and keeps them open, so that a worker's successor inherits its queue."""

import asyncio
import errno
import os
import socket

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError

BACKLOG = 4096
VACANT_S = 2.0  # the workers of a parent that was killed are gone by then
_LOOK_S = 0.05


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT`. ConfigError where it is neither."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"'{address}' is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def reachable(address: str) -> str:
    """An address to connect to, of one that is listened on: that of everywhere is reached on this machine."""
    host, port = split_address(address)
    if host == "0.0.0.0":
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def vacant(address: str, patience_s: Seconds = VACANT_S) -> None:
    """Waits until nobody listens on an address. ConfigError where somebody still does after `patience_s`.

    Sockets that share a port (`listen`) would share it with another gateway too, and each would get some of the connections.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while not _is_vacant(*split_address(address)):
        if loop.time() >= deadline:
            raise ConfigError(f"cannot listen on {address}: {os.strerror(errno.EADDRINUSE)}")
        await asyncio.sleep(_LOOK_S)


def _is_vacant(host: str, port: int) -> bool:
    """Whether an exclusive bind works, or fails for another reason, which `listen` tells."""
    if port == 0:
        return True
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def listen(address: str, count: int) -> list[socket.socket]:
    """`count` sockets on one address that share its connections. Port 0 takes a free port, the same for all."""
    host, port = split_address(address)
    sockets: list[socket.socket] = []
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        for _ in range(count):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            port = int(listener.getsockname()[1])
            listener.listen(BACKLOG)
            listener.set_inheritable(True)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ConfigError(f"cannot listen on {address}: {error.strerror or error}") from error
    return sockets
