"""Load moves: to the next tier, into the waiting room, or back to the client with the time to come again."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

import pytest

from spillway.testing.spec import UpstreamSpec
from spillway.testing.waiting import eventually
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, live, running
from tests.e2e.talking import Answer, Talk, request

pytestmark = pytest.mark.server

HOLDS = ("no_response",)
BATCH_KEY = "sk-e2e-batch-0123456789"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as started:
        yield started


@contextlib.asynccontextmanager
async def held(fleet: Fleet, site: str) -> AsyncGenerator[Talk]:
    """A request that `site` has taken and does not answer; its slot is free again when the block is left."""
    before = fleet[site].log.arrived
    async with fleet.talk() as talk:
        talk.send(fleet.request())
        await fleet.arrived(site, before + 1)
        yield talk


def waits_told(answer: Answer) -> tuple[int, int]:
    """retry-after in seconds and retry-after-ms."""
    return int(answer.headers["retry-after"]), int(answer.headers["retry-after-ms"])


@live
async def test_a_full_home_spills_to_the_next_tier_and_says_so(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", limit=1, rules=HOLDS), Site("west")) as fleet:
        async with held(fleet, "east"):
            answer = await fleet.ask()
        assert answer.status == 200
        assert answer.headers["x-spillway-pool"] == fleet.pool("west")
        assert answer.headers["x-spillway-spill"] == "saturated"
        assert answer.headers["x-spillway-attempts"] == "1"
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["pool"], record["spilled"], record["attempts"]) == (fleet.pool("west"), True, 1)
        spilled = {"model": fleet.model, "from": fleet.pool("east"), "to": fleet.pool("west"), "reason": "saturated"}
        await gateway.counts(1, "spillway_spilled_total", **spilled)


@live
async def test_what_home_serves_does_not_say_spilled(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east"), Site("west")) as fleet:
        answer = await fleet.ask()
        assert answer.headers["x-spillway-pool"] == fleet.pool("east")
        assert answer.headers["x-spillway-version"] == "fake"
        assert "x-spillway-spill" not in answer.headers
        assert 0.0 <= float(answer.headers["x-spillway-overhead-ms"]) < 1000.0


@live
async def test_where_all_tiers_are_full_a_request_waits_and_gets_the_next_slot(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", limit=1, rules=("no_response:count=1",))) as fleet, fleet.talk() as waiting:
        async with held(fleet, "east"):
            waiting.send(fleet.request())
            await queued(fleet, 1)
        answer = await waiting.answer()
        assert answer.status == 200
        assert float(answer.headers["x-spillway-overhead-ms"]) < 200.0  # waiting is not overhead
        assert fleet["east"].log.arrived == 2


async def queued(fleet: Fleet, count: int) -> None:
    """Until so many requests wait at the gateway."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5.0
    while await waiting_for(fleet) != count:
        assert loop.time() < deadline, f"not {count} in the waiting room"
        await asyncio.sleep(0.02)


async def waiting_for(fleet: Fleet) -> int:
    answer = await fleet.gateway.admin("GET", "/admin/v1/pools")
    return sum(queue["waiting"] for queue in answer.json["queues"] if queue["model"] == fleet.model)


@live
async def test_who_waited_in_vain_is_told_when_to_come_back(gateway: Gateway) -> None:
    rules = {"priorities": {"interactive": {"max_wait_s": 0.3}}}
    async with gateway.fleet(Site("east", limit=1, rules=HOLDS), rules=rules) as fleet:
        async with held(fleet, "east"):
            answer = await fleet.ask()
        assert answer.status == 429
        assert answer.error["code"] == "rate_limit_exceeded"
        seconds, milliseconds = waits_told(answer)
        assert 1 <= seconds <= 120
        assert (seconds - 1) * 1000 <= milliseconds <= seconds * 1000
        assert "x-should-retry" not in answer.headers
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["outcome"], record["attempts"], record["prompt_tokens"]) == ("evicted", 0, 0)
        assert fleet["east"].log.arrived == 1


