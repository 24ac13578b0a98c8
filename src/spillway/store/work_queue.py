"""Work for threads, of which the event loop waits for the answer: bounded in number, and in time."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.store.database import T


class WorkQueue:
    """At most `most` pieces wait; more are refused with StoreError. One that has no answer after `deadline_s` is StoreError too; it may
    still take effect. Errors of the kinds in `translated` become StoreErrors."""

    def __init__(
        self, threads: int, *, deadline_s: Seconds, most: int, translated: tuple[type[Exception], ...]
    ) -> None:
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="spillway-store")
        self._deadline_s = deadline_s
        self._most = most
        self._translated = translated
        self._waiting = 0

    async def do(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._most:
            raise StoreError("the database is busy: too much is waiting for it")
        try:
            future = self._executor.submit(work)
        except RuntimeError as error:  # after shutdown
            raise StoreError("the database is closed") from error
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._count_down(loop))
        return await self._answer(future)

    async def close(self, last: Callable[[], None]) -> None:
        """What still waits is done first, `last` at the end."""
        with contextlib.suppress(StoreError, RuntimeError):  # too slow, or closed before
            await self._answer(self._executor.submit(last))
        self._executor.shutdown(wait=False)

    async def _answer(self, future: "Future[T]") -> T:
        # shielded: whoever leaves does not take away work that others may rely on
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError as error:
            raise StoreError(f"the database does not answer within {self._deadline_s:g} s") from error
        except self._translated as error:
            raise StoreError(f"the database cannot do it: {error}") from error

    def _count_down(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        self._waiting -= 1
