"""Reports go to the ledger and answers come back, also where it fails; budgets are seeded as soon as records can be read."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from spillway.app.ledger_post import LedgerPost
from spillway.core.errors import StoreError
from spillway.quota.book import Book
from spillway.quota.ledger import Ask, Failed, Kind, LedgerError, LedgerTimes, MemberId, Reply, Report, Seed
from spillway.testing.waiting import eventually

TIMES = LedgerTimes(settle_s=0.05)
DAY = Ask("t/x/usd_per_day", Kind.BUDGET, 100, "2026-11-26", need=10)
A, B = MemberId("h/w0-1/1"), MemberId("h/w1-1/1")


class PlayedLedger:
    """A book, which may be away."""

    def __init__(self) -> None:
        self.book = Book(TIMES, 0.0)
        self.away: LedgerError | Exception | None = None
        self.heard: list[Report] = []
        self.seeds: list[Seed] = []

    async def report(self, report: Report) -> Reply:
        if self.away is not None:
            raise self.away
        self.heard.append(report)
        return self.book.report(report, 0.0)

    async def seed(self, seeds: Sequence[Seed]) -> None:
        self.seeds += seeds
        for seed in seeds:
            self.book.seed(seed, 0.0)

    async def close(self) -> None: ...


class PlayedRecords:
    def __init__(self) -> None:
        self.away = 0  # so many questions fail
        self.asked = 0

    async def used(self, budgets: Sequence[tuple[str, str]]) -> list[int]:
        self.asked += 1
        if self.asked <= self.away:
            raise StoreError("gone")
        return [40 for _ in budgets]


class Office:
    def __init__(self, post: LedgerPost, ledger: PlayedLedger, records: PlayedRecords) -> None:
        self.post, self.ledger, self.records = post, ledger, records
        self.said: list[Reply | Failed] = []

    async def send(self, worker: str, report: Report) -> Reply | Failed:
        count = len(self.said)
        self.post.take(worker, report, self.said.append)
        await eventually(lambda: len(self.said) > count, what="an answer")
        return self.said[-1]


@asynccontextmanager
async def office() -> AsyncGenerator[Office]:
    ledger, records = PlayedLedger(), PlayedRecords()
    async with asyncio.TaskGroup() as tasks:
        post = LedgerPost(ledger, records, TIMES, tasks, logging.getLogger("test"))
        running = tasks.create_task(post.run())
        yield Office(post, ledger, records)
        running.cancel()


def test_a_budget_is_seeded_once_somebody_asks_of_it_and_its_records_can_be_read() -> None:
    async def scenario() -> None:
        async with office() as at:
            at.records.away = 2
            answer = await at.send("w0-1", Report(A, 1, 0.0, (DAY,)))
            assert isinstance(answer, Reply)
            assert answer.grants[0].unseeded
            await eventually(lambda: bool(at.ledger.seeds), what="a seed")
            assert at.records.asked == 3
            answer = await at.send("w0-1", Report(A, 2, 1.0, (DAY,)))
            assert isinstance(answer, Reply)
            assert (answer.grants[0].granted, answer.grants[0].level) == (10, 50)

    asyncio.run(scenario())


def test_what_a_dead_worker_held_is_put_right_by_its_records() -> None:
    async def scenario() -> None:
        async with office() as at:
            await at.ledger.seed([Seed(DAY.key, DAY.period, 0)])
            await at.send("w0-1", Report(A, 1, 0.0, (DAY,)))
            at.post.left("w0-1")
            await eventually(lambda: len(at.ledger.heard) == 2, what="a farewell")
            assert at.ledger.heard[-1] == Report(A, 2, 0.0, leaving=True)
            answer = await at.send("w1-1", Report(B, 1, 0.0, (DAY,)))
            assert isinstance(answer, Reply)
            assert answer.grants[0].mark == 1
            await eventually(lambda: any(seed.mark == 1 for seed in at.ledger.seeds), what="a seed with the mark")
            at.post.left("w0-1")  # it is known to have left

    asyncio.run(scenario())


def test_a_ledger_that_fails_is_told_as_such_and_counted() -> None:
    async def scenario() -> None:
        async with office() as at:
            for error, expected in (
                (LedgerError("slow"), Failed(1, gone=False)),
                (LedgerError("refused", gone=True, may_count=False), Failed(2, gone=True, may_count=False)),
                (ValueError("a mistake"), Failed(3, gone=False)),
            ):
                at.ledger.away = error
                assert await at.send("w0-1", Report(A, expected.turn, 0.0)) == expected
            assert (at.post.up, at.post.failures) == (False, 2)
            at.ledger.away = None
            assert isinstance(await at.send("w0-1", Report(A, 4, 0.0)), Reply)
            assert at.post.up

    asyncio.run(scenario())
