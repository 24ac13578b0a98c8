"""Keys that come and go while workers serve, and the ledger: what a record says, and that each request has exactly one."""

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import sqlite3
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from spillway.store.frames import read_segment
from spillway.testing.processes import SpawnedProcess, descendants, started, wait_gone
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble
from spillway.testing.waiting import eventually
from tests.e2e.crowd import Crowd
from tests.e2e.gateway import KEY, TENANT, Fleet, Gateway, Site, free_port, live, running, write_config
from tests.e2e.settling import APPEARS_S, VANISHES_S, settles
from tests.e2e.talking import Json, request

pytestmark = pytest.mark.server

BRISK = UpstreamSpec(time_to_first_token_s=0.005, inter_token_latency_s=0.002, output_tokens=6)
PRICE: Json = {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 8.0}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    store: Json = {"busy_timeout_s": 0.2, "spool": {"segment_s": 0.1}}
    with running({"workers": 2}, store=store) as started_one:
        yield started_one


async def by_command(gateway: Gateway, *words: str) -> Json:
    def run() -> Json:
        with started("key", *words, "--config", str(gateway.folder / "spillway.yaml"), "--json") as process:
            assert process.wait() == 0, process.stderr
            return json.loads(process.stdout)

    return await asyncio.to_thread(run)


@live
async def test_keys_made_and_revoked_by_the_admin_api(gateway: Gateway) -> None:
    made = await gateway.admin("POST", "/admin/v1/keys", {"tenant": "someone", "name": "from the API"})
    secret, key = made.json["secret"], made.json["key"]["id"]
    await settles(gateway, secret, 200, within_s=APPEARS_S)
    assert (await gateway.admin("DELETE", f"/admin/v1/keys/{key}")).status == 204
    await settles(gateway, secret, 401, within_s=VANISHES_S)


@live
async def test_keys_made_and_revoked_by_another_process(gateway: Gateway) -> None:
    made = await by_command(gateway, "create", "--tenant", "someone")
    await settles(gateway, made["secret"], 200, within_s=APPEARS_S)
    assert made["id"] in {key["id"] for key in (await by_command(gateway, "list"))["keys"]}
    await by_command(gateway, "revoke", made["id"])
    await settles(gateway, made["secret"], 401, within_s=VANISHES_S)


@live
async def test_a_key_knows_its_models_and_its_priority(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        wanted: Json = {"tenant": "someone", "models": [fleet.model], "priority": "batch"}
        secret = (await gateway.admin("POST", "/admin/v1/keys", wanted)).json["secret"]
        await settles(gateway, secret, 200, within_s=APPEARS_S)
        async with fleet.talk() as talk:
            talk.send(request(fleet.body(service_tier="priority"), key=secret))
            answer = await talk.answer()
        assert answer.status == 200
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["tenant"], record["priority"]) == ("someone", "batch")


@live
async def test_what_a_record_says(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=0.1, inter_token_latency_s=0.02, output_tokens=11)
    site = Site("here", slow, settings={"price": PRICE, "version": "fake:7"})
    async with gateway.fleet(site) as fleet:
        whole = await fleet.ask()
        used = whole.json["usage"]
        record = await gateway.record(whole.headers["x-request-id"])
        assert record["request"] == whole.headers["x-request-id"]
        assert record["tenant"] == TENANT
        assert record["model"] == fleet.model
        assert (record["pool"], record["version"]) == (fleet.pool("here"), "fake:7")
        assert whole.headers["x-spillway-version"] == "fake:7"
        assert (record["outcome"], record["attempts"], record["spilled"]) == ("ok", 1, False)
        assert (record["prompt_tokens"], record["completion_tokens"]) == (
            used["prompt_tokens"],
            used["completion_tokens"],
        )
        assert record["completion_tokens"] == 11
        assert record["estimated"] is False
        cost_usd = (used["prompt_tokens"] * 2.0 + used["completion_tokens"] * 8.0) / 1e6
        assert math.isclose(record["cost_usd"], cost_usd)
        assert (record["streamed"], record["ttft_s"], record["tpot_s"]) == (False, None, None)
        assert record["duration_s"] >= 0.3

        streamed = await fleet.ask(stream=True, service_tier="priority")
        assert "usage" not in streamed.body.decode()
        record = await gateway.record(streamed.headers["x-request-id"])
        assert (record["streamed"], record["priority"]) == (True, "realtime")
        assert (record["prompt_tokens"], record["completion_tokens"]) == (used["prompt_tokens"], 11)
        assert 0.1 <= record["ttft_s"] < record["duration_s"]
        assert math.isclose(record["tpot_s"], (record["duration_s"] - record["ttft_s"]) / 10)
        assert record["tpot_s"] >= 0.015


