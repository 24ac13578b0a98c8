"""The admin port of the parent: the admin app over the project's own HTTP server, with a token in a file of mode 0600."""

import asyncio
import os
from pathlib import Path

from starlette.types import ASGIApp

from spillway.api.errors import refusal
from spillway.app.listeners import listen, split_address
from spillway.core.errors import StoreError
from spillway.core.ids import random_word
from spillway.core.rng import Rng
from spillway.net.asgi import AsgiRoute
from spillway.net.ports import Rejection, Route
from spillway.net.server import HttpServer
from spillway.net.settings import ServerLimits

MAX_BODY_BYTES = 1 << 20
LOOPBACK_NAMES = frozenset(("127.0.0.1", "localhost", "::1"))
DRAIN_S = 2.0


def admin_token(home: Path, rng: Rng) -> str:
    """The token in `HOME/admin.token`, made where there is none."""
    path = home / "admin.token"
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{random_word(rng, 40)}\n")
        if path.stat().st_mode & 0o077:
            raise StoreError(f"{path.name} may be read by others: chmod 600 it, or delete it to get another token")
        token = path.read_text().strip()
    except OSError as error:
        raise StoreError(f"{path.name}: {error.strerror or error}") from error
    if len(token) < 16:
        raise StoreError(f"{path.name} holds no token: delete it to get one")
    return token


def allowed_hosts(address: str, configured: tuple[str, ...]) -> frozenset[str]:
    """Names that the admin port answers to: the loopback's, the address it listens on, and those configured."""
    return LOOPBACK_NAMES | {split_address(address)[0].lower()} | {name.lower() for name in configured}


class AdminServer:
    """`async with AdminServer(app, address)` serves the app."""

    def __init__(self, app: ASGIApp, address: str) -> None:
        self._address = address
        self._route = AsgiRoute(app, refuse=self.rejection, max_body_bytes=MAX_BODY_BYTES)

    def route(self, method: bytes, path: bytes) -> Route:
        return self._route

    def rejection(self, reason: Rejection) -> tuple[int, bytes, bytes]:
        return refusal(reason)

    async def __aenter__(self) -> "AdminServer":
        self._server = HttpServer(self, ServerLimits(max_connections=256))
        listener = listen(self._address, 1)[0]
        self._accepting = await asyncio.get_running_loop().create_server(self._server.protocol, sock=listener)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._accepting.close()
        await self._server.drain(DRAIN_S)
        self._server.close()
        await self._route.shutdown(DRAIN_S)
