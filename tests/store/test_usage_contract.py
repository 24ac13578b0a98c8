"""What every usage store promises: the same suite on the database and on its twin in memory."""

import asyncio

import msgspec
import pytest
from tests.store.conftest import HOUR_S, MakeRecord, OpenShop

from spillway.core.errors import BadRequestError
from spillway.core.ids import BatchId, ModelName, OrganizationId, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.store.rows import Grain, HourQuery, HourRow, Ingested, RecordQuery, UsageScope, Used

EVER = HourQuery(from_s=0, until_s=1e12)


def test_a_record_is_kept_whole(open_shop: OpenShop, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1", cached_tokens=7, spilled=True, organization="studio"),
        make_record("req_2", pool=None, version=None, ttft_s=None, tpot_s=None, outcome=Outcome.REFUSED, attempts=0),
    ]

    async def scenario() -> None:
        async with open_shop() as shop:
            assert await shop.usage.ingest(records) == Ingested(fresh=2, known=0)
            assert [await shop.usage.record(record.request) for record in records] == records
            assert await shop.usage.record(RequestId("req_3")) is None

    asyncio.run(scenario())


def test_a_record_counts_once_however_often_it_comes(open_shop: OpenShop, make_record: MakeRecord) -> None:
    one, two = make_record("req_1"), make_record("req_2", outcome=Outcome.CUT, spilled=True, cached_tokens=40)

    async def scenario() -> None:
        async with open_shop() as shop:
            assert await shop.usage.ingest([one, one]) == Ingested(fresh=1, known=1)
            assert await shop.usage.ingest([one, two]) == Ingested(fresh=1, known=1)
            assert await shop.usage.ingest([]) == Ingested(fresh=0, known=0)
            (row,) = (await shop.usage.hours(EVER)).rows
            assert row == HourRow(
                hour_s=HOUR_S, tenant=TenantId("acme"), model=None, pool=None, requests=2, ok=1, spilled=1,
                prompt_tokens=200, cached_tokens=40, completion_tokens=40, cost_usd=0.000_246,
            )  # fmt: skip

    asyncio.run(scenario())


def test_hours_are_summed_by_tenant_or_shown_by_pool(open_shop: OpenShop, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1"),
        make_record("req_2", pool="npc@west"),
        make_record("req_3", pool=None),
        make_record("req_4", tenant="zeta"),
        make_record("req_5", finished_at_s=HOUR_S + 3600.0),
        make_record("req_6", finished_at_s=HOUR_S + 3599.999),
    ]

    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.usage.ingest(records)
            by_tenant = await shop.usage.hours(EVER)
            assert [(row.hour_s - HOUR_S, row.tenant, row.requests) for row in by_tenant.rows] == [
                (0, "acme", 4),
                (0, "zeta", 1),
                (3600, "acme", 1),
            ]
            by_pool = await shop.usage.hours(
                HourQuery(from_s=HOUR_S, until_s=HOUR_S + 3600, grain=Grain.POOL, tenant=TenantId("acme"))
            )
            assert [(row.model, row.pool, row.requests) for row in by_pool.rows] == [
                ("npc", None, 1),
                ("npc", "npc@east", 2),
                ("npc", "npc@west", 1),
            ]
            nothing = await shop.usage.hours(HourQuery(from_s=HOUR_S + 1, until_s=HOUR_S + 3600))
            assert nothing.rows == ()
            assert nothing.next is None

    asyncio.run(scenario())


