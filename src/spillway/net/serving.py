"""Listening: a socket that feeds an `HttpServer`."""

import asyncio
import ssl

from spillway.net.server import HttpServer

BACKLOG = 4096
TLS_HANDSHAKE_S = 10.0


async def listen(
    server: HttpServer, host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Accepts connections for `server`. Port 0 picks a free one: see `bound_port`. Raises OSError when it cannot bind.

    `reuse_port`: several processes may listen on the same port, and the kernel spreads connections over them.
    Closing the result stops accepting; the connections are `server`'s to drain.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        server.protocol,
        host,
        port,
        backlog=BACKLOG,
        reuse_port=reuse_port or None,
        ssl=tls,
        ssl_handshake_timeout=TLS_HANDSHAKE_S if tls is not None else None,
    )


def bound_port(listening: asyncio.Server) -> int:
    return int(listening.sockets[0].getsockname()[1])
