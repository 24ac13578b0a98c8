"""Listening sockets. The parent binds one per worker and keeps them open, so that a worker's successor inherits its queue."""

import socket

from spillway.core.errors import ConfigError

BACKLOG = 4096


def split_address(address: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT`. ConfigError where it is neither."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"'{address}' is not HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


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
