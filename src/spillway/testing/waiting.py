"""Waiting on a condition, with a deadline. Tests never sleep for a guessed time."""

import asyncio
from collections.abc import Callable

from spillway.core.clock import Seconds

_LOOK_EVERY_S = 0.005


async def eventually(condition: Callable[[], object], *, deadline_s: Seconds = 5.0, what: str = "condition") -> None:
    """Returns as soon as `condition()` is true. Raises TimeoutError naming `what` after `deadline_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while not condition():
        if loop.time() >= deadline:
            raise TimeoutError(f"{what} did not come true within {deadline_s} s")
        await asyncio.sleep(_LOOK_EVERY_S)
