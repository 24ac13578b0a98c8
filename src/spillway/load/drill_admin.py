"""What a drill asks of the gateway's admin port: which pools there are, and another limit for one."""

import asyncio
from urllib.parse import quote, urlsplit

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError, UsageError
from spillway.net.ports import ConnectionFault, Headers, Origin

ANSWER_S: Seconds = 5.0


class AdminError(SpillwayError):
    """The admin port gave no answer, or not the one that was hoped for."""


class PoolEndpoint(msgspec.Struct, frozen=True):
    url: str


class DrilledPool(msgspec.Struct, frozen=True):
    """`limit` is the one in force; `cluster` None: a hosted provider's."""

    name: str
    cluster: str | None
    limit: int
    configured_limit: int
    endpoints: tuple[PoolEndpoint, ...]


class _Pools(msgspec.Struct, frozen=True):
    pools: tuple[DrilledPool, ...]


class AdminPort:
    """`url` has neither a path nor a slash at its end; `origin` sends there."""

    def __init__(self, origin: Origin, url: str, token: str) -> None:
        self.url = url
        self._origin = origin
        self._token = token

    async def pools(self) -> tuple[DrilledPool, ...]:
        """Raises AdminError."""
        body = await self._ask("GET", "/admin/v1/pools", b"")
        try:
            return msgspec.json.decode(body, type=_Pools).pools
        except msgspec.DecodeError as error:
            raise AdminError(f"the admin port at {self.url} is none of a gateway: {error}") from None

    async def pool(self, name: str) -> DrilledPool:
        """Raises UsageError for a name that no pool has, and AdminError."""
        pools = await self.pools()
        for pool in pools:
            if pool.name == name:
                return pool
        raise UsageError(f"{name!r} is none of the pools {', '.join(pool.name for pool in pools)}")

    async def set_limit(self, pool: str, limit: int | None) -> None:
        """None: that of the configuration. Raises AdminError."""
        await self._ask("PUT", limit_path(pool), msgspec.json.encode({"limit": limit}))

    async def _ask(self, method: str, path: str, body: bytes) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {urlsplit(self.url).netloc}\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        answer = _Answer()
        ticket = self._origin.send(head.encode("ascii") + body, answer)
        try:
            status, content = await asyncio.wait_for(answer.whole, ANSWER_S)
        except TimeoutError:
            ticket.cancel()
            raise AdminError(f"the admin port at {self.url} did not answer within {ANSWER_S:g} s") from None
        if status == 401:
            raise AdminError("the admin port does not take this token (--admin-token-file)")
        if not 200 <= status < 300:
            raise AdminError(f"{method} {path}: {status} {content[:200].decode(errors='replace')}")
        return content


def limit_path(pool: str) -> str:
    """Of the operation that overrides a pool's limit."""
    return f"/admin/v1/pools/{quote(pool, safe='@')}/limit"


class _Answer:
    """A receiver that keeps a whole small answer."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._pieces: list[bytes] = []

    def response_head(self, status: int, headers: Headers) -> None:
        self._status = status

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        self._pieces += pieces

    def response_end(self) -> None:
        if not self.whole.done():
            self.whole.set_result((self._status, b"".join(self._pieces)))

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        if not self.whole.done():
            self.whole.set_exception(AdminError(f"the admin port does not answer: {detail}"))
