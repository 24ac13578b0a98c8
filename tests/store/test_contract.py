"""What every store promises: the same suite on the database and on its twin in memory."""

import asyncio

import msgspec
import pytest
from tests.store.conftest import HOUR_S, MakeRecord, OpenPair

from spillway.core.errors import BadRequestError, StoreError
from spillway.core.ids import KeyId, ModelName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.store.rows import Grain, HourQuery, HourRow, Ingested, KeyRow

EVER = HourQuery(from_s=0, until_s=1e12)


def key_row(key: str, **changes: object) -> KeyRow:
    row = KeyRow(
        id=KeyId(key), digest=key.encode(), tenant=TenantId("acme"), name="ci", models=None,
        highest_priority=Priority.INTERACTIVE, created_at_s=100.0, expires_at_s=None, revoked_at_s=None, last4="wxyz",
    )  # fmt: skip
    return msgspec.structs.replace(row, **changes)


def test_a_key_is_kept_as_it_was_made(open_pair: OpenPair) -> None:
    rows = [
        key_row("key_a", models=frozenset({ModelName("npc"), ModelName("quest")}), expires_at_s=200.5),
        key_row("key_b", models=frozenset(), highest_priority=Priority.REALTIME, name="Zoë's"),
    ]

    async def scenario() -> None:
        async with open_pair() as pair:
            for row in rows:
                await pair.keys.add(row)
            assert await pair.keys.rows() == rows

    asyncio.run(scenario())


@pytest.mark.parametrize("twin", [{"key": "key_a"}, {"key": "key_b", "digest": b"key_a"}])
def test_a_key_cannot_be_added_twice(open_pair: OpenPair, twin: dict[str, object]) -> None:
    async def scenario() -> None:
        async with open_pair() as pair:
            await pair.keys.add(key_row("key_a"))
            with pytest.raises(StoreError):
                await pair.keys.add(key_row(**twin))  # pyright: ignore[reportArgumentType]
            assert len(await pair.keys.rows()) == 1

    asyncio.run(scenario())


def test_keys_come_in_pages_and_by_tenant(open_pair: OpenPair) -> None:
    async def scenario() -> None:
        async with open_pair() as pair:
            for number in range(5):
                await pair.keys.add(key_row(f"key_{number}", tenant=TenantId("acme" if number % 2 else "zeta")))
            first = await pair.keys.rows(limit=2)
            rest = await pair.keys.rows(after=first[-1].id)
            assert [row.id for row in first + rest] == [f"key_{number}" for number in range(5)]
            assert [row.id for row in await pair.keys.rows(tenant=TenantId("acme"))] == ["key_1", "key_3"]
            assert await pair.keys.rows(tenant=TenantId("acme"), after=KeyId("key_3")) == []

    asyncio.run(scenario())


def test_live_keys_are_neither_revoked_nor_expired(open_pair: OpenPair) -> None:
    async def scenario() -> None:
        async with open_pair() as pair:
            await pair.keys.add(key_row("key_a"))
            await pair.keys.add(key_row("key_b", expires_at_s=500.0))
            await pair.keys.add(key_row("key_c"))
            assert await pair.keys.revoke(KeyId("key_c"), 150.0)
            assert [row.id for row in await pair.keys.live(499.9)] == ["key_a", "key_b"]
            assert [row.id for row in await pair.keys.live(500.0)] == ["key_a"]

    asyncio.run(scenario())


def test_revoking_twice_keeps_the_first_time_and_an_unknown_key_is_told(open_pair: OpenPair) -> None:
    async def scenario() -> None:
        async with open_pair() as pair:
            await pair.keys.add(key_row("key_a"))
            assert await pair.keys.revoke(KeyId("key_a"), 150.0)
            assert await pair.keys.revoke(KeyId("key_a"), 160.0)
            assert not await pair.keys.revoke(KeyId("key_z"), 160.0)
            assert [row.revoked_at_s for row in await pair.keys.rows()] == [150.0]

    asyncio.run(scenario())


def test_the_revision_changes_with_keys_only(open_pair: OpenPair, make_record: MakeRecord) -> None:
    async def scenario() -> None:
        async with open_pair() as pair:
            before = await pair.keys.revision()
            await pair.usage.ingest([make_record("req_1")])
            assert await pair.keys.revision() == before
            await pair.keys.add(key_row("key_a"))
            added = await pair.keys.revision()
            await pair.keys.revoke(KeyId("key_a"), 1.0)
            revoked = await pair.keys.revision()
            assert len({before, added, revoked}) == 3

    asyncio.run(scenario())


def test_a_record_is_kept_whole(open_pair: OpenPair, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1", cached_tokens=7, spilled=True),
        make_record("req_2", pool=None, version=None, ttft_s=None, tpot_s=None, outcome=Outcome.REFUSED, attempts=0),
    ]

    async def scenario() -> None:
        async with open_pair() as pair:
            assert await pair.usage.ingest(records) == Ingested(fresh=2, known=0)
            assert [await pair.usage.record(record.request) for record in records] == records
            assert await pair.usage.record(RequestId("req_3")) is None

    asyncio.run(scenario())


