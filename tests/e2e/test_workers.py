"""Several workers: shares of a limit, sums of what they count, one that dies, all that are replaced one by one."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from spillway.testing.processes import ProcessError, descendants, started, wait_gone
from spillway.testing.seen import Seen
from spillway.testing.spec import UpstreamSpec
from spillway.testing.waiting import eventually
from tests.e2e.crowd import Asked, Crowd
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, free_port, live, running, write_config
from tests.e2e.sockets import peers_of
from tests.e2e.talking import Json

pytestmark = pytest.mark.server

BRISK = UpstreamSpec(time_to_first_token_s=0.01, inter_token_latency_s=0.002, output_tokens=8)
RESTARTED = "the workers were restarted"
SETTLED_S = 0.15  # a slice of 50 ms, and a loop on a busy machine


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({"workers": 2, "drain_s": 5.0}) as started:
        yield started


def workers_of(gateway: Gateway) -> set[int]:
    """Process ids. The parent has no other children."""
    return set(descendants(gateway.process.pid))


def bodies_of(fleet: Fleet) -> list[Json]:
    return [fleet.body(), fleet.body(stream=True)]


async def replaced(gateway: Gateway, old: set[int], *, deadline_s: float = 15.0) -> None:
    """Until two workers that are none of `old` serve, and `old` are gone."""

    async def there() -> bool:
        pids = workers_of(gateway)
        shown = await gateway.admin("GET", "/admin/v1/pools")
        return len(pids) == 2 and not pids & old and shown.json["workers"] == 2

    async with asyncio.timeout(deadline_s):
        while not await there():
            await asyncio.sleep(0.05)


def most_at_once(requests: list[Seen]) -> int:
    moments = [(seen.arrived_s, 1) for seen in requests]
    moments += [(seen.ended_s, -1) for seen in requests if seen.ended_s is not None]
    running_now, most = 0, 0
    for _, change in sorted(moments):
        running_now += change
        most = max(most, running_now)
    return most


@live
async def test_a_limit_is_shared_out_and_what_workers_count_is_summed(gateway: Gateway) -> None:
    spec = UpstreamSpec(time_to_first_token_s=0.1, output_tokens=4)
    rules: Json = {"priorities": {"realtime": {"max_wait_s": 15}}}
    async with gateway.fleet(Site("here", spec, limit=5), rules=rules) as fleet:
        await fleet.shows("here", "limit", 5)
        answers = await asyncio.gather(*(fleet.ask(service_tier="priority") for _ in range(24)))
        assert [answer.status for answer in answers] == [200] * 24
        # one worker alone has a share of at most 3, and the two together never more than 5
        assert most_at_once(fleet["here"].log.requests) == 5
        await fleet.shows("here", "in_flight", 0)
        async with asyncio.timeout(5.0):
            while await gateway.metric("spillway_requests_total", model=fleet.model) < 24:
                await asyncio.sleep(0.02)
        assert await gateway.metric("spillway_requests_total", model=fleet.model, outcome="ok") == 24


@live
async def test_a_worker_that_is_killed_takes_only_its_own_requests_along(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        old = workers_of(gateway)
        counts: list[float] = []

        async def watch() -> None:
            while True:
                counts.append(await gateway.metric("spillway_requests_total"))
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        async with Crowd(gateway.port, KEY, bodies_of(fleet), callers=12) as crowd:
            await crowd.asked(60)
            await eventually(lambda: all(peers_of(pid, gateway.port) & crowd.ports for pid in old), what="both serve")
            victim = min(old)
            theirs = peers_of(victim, gateway.port)
            os.kill(victim, signal.SIGKILL)
            await crowd.asked(30)
            await replaced_one(gateway, victim)
            before = len(crowd.log)
            await crowd.asked(100)
        watching.cancel()
        died = [asked for asked in crowd.lost if asked.status == 0 or not asked.complete]
        assert crowd.lost == died, crowd.lost
        assert {asked.local_port for asked in died} <= theirs, (died, theirs)
        assert len(died) <= len(theirs)
        assert all(asked.fine for asked in crowd.log[before:])
        assert counts == sorted(counts), "a counter went back"
        await accounted(gateway, fleet, crowd.log, theirs)


async def replaced_one(gateway: Gateway, dead: int) -> None:
    async with asyncio.timeout(5.0):
        while True:
            pids = workers_of(gateway)
            shown = await gateway.admin("GET", "/admin/v1/pools")
            if len(pids) == 2 and dead not in pids and shown.json["workers"] == 2:
                return
            await asyncio.sleep(0.02)


async def accounted(gateway: Gateway, fleet: Fleet, log: list[Asked], of_the_dead: set[int]) -> None:
    """Each answer has one record, but for those that a killed worker gave in its last moments."""
    fine = [asked for asked in log if asked.fine]
    last_words_s = max((asked.finished_at_s for asked in fine if asked.local_port in of_the_dead), default=0.0)
    sure = [a for a in fine if a.local_port not in of_the_dead or a.finished_at_s < last_words_s - SETTLED_S]
    for asked in sure:
        record = await gateway.record(asked.request_id)
        assert record["outcome"] == "ok"
        assert record["streamed"] == asked.stream
    usage = await gateway.admin("GET", "/admin/v1/usage?by=pool&limit=1000")
    counted = sum(hour["requests"] for hour in usage.json["hours"] if hour["model"] == fleet.model)
    assert len(sure) <= counted <= len(fine)


@live
async def test_a_rolling_restart_drops_no_request(gateway: Gateway) -> None:
    slow = UpstreamSpec(time_to_first_token_s=0.01, inter_token_latency_s=0.02, output_tokens=8, max_num_seqs=64)
    async with gateway.fleet(Site("here", slow)) as fleet:
        old = workers_of(gateway)
        bodies = [fleet.body(), fleet.body(stream=True), fleet.body(), fleet.body(stream=True, max_tokens=100)]
        async with Crowd(gateway.port, KEY, bodies, callers=16) as crowd:
            await crowd.asked(100)
            gateway.process.signal(signal.SIGUSR2)
            await replaced(gateway, old)
            await crowd.asked(200)
        assert crowd.lost == []
        assert len(crowd.log) >= 300
        gateway_counts = await gateway.metric("spillway_requests_total", model=fleet.model, outcome="ok")
        async with asyncio.timeout(5.0):
            while gateway_counts < len(crowd.log):
                await asyncio.sleep(0.05)
                gateway_counts = await gateway.metric("spillway_requests_total", model=fleet.model, outcome="ok")
        assert gateway_counts == len(crowd.log)


@live
async def test_restarts_that_come_at_once_are_done_one_after_the_other(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        old = workers_of(gateway)
        async with Crowd(gateway.port, KEY, bodies_of(fleet), callers=8) as crowd:
            restarts = gateway.process.stderr.count(RESTARTED)
            for _ in range(2):
                gateway.process.signal(signal.SIGUSR2)
                await crowd.asked(5)
            await eventually(
                lambda: gateway.process.stderr.count(RESTARTED) == restarts + 2, deadline_s=20.0, what="two restarts"
            )
            assert len(workers_of(gateway)) == 2
            assert not workers_of(gateway) & old
            await crowd.asked(50)
        assert crowd.lost == []


@live
async def test_a_restart_whose_worker_cannot_start_leaves_the_old_one_serving(gateway: Gateway) -> None:
    authorities = gateway.folder / "authorities.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(authorities))
    site = Site(
        "there", settings={"provider": "openai", "base_url": "https://127.0.0.1:9/v1", "ca_file": authorities.name}
    )
    async with gateway.fleet(Site("here", BRISK), site) as fleet:
        old = workers_of(gateway)
        authorities.unlink()
        gateway.process.signal(signal.SIGUSR2)
        await asyncio.to_thread(gateway.process.wait_for, "the rolling restart is given up")
        await eventually(lambda: workers_of(gateway) == old, what="the old workers alone")
        assert (await fleet.ask()).status == 200
        assert gateway.process.exit_status is None
        authority.cert_pem.write_to_path(str(authorities))
        gateway.process.signal(signal.SIGUSR2)
        await replaced(gateway, old)
        assert (await fleet.ask()).status == 200


@live
async def test_a_reload_under_load_brings_what_is_new_and_harms_nothing(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK, limit=40), Site("spare", BRISK)) as fleet:
        here, spare = fleet.pool("here"), fleet.pool("spare")
        async with Crowd(gateway.port, KEY, bodies_of(fleet), callers=8) as crowd:
            await crowd.asked(30)
            pools = {**gateway.config["pools"], here: {**gateway.config["pools"][here], "limit": 30}}
            pools["another"] = pools[spare]
            models = {**gateway.config["models"], "newcomer": {"tiers": [["another"]]}}
            gateway.config |= {"pools": pools, "models": models}
            write_config(gateway.folder, gateway.config)
            gateway.process.signal(signal.SIGHUP)
            await fleet.shows("here", "limit", 30)
            await crowd.asked(30)
            async with asyncio.timeout(5.0):
                while (answer := await fleet.ask(model="newcomer")).status == 404:
                    await asyncio.sleep(0.02)
            assert answer.headers["x-spillway-pool"] == "another"
            await crowd.asked(30)
        assert crowd.lost == []


@live
async def test_a_bad_file_changes_nothing_and_says_why(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        async with Crowd(gateway.port, KEY, bodies_of(fleet), callers=4) as crowd:
            await crowd.asked(10)
            write_config(gateway.folder, {**gateway.config, "models": {fleet.model: {"tiers": [["nowhere"]]}}})
            answer = await gateway.admin("POST", "/admin/v1/reload")
            assert answer.status == 200
            assert "nowhere" in answer.json["error"]
            assert "spillway.yaml:" in answer.json["error"]
            await crowd.asked(20)
            assert (await gateway.get(f"/v1/models/{fleet.model}")).status == 200
            garbage = gateway.folder / "garbage.pem"
            garbage.write_text("no certificate")
            pool = {"model": "m", "provider": "openai", "base_url": "https://127.0.0.1:9/v1", "ca_file": garbage.name}
            write_config(gateway.folder, {**gateway.config, "pools": {**gateway.config["pools"], "other": pool}})
            answer = await gateway.admin("POST", "/admin/v1/reload")
            assert "garbage.pem" in answer.json["error"]
            await gateway.configure({})
        assert crowd.lost == []


@live
async def test_a_change_of_the_file_is_noticed_by_itself(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK, limit=8)) as fleet:
        pool = {**gateway.config["pools"][fleet.pool("here")], "limit": 3}
        write_config(gateway.folder, {**gateway.config, "pools": {fleet.pool("here"): pool}})
        await fleet.shows("here", "limit", 3)


@pytest.mark.parametrize("pause_s", [0.0, 0.2, 0.5])
def test_a_stop_in_the_middle_of_a_restart_ends_everything(pause_s: float) -> None:
    with running({"workers": 2}) as gateway:
        seen = workers_of(gateway)
        gateway.process.signal(signal.SIGUSR2)
        with contextlib.suppress(ProcessError):
            gateway.process.wait_for(RESTARTED, deadline_s=pause_s)
        seen |= workers_of(gateway)
        gateway.process.signal(signal.SIGTERM)
        assert gateway.process.wait(deadline_s=15.0) == 0
        wait_gone([*seen], deadline_s=1.0)
        assert descendants(gateway.process.pid) == []


@live
async def test_workers_that_die_again_and_again_are_replaced_again_and_again(gateway: Gateway) -> None:
    async with gateway.fleet(Site("here", BRISK)) as fleet:
        for _ in range(3):
            victim = min(workers_of(gateway))
            os.kill(victim, signal.SIGKILL)
            await replaced_one(gateway, victim)
        answers = await asyncio.gather(*(fleet.ask() for _ in range(12)))
        assert [answer.status for answer in answers] == [200] * 12


def test_a_port_is_not_shared_with_another_gateway(gateway: Gateway, tmp_path: Path) -> None:
    for taken in ("listen", "admin"):
        settings: Json = {"listen": "127.0.0.1:0", "admin": f"127.0.0.1:{free_port()}", "home": str(tmp_path / "home")}
        settings[taken] = f"127.0.0.1:{gateway.port if taken == 'listen' else gateway.admin_port}"
        path = write_config(tmp_path, {"gateway": settings, "clusters": {}, "pools": {}, "models": {}})
        with started("serve", "--config", str(path)) as process:
            assert process.wait() == 2
            assert "Address already in use" in process.stderr
            assert settings[taken] in process.stderr


@live
async def test_a_worker_that_hangs_is_replaced(gateway: Gateway) -> None:
    old = workers_of(gateway)
    hung = min(old)
    os.kill(hung, signal.SIGSTOP)
    await replaced(gateway, {hung}, deadline_s=25.0)
    assert hung not in workers_of(gateway)


@live
async def test_who_comes_while_it_drains_is_refused_at_once() -> None:
    """The last word to a connection is an answer or a refusal, never a reset after waiting in a queue that nobody empties."""
    with running({}) as one:
        async with one.fleet(Site("east", UpstreamSpec(inter_token_latency_s=0.05))) as fleet, fleet.talk() as talk:
            talk.send(fleet.request(stream=True, max_tokens=30))
            async with asyncio.timeout(10.0):
                while not fleet["east"].log.requests:
                    await asyncio.sleep(0.01)
            one.process.signal(signal.SIGTERM)
            async with asyncio.timeout(5.0):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
                    except ConnectionRefusedError:
                        break
                    writer.close()
                    await asyncio.sleep(0.02)
            assert (await talk.answer()).body.endswith(b"data: [DONE]\n\n")
