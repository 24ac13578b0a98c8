"""Time as an argument. `app` makes the system clock; tests and the simulator make their own."""

from typing import Protocol

Seconds = float


class Clock(Protocol):
    def monotonic(self) -> Seconds:
        """Seconds since an arbitrary moment; never goes back. For durations, deadlines and the brain's `now`."""
        ...

    def wall(self) -> Seconds:
        """Seconds since the Unix epoch, UTC. For timestamps that leave the process."""
        ...
