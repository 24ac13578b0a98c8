"""The client's side of a connection, byte by byte: what a polite client library would never send or show.

`Talk` parses answers with h11 and can read a stream as it comes. Every wait ends with the test's own deadline (`gateway.live`).
"""

import asyncio
import contextlib
import json
import ssl
from types import TracebackType
from typing import Any, Self

import h11

Json = dict[str, Any]


class Answer:
    """`body` is complete unless the connection ended first: then `cut`."""

    def __init__(self, response: h11.Response) -> None:
        self.status = response.status_code
        self.headers = {name.decode(): value.decode("latin-1") for name, value in response.headers}
        self.body = b""
        self.cut = False

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    @property
    def error(self) -> Json:
        """The error object, after a check that it has the four keys of the dialect and nothing else."""
        document = self.json
        assert document.keys() == {"error"}, document
        error: Json = document["error"]
        assert error.keys() == {"message", "type", "param", "code"}, error
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        assert "Traceback" not in error["message"]
        return error

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        return [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]

    @property
    def text(self) -> str:
        """What a chat stream said."""
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


class Talk:
    """`async with Talk(port) as talk`. `tls`: verified against `localhost`."""

    def __init__(
        self,
        port: int,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int = 1 << 20,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._limit = receive_buffer_bytes
        self._parser = h11.Connection(h11.CLIENT)
        self._answer: Answer | None = None

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            self._host,
            self._port,
            ssl=self._tls,
            server_hostname="localhost" if self._tls else None,
            limit=self._limit,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def leave(self) -> None:
        """As a process that dies: the connection ends at once."""
        self.writer.transport.abort()

    async def head(self, method: str = "POST") -> Answer:
        """The head of the next answer."""
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        self._parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        self._parser.send(h11.EndOfMessage())
        event = await self._event()
        assert isinstance(event, h11.Response), event
        self._answer = Answer(event)
        return self._answer

    async def more(self) -> bool:
        """Takes the next piece of the body. False when there is none: the answer is complete, or cut."""
        answer = self._answer
        assert answer is not None
        event = await self._event()
        if isinstance(event, h11.Data):
            answer.body += event.data
            return True
        answer.cut = event is None
        return False

    async def answer(self, method: str = "POST") -> Answer:
        """The next answer, complete."""
        answer = await self.head(method)
        while await self.more():
            pass
        return answer

    async def until(self, text: bytes) -> None:
        """Reads on until the body holds `text`."""
        answer = self._answer
        assert answer is not None
        while text not in answer.body:
            assert await self.more(), answer.body

    async def ended(self) -> bool:
        """Waits for the end of what the gateway sends; whether nothing more came before it."""
        try:
            return await self.reader.read(65536) == b""
        except ConnectionError:
            return True

    async def _event(self) -> h11.Response | h11.Data | h11.EndOfMessage | None:
        """None: the connection ended in the middle."""
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError:
                return None
            if event is h11.NEED_DATA:
                try:
                    self._parser.receive_data(await self.reader.read(65536))
                except ConnectionError:
                    return None
            elif isinstance(event, (h11.Response, h11.Data, h11.EndOfMessage)):
                return event
            else:
                assert isinstance(event, h11.InformationalResponse), event


def request(
    body: bytes | Json,
    *,
    key: str | None,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    headers: dict[str, str] | None = None,
    version: str = "1.1",
) -> bytes:
    """A request's bytes. `headers` replace what they name."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {"host": "localhost", "content-type": "application/json", "content-length": str(len(content))}
    if key is not None:
        lines["authorization"] = f"Bearer {key}"
    lines |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode("latin-1") + content
