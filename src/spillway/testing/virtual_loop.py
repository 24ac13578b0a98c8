"""An asyncio event loop in virtual time: hours of timers in milliseconds, exact and the same on every machine."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from spillway.core.clock import Seconds

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for the next timer it moves time to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s: Seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self.now_s += timeout
        return super().select(0 if timeout is not None else None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time stands still except between timers. It is a `core.clock.Clock` too. Not for real sockets: while one is
    waited for, time runs away."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> Seconds:
        return self._jumping.now_s

    def monotonic(self) -> Seconds:
        return self._jumping.now_s

    def wall(self) -> Seconds:
        return self._jumping.now_s


def run_virtual(work: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Runs `work(loop)` to its end on a loop of its own."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work(loop))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
