"""Time as an argument. `app` makes the system clock; tests and the simulator make their own."""

from collections.abc import Callable
from typing import Protocol

Seconds = float


class Clock(Protocol):
    def monotonic(self) -> Seconds:
        """Seconds since an arbitrary moment; never goes back. For durations, deadlines and the brain's `now`."""
        ...

    def wall(self) -> Seconds:
        """Seconds since the Unix epoch, UTC. For timestamps that leave the process."""
        ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that keeps time. A running asyncio loop is one; so is a test's."""

    def time(self) -> Seconds: ...

    def call_at(self, when: Seconds, callback: Callable[[], object], /) -> Timer: ...
