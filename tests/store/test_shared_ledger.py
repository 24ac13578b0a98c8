"""The ledger of many hosts: number by number as the book of one host, on a real server; and what happens when that is slow or gone."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import asyncio as valkey
from tests.needs import needs_redis

from spillway.app.system import SystemClock
from spillway.quota.book import Book
from spillway.quota.ledger import Ask, Kind, LedgerError, LedgerTimes, MemberId, Reply, Report, Seed
from spillway.store.shared_ledger import PAUSE_S, SharedLedger
from spillway.testing.redis import RedisServer

pytestmark = [pytest.mark.server, needs_redis]

TIMES = LedgerTimes(learn_s=10.0, timeout_s=0.3)
PERIOD = "2026-11-26"
AMOUNTS = st.sampled_from([0, 1, 60, 600, 601, 10**15])
COUNTS = st.integers(0, 200)
MEMBERS = st.sampled_from(["a", "b", "c"])


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@asynccontextmanager
async def opened(
    url: str, times: LedgerTimes = TIMES, test_now: Callable[[], float] | None = None
) -> AsyncGenerator[SharedLedger]:
    ledger = SharedLedger(url, times, SystemClock(), test_now=test_now)
    try:
        yield ledger
    finally:
        await ledger.close()


def run(scenario: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30.0))


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    kind = draw(st.sampled_from(list(Kind)))
    number = draw(st.integers(0, 1))
    closing = draw(st.sampled_from([False, False, False, True]))
    if kind is Kind.SLOTS:
        used = draw(st.integers(0, 12))
        wants = tuple(draw(st.lists(st.integers(0, 20), min_size=1, max_size=3)))
        kept, floor = draw(st.integers(used, 14)), draw(st.integers(0, 4))
        return Ask(
            f"s{number}",
            kind,
            draw(st.integers(0, 20)),
            used=used,
            kept=kept,
            floor=floor,
            wants=wants,
            closing=closing,
        )
    period = PERIOD if kind is Kind.BUDGET else ""
    need, want, largest, kept = draw(COUNTS), draw(COUNTS), draw(COUNTS), draw(COUNTS)
    return Ask(f"{kind}{number}", kind, draw(AMOUNTS), period, draw(COUNTS), kept, need, want, largest, closing=closing)


@st.composite
def said(draw: st.DrawFn) -> Report:
    """`turn`: by how many it is ahead of the last."""
    share = draw(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]))
    asked = draw(st.lists(asks(), max_size=4, unique_by=lambda ask: ask.key))
    leaving = draw(st.sampled_from([False, False, False, False, True]))
    ahead = draw(st.sampled_from([0, 1, 1, 1, 5]))
    return Report(MemberId(draw(MEMBERS)), ahead, share, tuple(asked), leaving)


@st.composite
def seeds(draw: st.DrawFn) -> Seed:
    return Seed(f"budget{draw(st.integers(0, 1))}", PERIOD, draw(st.integers(0, 500)), draw(st.integers(0, 2)))


PASSED_S = st.sampled_from([0.0, 0.1, 1.0, 1.0, 1.0, 3.0, 7.3, 61.0, 130.0, 200.0])
STEPS = st.lists(st.tuples(PASSED_S, st.one_of(said(), seeds())), max_size=30)


@given(STEPS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_every_reply_is_the_book_s(server: RedisServer, steps: list[tuple[float, Report | Seed]]) -> None:
    async def scenario() -> None:
        plain = valkey.Redis.from_url(server.url)
        await plain.flushall()
        await plain.aclose()
        now = [1_700_000_000.0]
        book = Book(TIMES, now[0], learning=True)
        async with opened(server.url, test_now=lambda: now[0]) as ledger:
            await ledger.report(Report(MemberId("first"), 1, 0.0))
            book.report(Report(MemberId("first"), 1, 0.0), now[0])
            turns = Counter[str]()
            for passed_s, step in steps:
                now[0] += passed_s
                if isinstance(step, Seed):
                    book.seed(step, now[0])
                    await ledger.seed([step])
                    continue
                turns[step.member] += step.turn
                report = msgspec.structs.replace(step, turn=turns[step.member])
                assert await ledger.report(report) == book.report(report, now[0])

    run(scenario())


async def answered(ledger: SharedLedger, report: Report) -> Reply:
    """As soon as it answers again."""
    async with asyncio.timeout(10.0):
        while True:
            try:
                return await ledger.report(report)
            except LedgerError:
                await asyncio.sleep(0.02)


async def failed(ledger: SharedLedger, report: Report) -> LedgerError:
    with pytest.raises(LedgerError) as found:
        await ledger.report(report)
    return found.value


A = MemberId("a")
NEED = Ask("t/x/tokens_per_minute", Kind.BUCKET, 600, need=10)


def test_a_paused_server_costs_the_time_out_and_never_does_later_what_it_was_asked_then() -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(server.url) as ledger:
            await ledger.report(Report(A, 1, 0.0))
            server.pause()
            error = await failed(ledger, Report(A, 2, 1.0, (NEED,)))
            assert (error.gone, error.may_count) == (False, True)
            error = await failed(ledger, Report(A, 3, 1.0, (NEED,)))
            assert not error.may_count  # it was not even sent
            server.resume()
            reply = await answered(ledger, Report(A, 4, 1.0))
            assert reply.grants == ()
            plain = valkey.Redis.from_url(server.url)
            assert await plain.keys("*tokens_per_minute*") == []
            await plain.aclose()

    with RedisServer() as server:
        run(scenario(server))


def test_a_killed_server_is_gone_and_begins_anew_by_learning() -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(server.url) as ledger:
            await ledger.report(Report(A, 1, 0.0))
            server.kill()
            await failed(ledger, Report(A, 2, 1.0))
            async with asyncio.timeout(5.0):
                while not (await failed(ledger, Report(A, 3, 1.0))).gone:
                    await asyncio.sleep(PAUSE_S / 5)
            server.start()
            assert (await answered(ledger, Report(A, 4, 1.0))).learning

    with RedisServer() as server:
        run(scenario(server))


def test_what_an_earlier_life_wrote_to_disk_is_nothing() -> None:
    """A snapshot may be old: budgets would be spent twice."""

    async def scenario(server: RedisServer) -> None:
        times = LedgerTimes(learn_s=0.0)
        async with opened(server.url, times) as ledger:
            budget = Ask("t/x/usd_per_day", Kind.BUDGET, 100, PERIOD, need=40)
            await ledger.report(Report(A, 1, 0.0))
            await ledger.seed([Seed(budget.key, PERIOD, 0)])
            assert (await ledger.report(Report(A, 2, 1.0, (budget,)))).grants[0].granted == 40
            plain = valkey.Redis.from_url(server.url)
            await plain.save()
            await plain.aclose()
            server.kill()
            server.start()
            (grant,) = (await answered(ledger, Report(A, 3, 1.0, (budget,)))).grants
            assert grant.unseeded

    with RedisServer("--dbfilename", "kept.rdb") as server:
        run(scenario(server))


def test_scripts_and_everything_else_may_be_flushed(server: RedisServer) -> None:
    async def scenario() -> None:
        async with opened(server.url) as ledger:
            await ledger.report(Report(A, 1, 0.0))
            plain = valkey.Redis.from_url(server.url)
            await plain.script_flush()
            await plain.flushall()
            await plain.aclose()
            assert (await ledger.report(Report(A, 2, 0.0))).learning

    run(scenario())


def test_a_server_that_refuses_says_why() -> None:
    async def scenario(server: RedisServer) -> None:
        async with opened(server.url) as ledger:
            error = await failed(ledger, Report(A, 1, 0.0))
            assert "uthentication" in str(error)
            assert (error.gone, error.may_count) == (False, False)
        async with opened(server.url.replace("redis://", "redis://:open@")) as ledger:
            await ledger.report(Report(A, 1, 0.0))

    with RedisServer("--requirepass", "open") as server:
        run(scenario(server))


@pytest.mark.parametrize("said", [b"", b"hello\r\n", b"*1\r\n$-5\r\n", b"+OK\r\n", b":1\r\n" * 3])
def test_garbage_is_an_error_in_time(said: bytes) -> None:
    async def scenario() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(4096):
                if not said:
                    break
                writer.write(said)
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            async with opened(f"redis://127.0.0.1:{port}") as ledger:
                await failed(ledger, Report(A, 1, 0.0))

    run(scenario())
