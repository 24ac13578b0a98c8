"""The `Ledger` of one host: a book in the parent's memory. It always answers."""

from collections.abc import Sequence

from spillway.core.clock import Clock
from spillway.quota.book import Book
from spillway.quota.ledger import LedgerTimes, Reply, Report, Seed


class LocalLedger:
    def __init__(self, times: LedgerTimes, clock: Clock) -> None:
        self._clock = clock
        self._book = Book(times, clock.monotonic())

    async def report(self, report: Report) -> Reply:
        return self._book.report(report, self._clock.monotonic())

    async def seed(self, seeds: Sequence[Seed]) -> None:
        now = self._clock.monotonic()
        for seed in seeds:
            self._book.seed(seed, now)

    async def close(self) -> None:
        """There is nothing to close."""
