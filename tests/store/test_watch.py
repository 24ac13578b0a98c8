"""Whatever changes in the store is said once, and nothing is said while the store cannot be read."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine

import msgspec
import pytest
from tests.store.shelf import Shelf, minted

from spillway.core.errors import StoreError
from spillway.core.ids import OrganizationId, TenantId
from spillway.store.keyring import Forget
from spillway.store.rows import OrganizationRow, TenantRow
from spillway.store.watch import CONFIRM_S, EVERYTHING, MOST_CHANGES, TRIM_S, ChangeWatch
from spillway.testing.virtual_loop import run_virtual

EVERY_S = 0.2
SOON_S = EVERY_S * 1.1


class Desk:
    def __init__(self, log: logging.Logger) -> None:
        self.shelf = Shelf()
        self.said: list[Forget] = []
        self.watch = ChangeWatch(self.shelf, self.said.append, log=log, every_s=EVERY_S)

    @property
    def news(self) -> list[Forget]:
        """What names something, since the last look."""
        news = [forget for forget in self.said if forget.names_any()]
        self.said.clear()
        return news


def played(log: logging.Logger, scenario: Callable[[Desk], Coroutine[None, None, None]]) -> None:
    """On a watch that runs, in virtual time."""

    async def run(_: object) -> None:
        desk = Desk(log)
        await desk.watch.start()
        task = asyncio.get_running_loop().create_task(desk.watch.run())
        await scenario(desk)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run_virtual(run)


def test_each_change_is_said_within_a_period(log: logging.Logger) -> None:
    (one, _), (two, _) = minted(1), minted(2)

    async def scenario(desk: Desk) -> None:
        await asyncio.sleep(1.0)
        assert desk.news == []
        desk.shelf.put(one)
        desk.shelf.put(two)
        await asyncio.sleep(SOON_S)
        assert desk.news == [Forget(digests=frozenset({one.digest, two.digest}))]
        desk.shelf.put(msgspec.structs.replace(one, revoked_at_s=5.0))
        desk.shelf.put_tenant(TenantRow(TenantId("t"), None, "", None, None, None, suspended=True, created_at_s=1.0))
        acme = OrganizationId("acme")
        desk.shelf.put_organization(OrganizationRow(acme, "", None, None, suspended=False, created_at_s=1.0))
        await asyncio.sleep(SOON_S)
        expected = Forget(frozenset({one.digest}), frozenset({TenantId("t")}), frozenset({acme}))
        assert desk.news == [expected]
        await asyncio.sleep(1.0)
        assert desk.news == []

    played(log, scenario)


def test_all_is_confirmed_about_once_a_second_for_one_read_each(log: logging.Logger) -> None:
    async def scenario(desk: Desk) -> None:
        await asyncio.sleep(60.0)
        assert 60.0 / (CONFIRM_S + EVERY_S) - 1 <= len(desk.said) <= 60.0 / CONFIRM_S + 1
        assert not any(forget.names_any() for forget in desk.said)
        assert desk.shelf.polls <= 60.0 / EVERY_S + 2

    played(log, scenario)


def test_a_gap_or_another_file_or_too_much_at_once_is_everything(log: logging.Logger) -> None:
    row, _ = minted(1)

    async def scenario(desk: Desk) -> None:
        desk.shelf.put(row)
        desk.shelf.put(row)
        desk.shelf.forgotten = 1
        await asyncio.sleep(SOON_S)
        assert desk.news == [EVERYTHING]
        desk.shelf.opened = 2
        await asyncio.sleep(SOON_S)
        assert desk.news == [EVERYTHING]
        desk.shelf.changes.clear()  # an older copy of the database was put back
        desk.shelf.forgotten = 0
        await asyncio.sleep(SOON_S)
        assert desk.news == [EVERYTHING]
        for _ in range(MOST_CHANGES):
            desk.shelf.put(row)
        await asyncio.sleep(SOON_S)
        assert desk.news == [Forget(digests=frozenset({row.digest}))]
        for _ in range(MOST_CHANGES + 1):
            desk.shelf.put(row)
        await asyncio.sleep(SOON_S)
        assert desk.news == [EVERYTHING]

    played(log, scenario)


def test_while_the_store_is_away_nothing_is_said_and_the_log_says_so_once(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    row, _ = minted(1)

    async def scenario(desk: Desk) -> None:
        desk.shelf.broken = True
        desk.shelf.put(row)
        await asyncio.sleep(5.0)
        assert desk.said == []
        with pytest.raises(StoreError):
            await desk.watch.refresh()
        desk.shelf.broken = False
        await asyncio.sleep(SOON_S)
        assert desk.news == [Forget(digests=frozenset({row.digest}))]

    played(log, scenario)
    assert caplog.text.count("stays in use") == 1


def test_who_changed_something_has_it_said_at_once(log: logging.Logger) -> None:
    row, _ = minted(1)

    async def scenario(desk: Desk) -> None:
        desk.shelf.put(row)
        await asyncio.gather(desk.watch.refresh(), desk.watch.refresh())
        assert desk.news == [Forget(digests=frozenset({row.digest}))]

    played(log, scenario)


def test_old_changes_are_deleted_now_and_then(log: logging.Logger) -> None:
    row, _ = minted(1)

    async def scenario(desk: Desk) -> None:
        for _ in range(10_005):
            desk.shelf.put(row)
        await asyncio.sleep(TRIM_S + 1.0)
        assert desk.shelf.forgotten == 5

    played(log, scenario)