@pytest.mark.parametrize("grain", list(Grain))
@pytest.mark.parametrize("tenant", [None, TenantId("t1")])
@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_pages_join_without_gap_or_double(
    open_shop: OpenShop, make_record: MakeRecord, grain: Grain, tenant: TenantId | None, limit: int
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
        async with open_shop() as shop:
            await shop.usage.ingest(records)
            whole = await shop.usage.hours(HourQuery(from_s=0, until_s=1e12, grain=grain, tenant=tenant, limit=1000))
            assert whole.next is None
            assert sum(row.requests for row in whole.rows) == (20 if tenant else 60)
            rows: list[HourRow] = []
            cursor: str | None = None
            while True:
                page = await shop.usage.hours(
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
def test_a_cursor_of_somebody_else_is_a_bad_request(open_shop: OpenShop, cursor: str) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            with pytest.raises(BadRequestError) as caught:
                await shop.usage.hours(HourQuery(from_s=0, until_s=1, cursor=cursor))
            assert caught.value.param == "cursor"

    asyncio.run(scenario())


def test_old_rows_are_forgotten_a_few_at_a_time(open_shop: OpenShop, make_record: MakeRecord) -> None:
    records = [make_record(f"req_{number}", finished_at_s=HOUR_S + 3600.0 * number) for number in range(6)]

    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.usage.ingest(records)
            limits = {"records_before_s": HOUR_S + 3600.0 * 5, "hours_before_s": HOUR_S + 3600.0}
            gone = [await shop.usage.forget(**limits, limit=2) for _ in range(4)]
            assert gone == [3, 2, 1, 0]
            assert await shop.usage.record(RequestId("req_4")) is None
            assert await shop.usage.record(RequestId("req_5")) is not None
            assert [row.hour_s for row in (await shop.usage.hours(EVER)).rows] == [
                HOUR_S + 3600 * number for number in range(1, 6)
            ]

    asyncio.run(scenario())


def test_numbers_that_no_database_can_hold_do_not_block_the_rest(open_shop: OpenShop, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1", prompt_tokens=1 << 63),
        make_record("req_2", cost_usd=float("nan")),
        make_record("req_3", cost_usd=float("inf"), completion_tokens=-5),
        make_record("req_4"),
    ]

    async def scenario() -> None:
        async with open_shop() as shop:
            assert await shop.usage.ingest(records) == Ingested(fresh=4, known=0)
            (row,) = (await shop.usage.hours(EVER)).rows
            assert row.requests == 4
            assert row.prompt_tokens == (1 << 40) + 300
            assert row.completion_tokens == 60

    asyncio.run(scenario())


def test_what_was_used_counts_what_reached_an_upstream(open_shop: OpenShop, make_record: MakeRecord) -> None:
    records = [
        make_record("req_1", organization="studio", cost_usd=0.25),
        make_record(
            "req_2", organization="studio", model="draw", attempts=0, prompt_tokens=0, completion_tokens=0, cost_usd=0.0
        ),
        make_record("req_3", organization="studio", tenant="zeta", pool="npc@west", cost_usd=0.5),
        make_record("req_4", organization="studio", finished_at_s=HOUR_S + 86_400.0),
        make_record("req_5"),
    ]
    day = (HOUR_S, HOUR_S + 86_400)
    studio, acme = OrganizationId("studio"), TenantId("acme")

    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.usage.ingest(records)
            assert await shop.usage.used(
                [
                    UsageScope(*day, organization=studio),
                    UsageScope(*day, organization=studio, model=ModelName("draw")),
                    UsageScope(*day, tenant=acme),
                    UsageScope(*day, tenant=acme, model=ModelName("npc")),
                    UsageScope(from_s=0, until_s=1e12, tenant=acme),
                    UsageScope(*day, tenant=TenantId("nobody")),
                ]
            ) == [
                Used(2, 240, 750_000_000), Used(), Used(2, 240, 250_123_000), Used(2, 240, 250_123_000), Used(3, 360, 250_246_000), Used(),
            ]  # fmt: skip

    asyncio.run(scenario())


@pytest.mark.parametrize("grain", list(Grain))
def test_hours_of_an_organization(open_shop: OpenShop, make_record: MakeRecord, grain: Grain) -> None:
    records = [
        make_record(
            f"req_{number}", tenant=f"t{number % 3}", organization="studio" if number % 2 else "", pool=f"p{number}"
        )
        for number in range(12)
    ]

    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.usage.ingest(records)
            rows: list[HourRow] = []
            cursor = None
            while True:
                query = HourQuery(
                    from_s=0, until_s=1e12, grain=grain, organization=OrganizationId("studio"), cursor=cursor, limit=2
                )
                page = await shop.usage.hours(query)
                rows += page.rows
                cursor = page.next
                if cursor is None:
                    break
            assert sum(row.requests for row in rows) == 6
            assert len(rows) == (3 if grain is Grain.TENANT else 6)

    asyncio.run(scenario())


def test_single_records_come_in_the_order_of_their_ends(open_shop: OpenShop, make_record: MakeRecord) -> None:
    records = [
        make_record(f"req_{number}", finished_at_s=HOUR_S + number // 2, tenant=f"t{number % 2}", organization="studio" if number % 2 else "")
        for number in range(9)
    ]  # fmt: skip

    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.usage.ingest(list(reversed(records)))
            query, found = RecordQuery(HOUR_S, HOUR_S + 4, limit=3), list[UsageRecord]()
            while page := await shop.usage.records(query):
                found += page
                query = msgspec.structs.replace(query, after=(page[-1].finished_at_s, page[-1].request))
            assert found == records[:8]
            of_one = RecordQuery(0, 1e12, tenant=TenantId("t1"))
            assert await shop.usage.records(of_one) == records[1::2]
            assert (
                await shop.usage.records(RecordQuery(0, 1e12, organization=OrganizationId("studio"))) == records[1::2]
            )

    asyncio.run(scenario())


def test_an_item_is_billed_once_by_the_first_answer_that_is_told(open_shop: OpenShop, make_record: MakeRecord) -> None:
    left = make_record("req_1", item="batch_a/7", outcome=Outcome.CLIENT_LEFT)
    first, again = make_record("req_2", item="batch_a/7"), make_record("req_3", item="batch_a/7")
    told_otherwise = make_record(
        "req_2", item="batch_a/7", finished_at_s=HOUR_S + 61.0
    )  # the worker's word for the same answer
    other = make_record("req_4", item="batch_a/8")

    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.usage.ingest([left])
            assert await shop.usage.billed(BatchId("batch_a")) == frozenset()
            await shop.usage.ingest([first, told_otherwise, again])
            await shop.usage.ingest([first])
            await shop.usage.ingest([told_otherwise, again, other])
            assert await shop.usage.billed(BatchId("batch_a")) == {"7", "8"}
            assert await shop.usage.billed(BatchId("batch")) == frozenset()
            (row,) = (await shop.usage.hours(EVER)).rows
            assert (row.requests, row.completion_tokens) == (2, 40)
            assert row.cost_usd == pytest.approx(2 * first.cost_usd)
            assert row.repeat_cost_usd == pytest.approx(left.cost_usd + again.cost_usd)
            kept = await shop.usage.record(RequestId("req_3"))
            assert kept == msgspec.structs.replace(again, repeat=True)

    asyncio.run(scenario())
