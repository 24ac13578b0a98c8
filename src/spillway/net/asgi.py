"""A bridge from exchanges to an ASGI 3 application, for the paths that are not hot.

One task per request, owned by the route and bounded in number; over the bound the answer is 503. Bodies stream both ways with
backpressure: at most `BODY_BUFFER_BYTES` and one read wait for the application, and its `send` waits while the client is slow.
An answer that is given in one piece leaves in one write with its length; a longer one goes out in chunks.
The application learns that its client left as `http.disconnect`; what it sends then goes nowhere.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from spillway.core.errors import SpillwayError
from spillway.net.ports import Exchange, Rejection, Route

BODY_BUFFER_BYTES = 64 * 1024
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection"))  # written by the exchange

Message = MutableMapping[str, Any]  # the form that ASGI prescribes
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)


class AsgiError(SpillwayError):
    """The application broke the ASGI protocol."""


class AsgiRoute(Route):
    """Serves every request that is routed to it with `app`.

    `refuse`: status, headers and body for 500 and 503, as `Service.rejection`. `state`: what the lifespan left for requests.
    """

    __slots__ = ("_app", "_max_running", "_refuse", "_running", "_scheme", "state")

    def __init__(
        self,
        app: Application,
        *,
        refuse: Callable[[Rejection], tuple[int, bytes, bytes]],
        max_body_bytes: int,
        max_running: int = 256,
        scheme: str = "http",
    ) -> None:
        super().__init__(self._run, max_body_bytes=max_body_bytes, streamed=True)
        self._app = app
        self._refuse = refuse
        self._max_running = max_running
        self._scheme = scheme
        self._running: set[asyncio.Task[None]] = set()
        self.state: dict[str, Any] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    async def shutdown(self, deadline_s: float) -> None:
        """Waits for the requests in progress; those that are not done after `deadline_s` seconds are cancelled."""
        if self._running:
            await asyncio.wait(self._running, timeout=deadline_s)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _run(self, exchange: Exchange) -> None:
        if len(self._running) >= self._max_running:
            exchange.respond(*self._refuse(Rejection.BUSY))
            return
        call = AsgiCall(exchange)
        task = asyncio.get_running_loop().create_task(self._serve(exchange, call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, exchange: Exchange, call: "AsgiCall") -> None:
        try:
            await self._app(self._scope(exchange), call.receive, call.send)
            if not call.ended:
                raise AsgiError("the application returned without completing its answer")
        except Exception:
            if call.left:
                log.debug("the application failed after its client left", exc_info=True)
                return
            log.exception("the application failed on %s", exchange.path.decode("latin-1"))
            call.fail(self._refuse(Rejection.INTERNAL))
        except asyncio.CancelledError:
            exchange.abort()
            raise

    def _scope(self, exchange: Exchange) -> Message:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.0" if exchange.http10 else "1.1",
            "method": exchange.method.decode("ascii"),
            "scheme": self._scheme,
            "path": unquote(exchange.path.decode("ascii")),
            "raw_path": exchange.path,
            "query_string": exchange.query,
            "root_path": "",
            "headers": exchange.headers,
            "client": (exchange.peer, 0) if exchange.peer else None,
            "server": None,
            "state": self.state.copy(),
        }


class AsgiCall:
    """One exchange as `receive` and `send`. `left`: the client is gone. `ended`: the answer is complete."""

    __slots__ = ("_begun", "_body", "_body_bytes", "_body_ended", "_body_told", "_exchange", "_head", "_stirred", "_writable", "ended", "left")  # fmt: skip

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_ended = False
        self._body_told = False  # to the application, to its end
        self._stirred = asyncio.Event()  # something for `receive`
        self._writable = asyncio.Event()
        self._writable.set()
        self._head: tuple[int, bytes] | None = None
        self._begun = False
        self.left = False
        self.ended = False
        exchange.sink = self
        exchange.listener = self

    # told by the exchange

    def body_piece(self, data: bytes) -> None:
        self._body.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > BODY_BUFFER_BYTES:
            self._exchange.pause_body()
        self._stirred.set()

    def body_end(self) -> None:
        self._body_ended = True
        self._stirred.set()

    def client_left(self) -> None:
        self.left = True
        self._stirred.set()
        self._writable.set()

    def client_slow(self) -> None:
        self._writable.clear()

    def client_ready(self) -> None:
        self._writable.set()

    # called by the application

    async def receive(self) -> Message:
        while True:
            if self.left or self.ended:
                return {"type": "http.disconnect"}
            if self._body or (self._body_ended and not self._body_told):
                return self._take_body()
            self._stirred.clear()
            await self._stirred.wait()

    def _take_body(self) -> Message:
        data = b"".join(self._body)
        self._body.clear()
        if self._body_bytes > BODY_BUFFER_BYTES:
            self._exchange.resume_body()
        self._body_bytes -= len(data)
        self._body_told = self._body_ended
        return {"type": "http.request", "body": data, "more_body": not self._body_ended}

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.left:
            return
        if kind == "http.response.start":
            if self._head is not None:
                raise AsgiError("the answer was started twice")
            self._head = int(message["status"]), _header_lines(message.get("headers", ()))
        elif kind == "http.response.body":
            if self._head is None or self.ended:
                raise AsgiError("a body was sent before its start or after its end")
            self._send_body(*self._head, bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))
            await self._writable.wait()
        else:
            raise AsgiError(f"{kind} is not a message of an HTTP answer")

    def _send_body(self, status: int, headers: bytes, body: bytes, *, more: bool) -> None:
        exchange = self._exchange
        self.ended = not more
        if not self._begun and not more:
            exchange.respond(status, headers, body)
        else:
            if not self._begun:
                self._begun = True
                exchange.start(status, headers)
            exchange.write([body])
            if not more:
                exchange.finish()
        if not more:
            self._writable.set()
            self._stirred.set()

    def fail(self, answer: tuple[int, bytes, bytes]) -> None:
        """The application broke: an error if nothing was sent yet, else a visible cut."""
        if self._begun:
            self._exchange.abort()
        elif not self.ended:
            self._exchange.respond(*answer)


def _header_lines(headers: Any) -> bytes:
    """Header lines without framing. Raises AsgiError where a header would end its line."""
    lines = [
        b"%b: %b\r\n" % (bytes(name), bytes(value)) for name, value in headers if bytes(name).lower() not in FRAMING
    ]
    joined = b"".join(lines)
    if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines) or b"\0" in joined:
        raise AsgiError("a header of the answer holds a line break")
    return joined
