"""`spillway usage`: sums that are shown, and single records that DuckDB sums to the same."""

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.store.conftest import HOUR_S, MakeRecord

from spillway.cli.main import main
from spillway.store.opening import Stores
from spillway.store.settings import Settings
from spillway.store.statements import statements

DAYS = ["--from", "2026-01-01", "--until", "2026-01-02"]


def queried(sql: str) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(sql).fetchall()


@pytest.fixture
def home(tmp_path: Path, make_record: MakeRecord) -> Path:
    records = [
        make_record(
            f"req_{number:05d}", tenant=f"t{number % 3}", organization="studio" if number % 3 else "", finished_at_s=HOUR_S + number * 7.0,
            cost_usd=number / 1e7, cached_tokens=None if number % 2 else number, pool=None if number % 11 == 0 else "npc@east",
        )
        for number in range(12_345)
    ]  # fmt: skip

    async def fill() -> None:
        async with Stores(Settings(), tmp_path / "home") as stores:
            await stores.usage.ingest(records)

    asyncio.run(fill())
    return tmp_path / "home"


def test_single_records_sum_to_what_is_shown(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["usage", "export", *DAYS, "--home", str(home), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["usage-2026-01-01.parquet", "usage-2026-01-02.parquet"]
    summed = queried(
        f"SELECT tenant, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_nano_usd) FROM '{out}/*.parquet' GROUP BY tenant"
    )
    capsys.readouterr()
    assert main(["usage", "show", *DAYS, "--home", str(home), "--json"]) == 0
    shown: dict[str, list[int]] = {}
    for row in map(json.loads, capsys.readouterr().out.splitlines()):
        sums = shown.setdefault(row["tenant"], [0, 0, 0, 0])
        new = (row["requests"], row["prompt_tokens"], row["completion_tokens"], round(row["cost_usd"] * 1e9))
        shown[row["tenant"]] = [one + other for one, other in zip(sums, new, strict=True)]
    assert {tenant: [int(value) for value in sums] for tenant, *sums in summed} == shown


def test_one_tenant_s_or_one_organization_s(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, tenants in ((["--tenant", "t1"], {"t1"}), (["--organization", "studio"], {"t1", "t2"})):
        out = tmp_path / words[1]
        assert main(["usage", "export", *DAYS, *words, "--home", str(home), "--out", str(out)]) == 0
        found = queried(f"SELECT DISTINCT tenant FROM '{out}/*.parquet'")
        assert {tenant for (tenant,) in found} == tenants
        capsys.readouterr()
        assert main(["usage", "show", *DAYS, *words, "--home", str(home)]) == 0
        assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == tenants


def test_what_is_there_is_not_overwritten_and_nothing_is_left_half(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "usage-2026-01-01.parquet").write_text("mine")
    assert main(["usage", "export", *DAYS, "--home", str(home), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (out / "usage-2026-01-01.parquet").read_text() == "mine"
    assert (
        main(["usage", "export", "--from", "2026-01-02", "--until", "2026-01-01", "--home", str(home), "--out", "x"])
        == 2
    )
    (tmp_path / "file").write_text("")
    assert main(["usage", "export", *DAYS, "--home", str(home), "--out", str(tmp_path / "file")]) == 1
    assert "file" in capsys.readouterr().err


def test_a_usage_page_is_a_range_of_an_index(home: Path) -> None:
    sql = {name: text for name, text in statements("usage").items() if name.startswith(("hours_", "used_"))}
    names = re.findall(r":(\w+)", " ".join(sql.values()))

    async def plan(stores: Stores, text: str) -> list[str]:
        return await stores.database.read(
            lambda connection: [
                row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", dict.fromkeys(names, 1))
            ]
        )

    async def scenario() -> None:
        async with Stores(Settings(), home) as stores:
            for name, text in sql.items():
                steps = await plan(stores, text)
                assert any("SEARCH usage_hour USING" in step for step in steps), (name, steps)
                assert not any(step.startswith("SCAN") for step in steps), (name, steps)

    asyncio.run(scenario())


def test_the_page_s_commands(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "usage.md").read_text()
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.strip().split("\n")]
    (query,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    for command in commands:
        program, *words = shlex.split(command.replace("2026-11", "2026-01"))
        assert program == "spillway"
        assert main([*words, "--home", str(home)]) == 0
    assert len(queried(query)) == 3
