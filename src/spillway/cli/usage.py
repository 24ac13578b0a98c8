"""`spillway usage show|export`: works on the store directly.

`show` reads sums per hour only. `export` writes single records as Parquet, a file for each UTC day: for DuckDB and the like. Money is whole
nano-dollars there, so that sums are exact.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from msgspec.structs import asdict, replace

from spillway.cli.key import place_of
from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError, UsageError
from spillway.core.ids import OrganizationId, TenantId
from spillway.core.usage import UsageRecord
from spillway.store.opening import Stores
from spillway.store.ports import UsageStore
from spillway.store.rollups import nano_usd
from spillway.store.rows import Grain, HourQuery, HourRow, RecordQuery

DAY_S = 86_400
MOST_DAYS = 3660


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="show|export", required=True)
    show = actions.add_parser("show", help="sums per hour")
    show.add_argument(
        "--by",
        choices=["tenant", "pool"],
        default="tenant",
        help="a row for each tenant, or for each model and pool too",
    )
    show.add_argument("--json", action="store_true")
    export = actions.add_parser("export", help="single records, as Parquet")
    export.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="gets a file usage-YYYY-MM-DD.parquet for each day"
    )
    for action in (show, export):
        action.add_argument(
            "--from",
            dest="first",
            type=date.fromisoformat,
            required=True,
            metavar="YYYY-MM-DD",
            help="the first day, UTC",
        )
        action.add_argument(
            "--until",
            dest="last",
            type=date.fromisoformat,
            required=True,
            metavar="YYYY-MM-DD",
            help="the last day, included",
        )
        whose = action.add_mutually_exclusive_group()
        whose.add_argument("--tenant")
        whose.add_argument("--organization")
        action.add_argument("--config", type=Path, metavar="FILE", help="the gateway's configuration")
        action.add_argument("--home", type=Path, metavar="DIR", help="instead of the configuration's home (.spillway)")


def run(arguments: argparse.Namespace) -> int:
    days = (arguments.last - arguments.first).days + 1
    if not 1 <= days <= MOST_DAYS:
        raise UsageError(f"--until: from --from on, at most {MOST_DAYS} days")
    if arguments.action == "show":
        return asyncio.run(_show(arguments))
    return asyncio.run(_export(arguments))


async def _show(arguments: argparse.Namespace) -> int:
    place = place_of(arguments)
    query = HourQuery(
        from_s=_start_s(arguments.first),
        until_s=_start_s(arguments.last) + DAY_S,
        grain=Grain.POOL if arguments.by == "pool" else Grain.TENANT,
        tenant=_tenant(arguments),
        organization=_organization(arguments),
        limit=1000,
    )
    async with Stores(place.settings, place.home) as stores:
        while True:
            page = await stores.usage.hours(query)
            for row in page.rows:
                print(json.dumps(asdict(row)) if arguments.json else _line(row))
            if page.next is None:
                return 0
            query = replace(query, cursor=page.next)


async def _export(arguments: argparse.Namespace) -> int:
    try:
        from spillway.cli.parquet import write_day
    except ImportError:
        raise UsageError("the export needs pyarrow: pip install 'spillway[export]'") from None
    place, out = place_of(arguments), arguments.out
    days = [arguments.first + timedelta(days=number) for number in range((arguments.last - arguments.first).days + 1)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        async with Stores(place.settings, place.home) as stores:
            for day in days:
                path = out / f"usage-{day.isoformat()}.parquet"
                query = RecordQuery(_start_s(day), _start_s(day) + DAY_S, _tenant(arguments), _organization(arguments))
                count = await write_day(path, _pages(stores.usage, query))
                print(f"{path}: {count} records" if count else f"{day}: nothing", file=sys.stderr)
    except OSError as error:
        raise SpillwayError(f"{error.filename or out}: {error.strerror or error}") from None
    return 0


async def _pages(usage: UsageStore, query: RecordQuery) -> AsyncIterator[list[dict[str, object]]]:
    while records := await usage.records(query):
        yield [_row(record) for record in records]
        if len(records) < query.limit:
            return
        query = replace(query, after=(records[-1].finished_at_s, records[-1].request))


def _row(record: UsageRecord) -> dict[str, object]:
    row: dict[str, object] = {**asdict(record), "priority": record.priority.value, "outcome": record.outcome.value}
    del row["cost_usd"]
    return row | {"cost_nano_usd": nano_usd(record)}


def _line(row: HourRow) -> str:
    hour = datetime.fromtimestamp(row.hour_s, UTC).strftime("%Y-%m-%dT%HZ")
    where = "" if row.model is None else f"  {row.model}  {row.pool or '-'}"
    tokens = f"{row.prompt_tokens} in  {row.completion_tokens} out"
    return f"{hour}  {row.tenant}{where}  {row.requests} requests  {row.ok} ok  {tokens}  ${row.cost_usd:.6f}"


def _start_s(day: date) -> Seconds:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _tenant(arguments: argparse.Namespace) -> TenantId | None:
    return None if arguments.tenant is None else TenantId(arguments.tenant)


def _organization(arguments: argparse.Namespace) -> OrganizationId | None:
    return None if arguments.organization is None else OrganizationId(arguments.organization)
