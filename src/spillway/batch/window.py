"""How many lines a worker has at the gateway at a time: additive increase with answers, multiplicative decrease with refusals."""

import asyncio
from collections import deque

from spillway.core.clock import Seconds

DECREASE = 0.7
PAUSE_S = 1.0  # one decrease for all refusals of this time: they say the same


class Window:
    """`async with window:` waits for a place, in order. Starts at `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._decreased_at: Seconds | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    async def __aenter__(self) -> None:
        if self.in_flight < self.limit and not self._waiting:
            self.in_flight += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was called in the moment it was cancelled
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def answered(self) -> None:
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)
        self._call_in()

    def refused(self, now: Seconds) -> None:
        if self._decreased_at is None or now - self._decreased_at >= PAUSE_S:
            self._decreased_at = now
            self._limit = max(1.0, self._limit * DECREASE)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._call_in()

    def _call_in(self) -> None:
        while self._waiting and self.in_flight < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self.in_flight += 1
                place.set_result(None)