@live
async def test_what_a_record_says_of_a_request_that_went_elsewhere(gateway: Gateway) -> None:
    first, second = Site("first", BRISK, rules=("503",)), Site("second", BRISK, settings={"price": PRICE})
    async with gateway.fleet(first, second) as fleet:
        record = await gateway.record((await fleet.ask()).headers["x-request-id"])
        assert (record["attempts"], record["spilled"], record["pool"]) == (2, True, fleet.pool("second"))
        assert record["cost_usd"] > 0


@live
async def test_what_a_record_says_of_a_request_that_failed(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        nobody = await fleet.ask(model="nobody")
        record = await gateway.record(nobody.headers["x-request-id"])
        assert (record["outcome"], record["model"], record["pool"], record["attempts"]) == (
            "model_not_found",
            "",
            None,
            0,
        )
        cut = await fleet.ask(stream=True, user="fault:cut:3")
        record = await gateway.record(cut.headers["x-request-id"])
        assert (record["outcome"], record["estimated"], record["completion_tokens"]) == ("cut", True, 3)
        async with fleet.talk() as talk:
            talk.send(fleet.request(stream=True, user="fault:stall:3"))
            head = await talk.head()
            await talk.until(b'"content"')
            talk.leave()
        record = await gateway.record(head.headers["x-request-id"])
        assert (record["outcome"], record["estimated"]) == ("client_left", True)
        assert 1 <= record["completion_tokens"] <= 3


@live
async def test_hours_add_up(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK, settings={"price": PRICE})) as fleet:
        answers = [await fleet.ask() for _ in range(5)]
        records = [await gateway.record(answer.headers["x-request-id"]) for answer in answers]
        hours = await hours_of(gateway, fleet.model)
        assert {(hour["tenant"], hour["pool"]) for hour in hours} == {(TENANT, fleet.pool("here"))}
        for field in ("prompt_tokens", "completion_tokens", "cost_usd"):
            assert math.isclose(sum(hour[field] for hour in hours), sum(record[field] for record in records))
        assert sum(hour["requests"] for hour in hours) == 5
        assert sum(hour["ok"] for hour in hours) == 5
        mine = await gateway.admin("GET", f"/admin/v1/usage?tenant={TENANT}")
        assert {hour["tenant"] for hour in mine.json["hours"]} == {TENANT}
        assert sum(hour["requests"] for hour in mine.json["hours"]) >= 5


async def hours_of(gateway: Gateway, model: str) -> list[Json]:
    answer = await gateway.admin("GET", "/admin/v1/usage?by=pool&limit=1000")
    return [hour for hour in answer.json["hours"] if hour["model"] == model]


async def every_answer_is_counted_once(gateway: Gateway, fleet: Fleet, crowd: Crowd) -> None:
    assert crowd.lost == []
    for asked in crowd.log:
        assert (await gateway.record(asked.request_id))["outcome"] == "ok"
    assert sum(hour["requests"] for hour in await hours_of(gateway, fleet.model)) == len(crowd.log)


