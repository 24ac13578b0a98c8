"""Carries reports of workers to the ledger and its answers back; and tells the ledger what usage records say of budgets.

A worker has one report under way at a time, so as many run here as there are workers. Budgets that the ledger knows nothing of are
seeded at once, all that are asked for meanwhile together; those of which a member ended without settling, `settle_s` later,
when the records of what it did are in the store.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.quota.ledger import Failed, Grant, Ledger, LedgerError, LedgerTimes, MemberId, Reply, Report, Seed

AGAIN_S = 0.25  # after the store could not be asked
MOST_AT_ONCE = 500  # budgets of one question to the store
MOST_WANTED = 100_000  # budgets that wait to be seeded; who asks of more must ask again

Budget = tuple[str, str]
"""A meter's key and a period."""


class Records(Protocol):
    async def used(self, budgets: Sequence[Budget]) -> list[int]:
        """What usage records say was used of each, in its unit. StoreError: ask again later."""
        ...


class LedgerPost:
    """`state` is for metrics; `run` is endless."""

    def __init__(
        self, ledger: Ledger, records: Records, times: LedgerTimes, tasks: asyncio.TaskGroup, log: logging.Logger
    ) -> None:
        self.reports = self.failures = 0
        self.up = True
        self._ledger = ledger
        self._records = records
        self._times = times
        self._tasks = tasks
        self._log = log
        self._latest: dict[str, Report] = {}  # of each worker that has not left
        self._wanted: dict[Budget, tuple[int, Seconds]] = {}  # mark, and from when on
        self._wake = asyncio.Event()

    def take(self, worker: str, report: Report, reply: Callable[[Reply | Failed], None]) -> None:
        if report.leaving:
            self._latest.pop(worker, None)
        else:
            self._latest[worker] = report
        self._tasks.create_task(self._exchange(report, reply))

    def left(self, worker: str) -> None:
        """The worker ended. Where it did not say so itself, it is said for it: its leases count as used."""
        last = self._latest.pop(worker, None)
        if last is not None:
            farewell = Report(MemberId(last.member), last.turn + 1, last.share, leaving=True)
            self._tasks.create_task(self._exchange(farewell, _nobody))

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._wanted:
                await self._seed_next()

    async def _exchange(self, report: Report, reply: Callable[[Reply | Failed], None]) -> None:
        self.reports += 1
        try:
            answer = await self._ledger.report(report)
        except LedgerError as error:
            self.failures += 1
            self._now_up(up=False, why=str(error))
            reply(Failed(report.turn, error.gone, error.may_count))
            return
        except Exception:  # noqa: BLE001  of one report: its worker goes on, on its floors
            self._log.exception("a report to the ledger failed")
            reply(Failed(report.turn, gone=False))
            return
        self._now_up(up=True)
        for grant in answer.grants:
            if grant.unseeded or grant.mark:
                self._want(grant)
        reply(answer)

    def _now_up(self, *, up: bool, why: str = "") -> None:
        if up == self.up:
            return
        self.up = up
        if up:
            self._log.warning("the ledger of limits answers again")
        else:
            self._log.error("the ledger of limits does not answer, leases and floors hold meanwhile: %s", why)

    def _want(self, grant: Grant) -> None:
        budget = (grant.key, grant.period)
        known = self._wanted.get(budget)
        if (known is not None and known[0] >= grant.mark) or len(self._wanted) >= MOST_WANTED:
            return
        now = asyncio.get_running_loop().time()
        self._wanted[budget] = (grant.mark, now if grant.unseeded else now + self._times.settle_s)
        self._wake.set()

    async def _seed_next(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [budget for budget, (_, at) in self._wanted.items() if at <= now][:MOST_AT_ONCE]
        if not due:
            soonest = min(at for _, at in self._wanted.values())
            await self._woken_within(soonest - now)
            return
        marks = {budget: self._wanted[budget][0] for budget in due}
        try:
            used = await self._records.used(due)
            seeds = [
                Seed(key, period, amount, marks[key, period]) for (key, period), amount in zip(due, used, strict=True)
            ]
            await self._ledger.seed(seeds)
        except (StoreError, LedgerError) as error:
            self._log.warning("it is not known what was used of some budgets: %s", error, extra={"budgets": len(due)})
            await asyncio.sleep(AGAIN_S)
            return
        for budget, mark in marks.items():
            if self._wanted[budget][0] == mark:
                del self._wanted[budget]

    async def _woken_within(self, seconds: Seconds) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()


def _nobody(answer: Reply | Failed) -> None:
    del answer