def test_a_record_counts_once_however_often_it_comes(open_pair: OpenPair, make_record: MakeRecord) -> None:
    one, two = make_record("req_1"), make_record("req_2", outcome=Outcome.CUT, spilled=True, cached_tokens=40)

    async def scenario() -> None:
        async with open_pair() as pair:
            assert await pair.usage.ingest([one, one]) == Ingested(fresh=1, known=1)
            assert await pair.usage.ingest([one, two]) == Ingested(fresh=1, known=1)
            assert await pair.usage.ingest([]) == Ingested(fresh=0, known=0)
            (row,) = (await pair.usage.hours(EVER)).rows
            assert row == HourRow(
                hour_s=HOUR_S, tenant=TenantId("acme"), model=None, pool=None, requests=2, ok=1, spilled=1,
                prompt_tokens=200, cached_tokens=40, completion_tokens=40, cost_usd=0.000_246,
            )  # fmt: skip

    asyncio.run(scenario())


def test_hours_are_summed_by_tenant_or_shown_by_pool(open_pair: OpenPair, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1"),
        make_record("req_2", pool="npc@west"),
        make_record("req_3", pool=None),
        make_record("req_4", tenant="zeta"),
        make_record("req_5", finished_at_s=HOUR_S + 3600.0),
        make_record("req_6", finished_at_s=HOUR_S + 3599.999),
    ]

    async def scenario() -> None:
        async with open_pair() as pair:
            await pair.usage.ingest(records)
            by_tenant = await pair.usage.hours(EVER)
            assert [(row.hour_s - HOUR_S, row.tenant, row.requests) for row in by_tenant.rows] == [
                (0, "acme", 4),
                (0, "zeta", 1),
                (3600, "acme", 1),
            ]
            by_pool = await pair.usage.hours(
                HourQuery(from_s=HOUR_S, until_s=HOUR_S + 3600, grain=Grain.POOL, tenant=TenantId("acme"))
            )
            assert [(row.model, row.pool, row.requests) for row in by_pool.rows] == [
                ("npc", None, 1),
                ("npc", "npc@east", 2),
                ("npc", "npc@west", 1),
            ]
            nothing = await pair.usage.hours(HourQuery(from_s=HOUR_S + 1, until_s=HOUR_S + 3600))
            assert nothing.rows == ()
            assert nothing.next is None

    asyncio.run(scenario())


@pytest.mark.parametrize("grain", list(Grain))
@pytest.mark.parametrize("tenant", [None, TenantId("t1")])
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_pages_join_without_gap_or_double(
    open_pair: OpenPair, make_record: MakeRecord, grain: Grain, tenant: TenantId | None, limit: int
) -> None:
    records = [
        make_record(
            f"req_{number}",
            tenant=f"t{number % 3}",
            pool=f"p{number % 2}",
            model=f"m{number % 5}",
            finished_at_s=HOUR_S + 3600.0 * (number % 4),
        )
        for number in range(60)
    ]

    async def scenario() -> None:
        async with open_pair() as pair:
            await pair.usage.ingest(records)
            whole = await pair.usage.hours(HourQuery(from_s=0, until_s=1e12, grain=grain, tenant=tenant, limit=1000))
            assert whole.next is None
            assert sum(row.requests for row in whole.rows) == (20 if tenant else 60)
            rows: list[HourRow] = []
            cursor: str | None = None
            while True:
                page = await pair.usage.hours(
                    HourQuery(from_s=0, until_s=1e12, grain=grain, tenant=tenant, limit=limit, cursor=cursor)
                )
                assert len(page.rows) <= limit
                rows += page.rows
                cursor = page.next
                if cursor is None:
                    break
            assert tuple(rows) == whole.rows

    asyncio.run(scenario())


@pytest.mark.parametrize("cursor", ["", "x", "ééé", "AAAA", "kwE", "k8DAwMA", "lAGhYaFhwA", "lM___________6CgoA"])
def test_a_cursor_of_somebody_else_is_a_bad_request(open_pair: OpenPair, cursor: str) -> None:
    async def scenario() -> None:
        async with open_pair() as pair:
            with pytest.raises(BadRequestError) as caught:
                await pair.usage.hours(HourQuery(from_s=0, until_s=1, cursor=cursor))
            assert caught.value.param == "cursor"

    asyncio.run(scenario())


def test_old_rows_are_forgotten_a_few_at_a_time(open_pair: OpenPair, make_record: MakeRecord) -> None:
    records = [make_record(f"req_{number}", finished_at_s=HOUR_S + 3600.0 * number) for number in range(6)]

    async def scenario() -> None:
        async with open_pair() as pair:
            await pair.usage.ingest(records)
            limits = {"records_before_s": HOUR_S + 3600.0 * 5, "hours_before_s": HOUR_S + 3600.0}
            gone = [await pair.usage.forget(**limits, limit=2) for _ in range(4)]
            assert gone == [3, 2, 1, 0]
            assert await pair.usage.record(RequestId("req_4")) is None
            assert await pair.usage.record(RequestId("req_5")) is not None
            assert [row.hour_s for row in (await pair.usage.hours(EVER)).rows] == [
                HOUR_S + 3600 * number for number in range(1, 6)
            ]

    asyncio.run(scenario())


def test_numbers_that_no_database_can_hold_do_not_block_the_rest(open_pair: OpenPair, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1", prompt_tokens=1 << 63),
        make_record("req_2", cost_usd=float("nan")),
        make_record("req_3", cost_usd=float("inf"), completion_tokens=-5),
        make_record("req_4"),
    ]

    async def scenario() -> None:
        async with open_pair() as pair:
            assert await pair.usage.ingest(records) == Ingested(fresh=4, known=0)
            (row,) = (await pair.usage.hours(EVER)).rows
            assert row.requests == 4
            assert row.prompt_tokens == (1 << 40) + 300
            assert row.completion_tokens == 60

    asyncio.run(scenario())
