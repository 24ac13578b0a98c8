"""Where a request may be served, how urgent it may be, and what the brain is told of it: on real sockets."""

import asyncio
from collections.abc import Iterator

import pytest

from spillway.gateway.replay import replay
from spillway.testing.spec import UpstreamSpec
from spillway.testing.waiting import eventually
from tests.e2e.gateway import TENANT, Gateway, Site, live, running
from tests.e2e.talking import Json, Talk, request

pytestmark = pytest.mark.server

INTERACTIVE_KEY = "sk-e2e-interactive-0123456789"
HOSTED: Json = {"provider": "openai", "price": {"input_usd_per_mtok": 1000.0, "output_usd_per_mtok": 1000.0}}
SLOW = UpstreamSpec(inter_token_latency_s=1.0)
FULL: Json = {"priorities": {name: {"max_wait_s": 0.1} for name in ("realtime", "interactive", "batch")}}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({"journal": {}, "workers": 1}) as started:
        yield started


def of_tenant(policy: Json) -> Json:
    return FULL | {"policies": {"strict": policy}, "tenants": {TENANT: {"policy": "strict"}}}


POLICIES: list[Json] = [{"hosted": False}, {"residency": ["eu"]}, {"tiers": 1}, {"max_usd": 0.0001}]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("whose", ["tenant", "model"])
@live
async def test_a_policy_keeps_requests_at_home_when_home_is_full(gateway: Gateway, policy: Json, whose: str) -> None:
    sites = (Site("east", limit=0, settings={"residency": ["eu"]}), Site("west", settings=HOSTED))
    own = of_tenant(policy) if whose == "tenant" else FULL | {"policies": {}, "tenants": {}}
    async with gateway.fleet(*sites, rules=own, model={"policy": policy} if whose == "model" else None) as fleet:
        answer = await fleet.ask()
        assert answer.status in (429, 503)
        assert fleet["west"].log.arrived == 0


@live
async def test_without_a_policy_the_same_request_spills(gateway: Gateway) -> None:
    sites = (Site("east", limit=0), Site("west", settings=HOSTED))
    async with gateway.fleet(*sites, rules=FULL | {"policies": {}, "tenants": {}}) as fleet:
        assert (await fleet.ask()).headers["x-spillway-pool"] == fleet.pool("west")


@live
async def test_a_request_that_no_pool_may_serve_is_told_so(gateway: Gateway) -> None:
    async with gateway.fleet(Site("west", settings=HOSTED), rules=of_tenant({"max_usd": 0.0001})) as fleet:
        answer = await fleet.ask()
        assert (answer.status, answer.error["code"]) == (403, "no_pool_allowed")
        assert "policy" in answer.error["message"]
        assert fleet["west"].log.arrived == 0


@live
async def test_a_hop_takes_tiers_away_and_gives_nothing(gateway: Gateway) -> None:
    sites = (Site("east", limit=0), Site("west"))
    async with gateway.fleet(*sites, rules=FULL | {"policies": {}, "tenants": {}}) as fleet:
        for value in ("1", "7", "nonsense", "-1"):
            assert (await fleet.ask(headers={"x-spillway-hops": value})).status in (429, 503)
        assert fleet["west"].log.arrived == 0
        assert (await fleet.ask(headers={"x-spillway-hops": "0"})).status == 200


@pytest.mark.parametrize(
    ("header", "tier", "priority"),
    [
        (None, None, "interactive"),
        (None, "flex", "batch"),
        (None, "priority", "interactive"),  # capped by the key
        ("realtime", None, "interactive"),
        ("batch", "priority", "batch"),
        ("URGENT!!", "flex", "interactive"),
        (None, "nonsense", "interactive"),
    ],
)
@live
async def test_who_may_be_how_urgent(gateway: Gateway, header: str | None, tier: str | None, priority: str) -> None:
    keys: list[Json] = [{"secret": INTERACTIVE_KEY, "tenant": TENANT, "priority": "interactive"}]
    async with gateway.fleet(Site("east"), rules={"policies": {}, "tenants": {}}, keys=keys) as fleet:
        body = fleet.body(**({} if tier is None else {"service_tier": tier}))
        async with Talk(gateway.port) as talk:
            headers = {} if header is None else {"x-priority": header}
            talk.send(request(body, key=INTERACTIVE_KEY, headers=headers))
            answer = await talk.answer()
        assert answer.status == 200
        assert (await gateway.record(answer.headers["x-request-id"]))["priority"] == priority


@live
async def test_the_journal_of_a_real_worker_has_the_same_effects_again(gateway: Gateway) -> None:
    sites = (Site("east", limit=2, rules=("500:count=2", "reset:count=2")), Site("west", limit=2))
    async with gateway.fleet(*sites, rules={"policies": {}, "tenants": {}}) as fleet:
        answers = await asyncio.gather(*(fleet.ask(stream=turn % 2 == 0) for turn in range(24)))
        assert {answer.status for answer in answers} <= {200, 429, 502, 503}
    [journal] = (gateway.home / "journal").glob("*.jsonl")
    await eventually(lambda: journal.read_bytes().count(b"\n") > 60, what="the journal")
    with journal.open("rb") as lines:
        result = replay(lines)
    assert result.differing == ()
    assert result.events > 60


@live
async def test_what_others_send_to_an_engine_is_seen(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", SLOW, limit=8), rules={"policies": {}, "tenants": {}}) as fleet:
        port = int(fleet["east"].url.rpartition(":")[2])
        async with Talk(port) as one, Talk(port) as two, Talk(port) as three:
            for other in (one, two, three):
                other.send(request(fleet.body(model="fake", stream=True), key=None))
            status = await fleet.shows("east", "foreign", 3.0)
        assert (status["in_flight"], status["limit"], status["configured_limit"]) == (0, 8, 8)
        assert status["endpoints"][0]["foreign"] == 3.0
