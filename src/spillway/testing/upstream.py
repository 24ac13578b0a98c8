"""The scriptable upstream: a fake OpenAI-compatible engine that a test starts inside its own event loop.

    async with UpstreamDouble(UpstreamSpec(inter_token_latency_s=0.01)) as upstream:
        upstream.misbehave("cut:3", "503@5-65")
        ...
        await upstream.quiet()
        assert not upstream.log.repeated()

`spillway upstream` is the same thing as a process. A single request chooses its fault by the header `x-upstream-fault: KIND…`
or, where a gateway stands between, by its field `"user": "fault:KIND…"` (texts as in `faults`).
"""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from spillway.core.clock import Seconds
from spillway.testing.fake_engine import FakeEngine
from spillway.testing.faults import parse_rule
from spillway.testing.raw_http import RawServer
from spillway.testing.rng import SeededRng
from spillway.testing.script import Script
from spillway.testing.seen import Ending, UpstreamLog
from spillway.testing.serving import Serving
from spillway.testing.spec import UpstreamSpec
from spillway.testing.waiting import eventually


class UpstreamDouble:
    def __init__(self, spec: UpstreamSpec | None = None, *, log_path: Path | None = None) -> None:
        self._spec = spec or UpstreamSpec()
        self.script = Script(SeededRng(self._spec.seed + 1))
        self.log = UpstreamLog(log_path, kept_requests=self._spec.kept_requests)
        self._server: RawServer | None = None
        self._engine: FakeEngine | None = None
        self._host = "127.0.0.1"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        """Port 0 takes a free one. Raises OSError where it cannot listen."""
        self._host = host
        self._engine = FakeEngine(self._spec, self.script, self.log, asyncio.get_running_loop())
        self._server = RawServer(Serving(self._engine).serve)
        await self._server.listen(host, port)
        return self

    async def stop(self) -> None:
        """Drops all connections; requests that were open end as LEFT."""
        await self._listener.close()
        self.engine.sequences.close()
        for seen in self.log.open:
            self.engine.end(seen, Ending.STOPPED)
        self.log.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def engine(self) -> FakeEngine:
        if self._engine is None:
            raise RuntimeError("the upstream was not started")
        return self._engine

    @property
    def _listener(self) -> RawServer:
        if self._server is None:
            raise RuntimeError("the upstream was not started")
        return self._server

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    @property
    def connections(self) -> int:
        return self._listener.connections

    def misbehave(self, *rules: str) -> None:
        """Replace the script; its time line starts now. Raises ConfigError."""
        self.script.replace([parse_rule(rule) for rule in rules], self.engine.now())

    def behave(self) -> None:
        self.misbehave()

    def refuse_connections(self) -> None:
        """As a dead host's kernel would; connections that stand go on. `accept_connections` takes the same port again."""
        self._listener.stop_listening()

    async def accept_connections(self) -> None:
        await self._listener.listen(self._host, 0)

    async def quiet(self, *, deadline_s: Seconds = 5.0) -> None:
        """Until no request is open: what is still open then is generated for nobody. Raises TimeoutError."""
        await eventually(lambda: not self.log.open, deadline_s=deadline_s, what="an upstream without open requests")
