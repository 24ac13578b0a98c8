"""Look-ups of all workers, many with one statement; and the whole way from a change in the store to what a worker finds."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.shelf import SEAL, Shelf, minted

from spillway.core.ids import OrganizationId, TenantId
from spillway.gateway.ports import Principal, Unknown
from spillway.quota.rules import Quota
from spillway.store.directory import BATCH, MAX_WAITING, READS, Directory
from spillway.store.keyring import Forget, Keys, LookedUp, LookUp
from spillway.store.rows import KeyRow, TenantRow
from spillway.store.terms import OrganizationTerms, TenantTerms, Terms
from spillway.store.watch import ChangeWatch
from spillway.testing.clock import ManualClock
from spillway.testing.virtual_loop import VirtualLoop, run_virtual

READ_S = 0.001
NOWHERE = logging.getLogger("tests.nowhere")
NOWHERE.disabled = True


class Counter:
    """The directory behind its counter; `heard` is what one worker was told."""

    def __init__(self, loop: VirtualLoop, log: logging.Logger = NOWHERE, terms: Terms | None = None) -> None:
        self.shelf = Shelf()
        self.shelf.slow_s = READ_S
        self.directory = Directory(self.shelf, terms or Terms(), clock=ManualClock(), log=log)
        self.heard: list[LookedUp] = []
        self.task = loop.create_task(self.directory.run())

    def ask(self, *digests: bytes) -> None:
        self.directory.ask(digests, self.heard.append)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def played(scenario: Callable[[Counter], Coroutine[None, None, None]], log: logging.Logger = NOWHERE) -> None:
    async def run(loop: VirtualLoop) -> None:
        counter = Counter(loop, log)
        await asyncio.sleep(0)
        await scenario(counter)
        await ended(counter.task)

    run_virtual(run)


def test_what_is_asked_while_a_statement_runs_goes_with_the_next() -> None:
    rows = [minted(number)[0] for number in range(5)]

    async def scenario(counter: Counter) -> None:
        for row in rows:
            counter.shelf.put(row)
        counter.ask(rows[0].digest, rows[1].digest, b"nobody's")
        await asyncio.sleep(READ_S / 2)
        counter.ask(rows[2].digest)
        await asyncio.sleep(READ_S / 4)
        counter.ask(rows[0].digest)  # is on its way
        counter.ask(rows[3].digest)
        counter.ask(rows[4].digest)
        counter.ask(rows[4].digest)
        await asyncio.sleep(READ_S * 3)
        assert counter.shelf.reads == [
            (rows[0].digest, rows[1].digest, b"nobody's"),
            (rows[2].digest,),
            (rows[3].digest, rows[4].digest),
        ]
        assert READS == 2
        found = [entry.digest for answer in counter.heard for entry in answer.entries]
        assert sorted(found) == sorted(row.digest for row in rows)
        assert [digest for answer in counter.heard for digest in answer.missing] == [b"nobody's"]

    played(scenario)


def test_a_statement_has_bounds_and_so_has_who_waits() -> None:
    async def scenario(counter: Counter) -> None:
        counter.ask(*(number.to_bytes(32) for number in range(MAX_WAITING + 10)))
        assert [len(answer.unavailable) for answer in counter.heard] == [10]
        await asyncio.sleep(READ_S * 2 * MAX_WAITING / BATCH)
        assert {len(read) for read in counter.shelf.reads} == {BATCH}
        assert sum(len(answer.missing) for answer in counter.heard) == MAX_WAITING

    played(scenario)


def test_keys_that_have_ended_are_missing() -> None:
    clock = ManualClock()
    ended, revoked, live = (
        minted(1, expires_at_s=clock.wall())[0],
        minted(2, revoked_at_s=1.0)[0],
        minted(3, expires_at_s=clock.wall() + 1)[0],
    )

    async def scenario(counter: Counter) -> None:
        for row in (ended, revoked, live):
            counter.shelf.put(row)
        counter.ask(ended.digest, revoked.digest, live.digest)
        await asyncio.sleep(READ_S * 2)
        (answer,) = counter.heard
        assert answer.missing == (ended.digest, revoked.digest)
        assert [(entry.digest, entry.expires_at_s) for entry in answer.entries] == [(live.digest, live.expires_at_s)]

    played(scenario)


def test_a_store_that_is_away_is_said_at_once_and_logged_once(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    row, _ = minted(1)

    async def scenario(counter: Counter) -> None:
        counter.shelf.put(row)
        counter.shelf.broken = True
        for _ in range(3):
            counter.ask(row.digest)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert counter.heard == [LookedUp(unavailable=(row.digest,))] * 3
        counter.shelf.broken = False
        counter.ask(row.digest)
        await asyncio.sleep(READ_S * 2)
        assert len(counter.heard[-1].entries) == 1

    played(scenario, log)
    assert caplog.text.count("cannot be looked up") == 1


def test_what_was_read_before_workers_were_told_to_forget_is_read_again() -> None:
    row, _ = minted(1)

    async def scenario(counter: Counter) -> None:
        counter.shelf.put(row)
        counter.ask(row.digest)
        await asyncio.sleep(READ_S / 2)
        counter.shelf.put(msgspec.structs.replace(row, revoked_at_s=1.0))
        counter.directory.overtaken()
        await asyncio.sleep(READ_S * 2)
        assert counter.heard == [LookedUp(missing=(row.digest,))]
        assert len(counter.shelf.reads) == 2

    played(scenario)


def test_another_configuration_makes_workers_forget_whom_it_concerns() -> None:
    small, large = Quota(tokens_per_minute=1), Quota(tokens_per_minute=2)
    one, two, acme = TenantId("one"), TenantId("two"), OrganizationId("acme")
    before = Terms(
        {one: TenantTerms(plan="free"), two: TenantTerms(quota=small)}, {acme: OrganizationTerms()}, {"free": small}
    )

    async def scenario(counter: Counter) -> None:
        configure = counter.directory.configure
        assert configure(before) == Forget(everything=True, confirms=False)  # there was no such plan
        assert not configure(before).names_any()
        assert configure(Terms({one: TenantTerms(plan="free")}, before.organizations, before.plans)) == Forget(
            tenants=frozenset({two}), confirms=False
        )
        configure(before)
        assert configure(Terms(before.tenants, {}, before.plans)) == Forget(
            organizations=frozenset({acme}), confirms=False
        )
        configure(before)
        assert configure(Terms(before.tenants, before.organizations, {"free": large})) == Forget(
            everything=True, confirms=False
        )
        configure(before)
        everybody = Terms(before.tenants, before.organizations, before.plans, default_plan="free")
        assert configure(everybody) == Forget(everything=True, confirms=False)

    played(scenario)


# The whole way: a store, the parent's watch and directory, a channel, and two workers


class Chain:
    """`worker.find` is what clients of that worker would get: they wait for a look-up."""

    def __init__(self, loop: VirtualLoop, lag_s: float, every_s: float = 0.2) -> None:
        self.loop = loop
        self.lag_s = lag_s  # of the channels
        self.counter = Counter(loop)
        self.shelf = self.counter.shelf
        self.watch = ChangeWatch(self.shelf, self._publish, log=NOWHERE, every_s=every_s)
        self.workers = [Keys(SEAL, loop, loop, self._asker(number)) for number in range(2)]

    async def find(self, worker: int, secret: bytes) -> Principal | Unknown:
        keys = self.workers[worker]
        found = keys.find(secret)
        if found is not Unknown.UNSEEN:
            return found
        answer: asyncio.Future[Principal | Unknown] = self.loop.create_future()
        keys.seek(secret, answer.set_result)
        return await answer

    def _asker(self, number: int) -> Callable[[LookUp], None]:
        def answer(looked_up: LookedUp) -> None:
            self.loop.call_later(self.lag_s, self.workers[number].take, looked_up)

        def ask(look_up: LookUp) -> None:
            self.loop.call_later(self.lag_s, self.counter.directory.ask, look_up.digests, answer)

        return ask

    def _publish(self, forget: Forget) -> None:
        if forget.names_any():
            self.counter.directory.overtaken()
        for keys in self.workers:
            self.loop.call_later(self.lag_s, keys.forget, forget)


Step = tuple[Literal["make", "revoke", "move", "suspend", "find", "break", "mend", "wait"], int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["make", "revoke", "move", "suspend", "find", "find", "find", "break", "mend", "wait"]),
        st.integers(0, 3),
        st.integers(0, 30),
    ),
    max_size=40,
)
KEYS = [minted(number) for number in range(4)]


@given(
    STEPS,
    st.sampled_from([0.0001, 0.003, 0.008]),
    st.sampled_from([0.0, 0.0005, 0.004, 0.03]),
    st.sampled_from([0.2, 0.004]),
)
@settings(deadline=None, max_examples=150)
def test_two_seconds_after_a_change_every_worker_goes_by_it(
    steps: list[Step], lag_s: float, read_s: float, every_s: float
) -> None:
    async def run(loop: VirtualLoop) -> None:
        chain = Chain(loop, lag_s, every_s)
        shelf = chain.shelf
        shelf.slow_s = read_s
        await chain.watch.start()
        watching = loop.create_task(chain.watch.run())
        asked: list[asyncio.Task[Principal | Unknown]] = []
        for verb, number, moment in steps:
            row, secret = KEYS[number]
            match verb:
                case "make":
                    shelf.put(row)
                case "revoke":
                    shelf.put(msgspec.structs.replace(row, revoked_at_s=0.0))
                case "move":
                    shelf.put(msgspec.structs.replace(row, tenant=TenantId(f"moved-{moment}")))
                case "suspend":
                    shelf.put_tenant(TenantRow(row.tenant, None, "", None, None, None, moment % 2 == 0, 1.0))
                case "find":
                    asked.append(loop.create_task(chain.find(moment % 2, secret)))
                case "break" | "mend":
                    shelf.broken = verb == "break"
                case "wait":
                    await asyncio.sleep(moment / 100)
            await asyncio.sleep(0.0001 * moment)
        shelf.broken = False
        shelf.slow_s = min(read_s, 0.002)
        await asyncio.sleep(2.0)
        assert all(task.done() for task in asked)
        for row, secret in KEYS:
            for worker in range(2):
                found = await chain.find(worker, secret)
                kept = shelf.keys.get(row.digest)
                if kept is None or not kept.is_live(ManualClock().wall()):
                    assert found is Unknown.REFUSED
                elif lag_s < 0.008:
                    assert found == Terms().principal(kept, shelf.tenants.get(kept.tenant), None)
                else:  # there and back takes longer than a look-up may
                    assert found is Unknown.UNAVAILABLE or isinstance(found, Principal)
        assert [keys.waiting for keys in chain.workers] == [0, 0]
        await ended(watching)
        await ended(chain.counter.task)

    run_virtual(run)


def test_a_flood_of_unknown_keys_never_reaches_the_parent() -> None:
    async def run(loop: VirtualLoop) -> None:
        chain = Chain(loop, 0.001)
        row, secret = KEYS[0]
        chain.shelf.put(row)
        for number in range(1000):
            made_up = minted(number + 1)[1][:-8] + secret[-8:]  # a good shape, a proof of something else
            assert await chain.find(0, made_up) is Unknown.REFUSED
        assert isinstance(await chain.find(0, secret), Principal)
        assert chain.shelf.reads == [(row.digest,)]
        await ended(chain.counter.task)

    run_virtual(run)


def test_a_thousand_requests_for_a_thousand_keys_are_a_few_statements() -> None:
    async def run(loop: VirtualLoop) -> None:
        chain = Chain(loop, 0.001)
        chain.shelf.slow_s = READ_S
        made: list[tuple[KeyRow, bytes]] = [minted(number) for number in range(1000)]
        for row, _ in made:
            chain.shelf.put(row)
        found = await asyncio.gather(*(chain.find(number % 2, secret) for number, (_, secret) in enumerate(made)))
        assert [one.key if isinstance(one, Principal) else one for one in found] == [row.id for row, _ in made]
        assert len(chain.shelf.reads) <= 1000 / BATCH + READS + 1
        await ended(chain.counter.task)

    run_virtual(run)
