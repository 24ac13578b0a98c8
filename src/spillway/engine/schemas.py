"""Schemas are compiled on a thread of their own before a request with one may join the batch.

One at a time; the client waits at most `COMPILE_LIMIT_S` for its own and `QUEUE_LIMIT_S` for those before it. What was compiled
is remembered, up to MAX_KNOWN texts.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from spillway.core.errors import BadRequestError, SpillwayError

_log = logging.getLogger(__name__)

COMPILE_LIMIT_S = 0.2
QUEUE_LIMIT_S = 2.0
MAX_QUEUED = 32
MAX_KNOWN = 128

_Made = TypeVar("_Made")
Answer = Callable[[SpillwayError | None], None]
"""Called once on the event loop: None when the schema may be used."""


class SchemaBusyError(SpillwayError):
    """Too many schemas wait to be compiled."""


class Compiler(Protocol):
    def compiles(self, schema: str) -> bool: ...


class _Job:
    __slots__ = ("answer", "deadline", "schema")

    def __init__(self, schema: str, answer: Answer) -> None:
        self.schema = schema
        self.answer: Answer | None = answer
        self.deadline: asyncio.TimerHandle | None = None

    def settle(self, error: SpillwayError | None) -> None:
        """Only the first call counts: the deadline may come before the compiler."""
        answer, self.answer = self.answer, None
        if self.deadline is not None:
            self.deadline.cancel()
        if answer is not None:
            answer(error)


class SchemaQueue:
    """Called on the event loop only. Schemas that come before the compiler is made wait for it."""

    def __init__(
        self,
        make_compiler: Callable[[], Compiler],
        loop: asyncio.AbstractEventLoop,
        *,
        compile_limit_s: float = COMPILE_LIMIT_S,
    ) -> None:
        self._compiler: Compiler | None = None
        self._loop = loop
        self._compile_limit_s = compile_limit_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="schemas")
        self._queued: deque[_Job] = deque()
        self._compiling: _Job | None = None
        self._known: OrderedDict[str, None] = OrderedDict()
        self._thread.submit(make_compiler).add_done_callback(lambda made: self._hand_over(self._made, made))

    def check(self, schema: str, answer: Answer) -> None:
        """Answers at once for a known schema; else once it is compiled, refused, or late."""
        if schema in self._known:
            self._known.move_to_end(schema)
            answer(None)
        elif len(self._queued) >= MAX_QUEUED:
            answer(_busy())
        else:
            job = _Job(schema, answer)
            job.deadline = self._loop.call_later(QUEUE_LIMIT_S, job.settle, _busy())
            self._queued.append(job)
            self._next()

    def close(self) -> None:
        """Does not wait for a compilation that goes on."""
        for job in self._queued:
            job.settle(_busy())
        self._queued.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        while self._compiler is not None and self._compiling is None and self._queued:
            job = self._queued.popleft()
            if job.answer is None:
                continue
            if job.deadline is not None:
                job.deadline.cancel()
            job.deadline = self._loop.call_later(
                self._compile_limit_s, job.settle, _refused("compiling it takes too long")
            )
            self._compiling = job
            future = self._thread.submit(self._compiler.compiles, job.schema)
            future.add_done_callback(lambda done: self._hand_over(self._compiled, done))

    def _hand_over(self, callback: "Callable[[Future[_Made]], None]", future: "Future[_Made]") -> None:
        """On the compiling thread. The loop may be closed already; then nobody waits."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, future)

    def _made(self, future: "Future[Compiler]") -> None:
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            _log.error("JSON schemas cannot be compiled: %s", type(error).__name__)  # those who wait are told in time
            return
        self._compiler = future.result()
        self._next()

    def _compiled(self, future: "Future[bool]") -> None:
        job, self._compiling = self._compiling, None
        if job is None or future.cancelled():
            return
        if future.exception() is not None or not future.result():
            job.settle(_refused("the compiler does not take it"))
        elif job.answer is not None:
            self._remember(job.schema)
            job.settle(None)
        self._next()

    def _remember(self, schema: str) -> None:
        self._known[schema] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def _refused(reason: str) -> BadRequestError:
    return BadRequestError(f"The JSON schema cannot be used: {reason}.", param="response_format", code="invalid_schema")


def _busy() -> SchemaBusyError:
    return SchemaBusyError("Too many JSON schemas wait to be compiled.")