@live
async def test_a_locked_database_harms_no_request_and_loses_no_record(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        with contextlib.closing(sqlite3.connect(gateway.home / "spillway.db", isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            async with Crowd(gateway.port, KEY, [fleet.body(), fleet.body(stream=True)], callers=6) as crowd:
                await crowd.asked(60)
                await asyncio.to_thread(gateway.process.wait_for, "usage cannot be stored")
                await crowd.asked(20)
                assert (await gateway.admin("POST", "/admin/v1/keys", {"tenant": "late"})).status == 503
            lock.execute("ROLLBACK")
        await every_answer_is_counted_once(gateway, fleet, crowd)


@live
async def test_a_database_that_goes_away_harms_no_request_and_loses_no_record(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        database = gateway.home / "spillway.db"
        async with Crowd(gateway.port, KEY, [fleet.body(), fleet.body(stream=True)], callers=6) as crowd:
            await crowd.asked(20)
            database.rename(gateway.home / "away")
            await asyncio.to_thread(gateway.process.wait_for, "changes of keys cannot be read")
            await crowd.asked(60)
            assert (await gateway.admin("GET", "/admin/v1/usage")).status == 503
            (gateway.home / "away").rename(database)
            await crowd.asked(20)
        await every_answer_is_counted_once(gateway, fleet, crowd)


# Everything is killed: a gateway with a home that outlives it


class Lasting:
    """One home and one port for several lives."""

    def __init__(self, folder: Path, upstream: UpstreamDouble) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.port, admin_port = free_port(), free_port()
        settings: Json = {
            "listen": f"127.0.0.1:{self.port}",
            "admin": f"127.0.0.1:{admin_port}",
            "home": str(self.home),
        }
        pool: Json = {"cluster": "here", "endpoints": [upstream.url], "model": "fake", "probe_path": ""}
        self.config: Json = {
            "gateway": settings,
            "store": {"spool": {"segment_s": 60.0}},
            "clusters": {"here": {}},
            "pools": {"here": pool},
            "models": {"fake": {"tiers": [["here"]]}},
            "keys": [{"secret": KEY, "tenant": TENANT}],
            "batch": {"workers": 0},
        }

    @contextlib.contextmanager
    def life(self) -> Generator[Gateway]:
        path = write_config(self.folder, self.config)
        with started("serve", "--config", str(path), "--workers", "2") as process:
            process.wait_for("ready: ", deadline_s=40.0)
            yield Gateway(process, self.folder, self.config, self.port)

    def spooled(self) -> list[str]:
        """Ids of the requests whose records lie in the spool."""
        segments = [read_segment(path.read_bytes()) for path in (self.home / "spool").glob("*.*")]
        return [record.request for segment in segments for record in segment.records]


def kill_all(process: SpawnedProcess) -> None:
    family = descendants(process.pid)
    assert len(family) == 2
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    process.kill()
    wait_gone(family)


async def load(lasting: Lasting, gateway: Gateway, requests: int) -> set[str]:
    """Ids of requests that were answered, all of which lie in the spool."""
    bodies: list[Json] = [
        {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": s} for s in (True, False)
    ]
    async with Crowd(gateway.port, KEY, bodies, callers=6) as crowd:
        await crowd.asked(requests)
    assert crowd.lost == []
    answered = {asked.request_id for asked in crowd.log}
    await eventually(lambda: answered <= set(lasting.spooled()), what="all records in the spool")
    return answered


async def counted(gateway: Gateway) -> int:
    return sum(hour["requests"] for hour in await hours_of(gateway, "fake"))


@live
async def test_what_was_spooled_when_everything_was_killed_is_counted_once(tmp_path: Path) -> None:
    async with UpstreamDouble(BRISK) as upstream:
        lasting = Lasting(tmp_path, upstream)
        with lasting.life() as first:
            answered = await load(lasting, first, 60)
            assert await counted(first) == 0
            kill_all(first.process)
        copies = tmp_path / "copies"
        shutil.copytree(lasting.home / "spool", copies)
        with lasting.life() as second:
            assert await counted(second) == len(answered)
            for request_id in answered:
                assert (await second.record(request_id))["outcome"] == "ok"
            assert lasting.spooled() == []
            # the same records once more, as if their segments had not been deleted in time
            for number, copy in enumerate(copies.iterdir()):
                copy.rename(lasting.home / "spool" / f"again-{number:08x}.closed")
            await eventually(lambda: lasting.spooled() == [], what="an empty spool")
            assert await counted(second) == len(answered)
            assert await second.metric("spillway_requests_total") == 0
        await upstream.quiet()


@live
async def test_a_deleted_database_is_made_anew_at_the_next_start_and_the_spool_fills_it(tmp_path: Path) -> None:
    async with UpstreamDouble(BRISK) as upstream:
        lasting = Lasting(tmp_path, upstream)
        with lasting.life() as first:
            for path in lasting.home.glob("spillway.db*"):
                path.unlink()
            answered = await load(lasting, first, 40)
            assert first.process.stop() == 0
            assert set(lasting.spooled()) == answered
        with lasting.life() as second:
            assert await counted(second) == len(answered)
            assert second.process.stop() == 0
        await upstream.quiet()


@live
async def test_the_end_of_the_parent_alone_is_the_end_of_its_workers_and_loses_nothing(tmp_path: Path) -> None:
    async with UpstreamDouble(BRISK) as upstream:
        lasting = Lasting(tmp_path, upstream)
        with lasting.life() as first:
            answered = await load(lasting, first, 30)
            family = descendants(first.process.pid)
            first.process.kill()
            await asyncio.to_thread(wait_gone, family)
        with lasting.life() as second:
            assert await counted(second) == len(answered)
        await upstream.quiet()
