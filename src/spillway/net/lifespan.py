"""The lifespan of an ASGI application: it starts before the first request and ends after the last."""

import asyncio
import logging
from typing import Any

from spillway.core.errors import SpillwayError
from spillway.net.asgi import Application, Message

log = logging.getLogger(__name__)


class LifespanError(SpillwayError):
    """The application did not start."""


class Lifespan:
    """`startup`, then `shutdown`. An application that knows no lifespan (it raises at once) is left alone.

    `state`: what the application keeps for its requests; for `AsgiRoute.state`.
    """

    def __init__(self, app: Application, *, deadline_s: float = 30.0) -> None:
        self._app = app
        self._deadline_s = deadline_s
        self._to_app: asyncio.Queue[Message] = asyncio.Queue(maxsize=2)
        self._from_app: asyncio.Queue[Message] = asyncio.Queue(maxsize=4)
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}

    async def startup(self) -> None:
        """Raises LifespanError if the application fails to start or takes longer than the deadline."""
        scope: Message = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        answer = await self._ask("lifespan.startup")
        if answer == "lifespan.startup.complete":
            return
        await self._end()
        if answer != "unsupported":
            raise LifespanError(f"the application did not start: {answer}")

    async def shutdown(self) -> None:
        if self._task is None:
            return
        answer = await self._ask("lifespan.shutdown")
        if answer != "lifespan.shutdown.complete":
            log.warning("the application did not end well: %s", answer)
        await self._end()

    async def _run(self, scope: Message) -> None:
        try:
            await self._app(scope, self._to_app.get, self._from_app.put)
        except Exception:
            log.debug("the application has no lifespan, or its lifespan failed", exc_info=True)
        finally:
            if not self._from_app.full():
                self._from_app.put_nowait({"type": "unsupported"})

    async def _ask(self, question: str) -> str:
        """What the application answers: a kind of message, with its text where there is one."""
        self._to_app.put_nowait({"type": question})
        try:
            async with asyncio.timeout(self._deadline_s):
                answer = await self._from_app.get()
        except TimeoutError:
            return f"no answer within {self._deadline_s:g} s"
        text = answer.get("message")
        return f"{answer['type']}: {text}" if text else str(answer["type"])

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
