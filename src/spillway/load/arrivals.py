"""Open and closed loops: both answer when the next request is due."""

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import Protocol

from spillway.core.clock import Seconds

MAX_REQUESTS = 2_000_000
"""In one run: all records are kept until its end (about 300 bytes each). What would come after them is not sent."""


class Arrivals(Protocol):
    """Seconds count from the start of the run."""

    def due_s(self, now_s: Seconds) -> Seconds | None:
        """When the next request is due, be it past or to come; None: there are no more. Asking does not take it."""
        ...

    def take(self) -> None:
        """The next one was sent, or will never be."""
        ...


class OpenLoop:
    """The schedule decides: those of `schedule` that come before `duration_s`, at most `max_requests` of them."""

    __slots__ = ("_next", "_rest")

    def __init__(
        self, schedule: Iterator[Seconds], duration_s: Seconds | None = None, max_requests: int | None = None
    ) -> None:
        within = schedule if duration_s is None else takewhile(lambda at_s: at_s < duration_s, schedule)
        self._rest = islice(within, min(max_requests or MAX_REQUESTS, MAX_REQUESTS))
        self._next = next(self._rest, None)

    def due_s(self, now_s: Seconds) -> Seconds | None:
        return self._next

    def take(self) -> None:
        self._next = next(self._rest, None)


class ClosedLoop:
    """A request is due whenever there is room, until `duration_s` is over or `max_requests` were sent."""

    __slots__ = ("_duration_s", "_left")

    def __init__(self, duration_s: Seconds | None = None, max_requests: int | None = None) -> None:
        self._duration_s = duration_s
        self._left = min(max_requests or MAX_REQUESTS, MAX_REQUESTS)

    def due_s(self, now_s: Seconds) -> Seconds | None:
        over = self._left == 0 or (self._duration_s is not None and now_s >= self._duration_s)
        return None if over else now_s

    def take(self) -> None:
        self._left -= 1