@pytest.mark.parametrize("bound", [{"max_requests": 1}, {"max_bytes": 150}])
@live
async def test_the_waiting_room_is_bounded(gateway: Gateway, bound: dict[str, int]) -> None:
    async with gateway.fleet(Site("east", limit=1, rules=HOLDS), rules={"waiting_room": bound}) as fleet:
        async with held(fleet, "east"), fleet.talk() as waiting:
            waiting.send(fleet.request())
            await queued(fleet, 1)
            answer = await fleet.ask()
            assert await waiting_for(fleet) == 1
        assert answer.status == 429
        assert waits_told(answer)[0] >= 1


@pytest.mark.parametrize("fault", ["503", "429:retry_after_s=5", "500", "reset", "malformed_http", "huge_header"])
@live
async def test_an_upstream_that_cannot_is_replaced_unseen(gateway: Gateway, fault: str) -> None:
    async with gateway.fleet(Site("east", rules=(fault,)), Site("west")) as fleet:
        for stream in (False, True):
            answer = await fleet.ask(stream=stream)
            assert answer.status == 200
            assert answer.headers["x-spillway-pool"] == fleet.pool("west")
        assert fleet["west"].log.arrived == 2


@live
async def test_an_upstream_that_is_full_gets_nothing_until_its_time_is_over(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", rules=("429:retry_after_s=1:count=1",)), Site("west")) as fleet:
        first = await fleet.ask()
        assert (first.headers["x-spillway-attempts"], first.headers["x-spillway-spill"]) == ("2", "failed")
        second = await fleet.ask()
        assert (second.headers["x-spillway-attempts"], second.headers["x-spillway-spill"]) == ("1", "saturated")
        assert fleet["east"].log.arrived == 1
        await served_by(fleet, "east")


async def served_by(fleet: Fleet, site: str) -> Answer:
    """Asks until `site` serves."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 8.0
    while (answer := await fleet.ask()).headers.get("x-spillway-pool") != fleet.pool(site):
        assert loop.time() < deadline, f"{site} serves nobody"
        await asyncio.sleep(0.02)
    return answer


@live
async def test_where_every_upstream_says_full_the_client_hears_429_and_its_time(gateway: Gateway) -> None:
    busy = ("429:retry_after_s=8",)
    rules = {"priorities": {"interactive": {"max_wait_s": 0.5}}}
    async with gateway.fleet(Site("east", rules=busy), Site("west", rules=busy), rules=rules) as fleet:
        answer = await fleet.ask()
        assert answer.status == 429
        assert answer.error["type"] == "rate_limit_error"
        assert 7 <= waits_told(answer)[0] <= 11
        again = await fleet.ask()
        assert again.status == 429
        assert waits_told(again)[0] >= 6
        assert fleet["east"].log.arrived == fleet["west"].log.arrived == 1


@live
async def test_the_breaker_opens_probes_and_closes(gateway: Gateway) -> None:
    rules = {"breaker": {"failures": 3, "open_s": 0.3}}
    async with gateway.fleet(Site("east", rules=("reset",)), Site("west"), rules=rules) as fleet:
        for _ in range(3):
            assert (await fleet.ask()).headers["x-spillway-spill"] == "failed"
        answer = await fleet.ask()
        assert (answer.headers["x-spillway-spill"], answer.headers["x-spillway-attempts"]) == ("unhealthy", "1")
        assert fleet["east"].log.arrived == 3
        await fleet.shows("east", "breaker", "open")
        fleet["east"].behave()
        await served_by(fleet, "east")
        await fleet.shows("east", "breaker", "closed")


@live
async def test_a_probe_that_fails_takes_an_endpoint_out_before_a_request_finds_out(gateway: Gateway) -> None:
    probed = {"probe_path": "/health"}
    async with gateway.fleet(
        Site("east", settings=probed, rules=("500:path=/health",)), Site("west"), rules={"breaker": {"failures": 1}}
    ) as fleet:
        await fleet.shows("east", "breaker", "open")
        answer = await fleet.ask()
        assert (answer.headers["x-spillway-spill"], answer.headers["x-spillway-attempts"]) == ("unhealthy", "1")
        assert fleet["east"].log.arrived == 0


@live
async def test_operators_drain_an_endpoint_and_give_it_back(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east"), Site("west")) as fleet:
        change = {"url": fleet["east"].url, "draining": True}
        assert (await gateway.admin("PUT", "/admin/v1/endpoints/draining", change)).status == 204
        await served_by(fleet, "west")
        await fleet.shows("east", "endpoints", [{**change, "breaker": "closed", "in_flight": 0, "foreign": 0.0}])
        assert (await gateway.admin("PUT", "/admin/v1/endpoints/draining", {**change, "draining": False})).status == 204
        await served_by(fleet, "east")
        unknown = await gateway.admin("PUT", "/admin/v1/endpoints/draining", {**change, "url": "http://other:1"})
        assert unknown.status == 404
        assert unknown.error["message"] == "There is no such endpoint."


@live
async def test_draining_lets_what_runs_finish(gateway: Gateway) -> None:
    slow = UpstreamSpec(inter_token_latency_s=0.02, output_tokens=20)
    async with gateway.fleet(Site("east", slow), Site("west")) as fleet, fleet.talk() as talk:
        talk.send(fleet.request(stream=True))
        answer = await talk.head()
        await gateway.admin("PUT", "/admin/v1/endpoints/draining", {"url": fleet["east"].url, "draining": True})
        await served_by(fleet, "west")
        while await talk.more():
            pass
        assert answer.events[-1] == "[DONE]"


@live
async def test_operators_override_a_limit_and_give_it_back(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", limit=5), Site("west")) as fleet:
        path = f"/admin/v1/pools/{fleet.pool('east')}/limit"
        assert (await gateway.admin("PUT", path, {"limit": 0})).status == 204
        assert (await served_by(fleet, "west")).headers["x-spillway-spill"] == "saturated"
        await fleet.shows("east", "limit", 0)
        assert (await gateway.admin("PUT", path, {"limit": None})).status == 204
        await served_by(fleet, "east")
        await fleet.shows("east", "limit", 5)
        assert (await gateway.admin("PUT", path, {"limit": -1})).error["param"] == "limit"
        assert (await gateway.admin("PUT", path, {"limit": "many"})).status == 400
        assert (await gateway.admin("PUT", path, {"limit": 1, "more": 1})).status == 400
        assert (await gateway.admin("PUT", "/admin/v1/pools/none/limit", {"limit": 1})).status == 404


@live
async def test_a_lower_limit_holds_for_what_runs_already(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", limit=2, rules=HOLDS), Site("west")) as fleet:
        async with held(fleet, "east"):
            await gateway.admin("PUT", f"/admin/v1/pools/{fleet.pool('east')}/limit", {"limit": 1})
            await fleet.shows("east", "limit", 1)
            answer = await fleet.ask()
            assert answer.headers["x-spillway-pool"] == fleet.pool("west")
        assert fleet["east"].log.arrived == 1


@live
async def test_nothing_is_tried_again_once_the_client_has_something(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", rules=("cut:3",)), Site("west")) as fleet:
        answer = await fleet.ask(stream=True)
        assert answer.status == 200
        assert answer.cut
        assert fleet["west"].log.arrived == 0
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["outcome"], record["attempts"], record["estimated"]) == ("cut", 1, True)
        whole = await fleet.ask()
        assert (whole.status, whole.headers["x-spillway-spill"]) == (200, "failed")
        assert fleet["west"].log.arrived == 1


@pytest.mark.parametrize(
    ("fault", "code"), [("context_length_exceeded", "context_length_exceeded"), ("content_filter", "content_filter")]
)
@live
async def test_the_requests_own_fault_is_not_carried_to_another_pool(gateway: Gateway, fault: str, code: str) -> None:
    async with gateway.fleet(Site("east", rules=(fault,)), Site("west")) as fleet:
        for stream in (False, True):
            answer = await fleet.ask(stream=stream)
            assert answer.status == 400
            assert answer.error["code"] == code
        assert fleet["west"].log.arrived == 0
        await fleet.shows("east", "breaker", "closed")


@live
async def test_attempts_end_and_each_is_at_another_endpoint(gateway: Gateway) -> None:
    sites = [Site(name, rules=("reset",)) for name in ("east", "west", "north", "south")]
    async with gateway.fleet(*sites) as fleet:
        answer = await fleet.ask()
        assert answer.status == 502
        assert answer.error["code"] == "upstream_error"
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-spillway-attempts"] == "3"
        assert [fleet[site.name].log.arrived for site in sites] == [1, 1, 1, 0]
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["outcome"], record["attempts"]) == ("upstream_error", 3)


@live
async def test_retries_have_a_budget(gateway: Gateway) -> None:
    rules = {"retries": {"budget_floor": 2, "budget_share": 0.0}, "breaker": {"failures": 1000}}
    async with gateway.fleet(Site("east", rules=("500",)), Site("west"), rules=rules) as fleet:
        statuses = [(await fleet.ask()).status for _ in range(5)]
        assert statuses == [200, 200, 502, 502, 502]
        assert fleet["west"].log.arrived == 2


@live
async def test_a_dead_endpoint_is_left_for_the_next(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east"), Site("west")) as fleet:
        fleet["east"].refuse_connections()
        answer = await fleet.ask()
        assert (answer.status, answer.headers["x-spillway-spill"]) == (200, "failed")


@live
async def test_urgent_work_may_fill_what_background_work_may_not(gateway: Gateway) -> None:
    keys = [{"secret": BATCH_KEY, "tenant": "night", "priority": "batch"}]
    rules = {"priorities": {"realtime": {"ceiling": 1.0}, "interactive": {"ceiling": 0.5}, "batch": {"ceiling": 0.25}}}
    async with gateway.fleet(Site("east", limit=4, rules=HOLDS), Site("west"), keys=keys, rules=rules) as fleet:
        async with contextlib.AsyncExitStack() as stack:

            async def ask_for(tier: str, key: str) -> Talk:
                talk = await stack.enter_async_context(fleet.talk())
                talk.send(request(fleet.body(service_tier=tier), key=key))
                return talk

            first = await ask_for("priority", BATCH_KEY)  # capped by what the key may: batch
            await fleet.arrived("east", 1)
            spilled = [await (await ask_for("priority", BATCH_KEY)).answer()]
            await ask_for("default", KEY)
            await fleet.arrived("east", 2)
            await ask_for("default", KEY)  # above its ceiling: batch yields, and goes where there is room
            await fleet.arrived("east", 3)
            spilled.append(await first.answer())
            spilled.append(await (await ask_for("default", KEY)).answer())
            await ask_for("priority", KEY)
            await ask_for("priority", KEY)
            await fleet.arrived("east", 5)
            assert {answer.headers["x-spillway-pool"] for answer in spilled} == {fleet.pool("west")}
        await eventually(lambda: not fleet["east"].log.open, what="a quiet upstream")


@live
async def test_the_traces_of_callers_go_on_to_the_upstream(gateway: Gateway) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with gateway.fleet(Site("east")) as fleet:
        await fleet.ask(headers={"traceparent": trace})
        await fleet.ask(headers={"traceparent": "00-nonsense"})
        await fleet.ask()
        seen = [request.header("traceparent") for request in fleet["east"].log.requests]
        assert seen == [trace, None, None]


@live
async def test_a_request_has_one_id_everywhere(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", rules=("500:count=1",)), Site("west")) as fleet:
        answer = await fleet.ask(headers={"x-request-id": "their-own-id"})
        [first], [second] = fleet["east"].log.requests, fleet["west"].log.requests
        assert first.request_id == second.request_id == answer.headers["x-request-id"]
        assert first.header("x-client-request-id") == "their-own-id"
        odd = await fleet.ask(headers={"x-request-id": "spaces and {braces}"})
        assert fleet["east"].log.requests[-1].header("x-client-request-id") is None
        assert odd.headers["x-request-id"] not in ("spaces and {braces}", answer.headers["x-request-id"])
        assert (await gateway.record(answer.headers["x-request-id"]))["attempts"] == 2
