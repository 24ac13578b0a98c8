"""Opening connections: to a host and port, with TLS or without, straight or through a proxy."""

import asyncio
import ssl
from urllib.parse import urlsplit

from spillway.core.errors import ConfigError
from spillway.net.client_connection import ClientConnection
from spillway.net.proxy import ConnectAnswer, Proxy


class Destination:
    """Where an origin is. `authority` is the value of its Host header.

    `tls` None means plain HTTP. `proxy` is used for TLS only: plain HTTP goes straight.
    """

    __slots__ = ("_proxy", "_tls", "authority", "host", "port")

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None) -> None:
        """From `http://host[:port]` or `https://host[:port]`; a path is ignored. https needs `tls`. Raises ConfigError."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            raise ConfigError(f"{url}: the port is not a number up to 65535") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url}: an origin begins with http://host or https://host")
        if parts.username is not None:
            raise ConfigError(f"an origin's URL must not hold a user or password: {parts.hostname}")
        if parts.scheme == "https" and tls is None:
            raise ConfigError(f"{url}: https needs a TLS context")
        standard_port = 443 if parts.scheme == "https" else 80
        self.host = parts.hostname
        self.port = port or standard_port
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = name if self.port == standard_port else f"{name}:{self.port}"
        self._tls = tls if parts.scheme == "https" else None
        self._proxy = proxy

    async def connect(self, connection: ClientConnection) -> None:
        """Makes `connection` ready for a request. Raises OSError (of which ssl.SSLError is one). Has no deadline of its own."""
        if self._tls is not None and self._proxy is not None:
            await self._connect_through(self._proxy, self._tls, connection)
            return
        server_name = self.host if self._tls is not None else None
        loop = asyncio.get_running_loop()
        await loop.create_connection(
            lambda: connection, self.host, self.port, ssl=self._tls, server_hostname=server_name
        )

    async def _connect_through(self, proxy: Proxy, tls: ssl.SSLContext, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        name = f"[{self.host}]" if ":" in self.host else self.host
        answer = ConnectAnswer(proxy, f"{name}:{self.port}")
        try:
            plain, _ = await loop.create_connection(lambda: answer, proxy.host, proxy.port)
            await answer.opened
            secured = await loop.start_tls(plain, connection, tls, server_hostname=self.host)
            if secured is None:
                raise ConnectionAbortedError("the connection was lost while TLS began")
            connection.connection_made(secured)
        except BaseException:
            answer.abort()
            raise
