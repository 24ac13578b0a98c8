"""What a right configuration means to the brain, the backends and the keyring."""

import math
from pathlib import Path

import msgspec
import pytest
from tests.config.texts import ENVIRON, GOOD, read

from spillway.config import Configuration, fixed_keys
from spillway.config.limits import DEFAULT_LIMIT, MAX_LIMIT, auto_limit
from spillway.core.ids import ModelName, OrganizationId, PolicyName, PoolName, TenantId
from spillway.core.priority import Priority
from spillway.quota.ledger import LedgerTimes
from spillway.quota.rules import Bounds, Owner, Quota
from spillway.store.terms import OrganizationTerms, TenantTerms
from spillway.traffic.fleet import Capacity, Slo, TokenShape, default_priorities

NEAR, FAR, NPC = PoolName("near"), PoolName("far"), ModelName("npc")
SEAL = b"s" * 32


def test_fleet() -> None:
    fleet = read(GOOD).fleet()
    near, far = fleet.pools[NEAR], fleet.pools[FAR]
    assert (near.cluster, near.endpoints, near.limit, near.rtt_s) == ("east", ("http://127.0.0.1:9101",), 32, 0.001)  # fmt: skip
    assert (far.cluster, far.endpoints, far.limit) == (None, ("https://example.invalid/v1",), DEFAULT_LIMIT)  # fmt: skip
    assert fleet.models[NPC].tiers == ((NEAR,), (FAR,))
    assert fleet.priorities == default_priorities()


def test_upstreams() -> None:
    near, far = read(GOOD).upstreams()
    assert (near.pool, near.model, near.version, near.api_key, near.probe_path) == (NEAR, "npc-1.9m", "npc-1.9m", None, "/health")  # fmt: skip
    assert (far.pool, far.endpoints, far.api_key) == (FAR, ("https://example.invalid/v1",), ENVIRON["HOSTED_KEY"])
    assert (far.probe_path, far.proxy) == (None, None)


def test_names_and_keys() -> None:
    configuration = read(GOOD)
    assert configuration.public_names() == {"npc": "npc", "npc-latest": "npc"}
    ((secret, principal),) = fixed_keys(configuration, SEAL).items()
    assert secret == ENVIRON["DEMO_KEY"].encode()
    assert (principal.tenant, principal.models, principal.highest_priority) == ("demo", {"npc"}, Priority.INTERACTIVE)
    assert fixed_keys(configuration, SEAL)[secret].key == principal.key
    assert fixed_keys(configuration, b"t" * 32)[secret].key != principal.key
    assert ENVIRON["DEMO_KEY"] not in principal.key


PEOPLE = """\
policies:
  home: {hosted: false}
plans:
  free: {tokens_per_minute: 6000, usd_per_day: 0.5, models: {npc: {in_flight: 2}}, each_user: {requests_per_minute: 6}}
organizations:
  acme: {plan: free, suspended: true}
tenants:
  demo: {organization: acme, policy: home, quota: {requests_per_day: 10}}
  other: {plan: free}
"""


def test_what_tenants_and_organizations_may_use() -> None:
    text = GOOD.replace("gateway:", "gateway:\n  default_plan: free\n  trusted_proxies: [10.0.0.0/8, '::1']") + PEOPLE
    text = text.replace("models: [npc-latest]}", "networks: [192.0.2.0/24]}")
    configuration = read(text)
    free = Quota(
        tokens_per_minute=6000,
        usd_per_day=0.5,
        models={NPC: Bounds(in_flight=2)},
        each_user=Bounds(requests_per_minute=6),
    )
    terms = configuration.terms()
    demo, acme, home = TenantId("demo"), OrganizationId("acme"), PolicyName("home")
    own = Quota(requests_per_day=10)
    assert terms.tenants[demo] == TenantTerms(None, own, None, acme, home)
    assert terms.organizations == {acme: OrganizationTerms("free", None, suspended=True)}
    assert (terms.plans, terms.default_plan) == ({"free": free}, "free")
    (principal,) = fixed_keys(configuration, SEAL).values()
    assert principal.owner == Owner(demo, acme, own, free)
    assert (principal.policy, principal.networks, principal.suspended) == (home, ("192.0.2.0/24",), True)


def test_the_seal_of_several_hosts_is_not_shown() -> None:
    secret = "5a" * 32
    text = GOOD.replace("gateway:", 'gateway:\n  key_secret: "${SEAL}"')
    configuration = read(text, {**ENVIRON, "SEAL": secret})
    assert configuration.gateway.key_secret == secret
    assert secret not in repr(configuration)


def test_how_often_hosts_speak_of_their_limits() -> None:
    assert read(GOOD + "shared: {times: {report_s: 0.2}}").shared.times == LedgerTimes(report_s=0.2)


def test_a_priority_keeps_the_defaults_that_are_not_given() -> None:
    priorities = read(GOOD + "priorities: {batch: {ceiling: 0.5}, realtime: {max_wait_s: 3}}").fleet().priorities
    defaults = default_priorities()
    assert priorities[Priority.BATCH] == msgspec.structs.replace(defaults[Priority.BATCH], ceiling=0.5)
    assert priorities[Priority.REALTIME] == msgspec.structs.replace(defaults[Priority.REALTIME], max_wait_s=3.0)
    assert priorities[Priority.INTERACTIVE] == defaults[Priority.INTERACTIVE]


def test_it_travels_to_the_workers() -> None:
    configuration = read(GOOD)
    sent = msgspec.msgpack.encode(configuration)
    assert msgspec.msgpack.decode(sent, type=Configuration) == configuration


def test_variables() -> None:
    text = GOOD.replace("model: small", 'model: "a$${b}-${NAME}-${NAME}"').replace("limit: 32", "limit: ${LIMIT}")
    configuration = read(text, {**ENVIRON, "NAME": "${DEMO_KEY}", "LIMIT": "7"})
    assert configuration.pools[FAR].model == "a${b}-${DEMO_KEY}-${DEMO_KEY}"
    assert configuration.pools[NEAR].limit == 7


@pytest.mark.parametrize(
    ("environ", "own", "expected"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "", "http://proxy:3128"),
        ({"https_proxy": "proxy:1", "HTTPS_PROXY": "proxy:2"}, "", "proxy:1"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other,.invalid"}, "", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "*"}, "", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "    proxy: direct\n", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "    proxy: http://u:p@mine:1\n", "http://u:p@mine:1"),
        ({}, "", None),
    ],
)
def test_proxy_of_hosted_pools(environ: dict[str, str], own: str, expected: str | None) -> None:
    text = GOOD.replace("    model: small\n", f"    model: small\n{own}")
    configuration = read(text, {**ENVIRON, **environ})
    assert configuration.pools[FAR].proxy == expected
    assert configuration.pools[NEAR].proxy is None


def test_file_names_are_relative_to_the_file(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (tmp_path / name).write_text("")
    text = GOOD.replace("gateway:", "gateway:\n  tls: {cert: cert.pem, key: key.pem}").replace(
        "    limit: 32", "    ca_file: ca.pem\n    probe_path: ''"
    )
    configuration = read(text, folder=tmp_path)
    assert configuration.gateway.tls is not None
    assert configuration.gateway.tls.cert == str(tmp_path.resolve() / "cert.pem")
    assert configuration.pools[NEAR].ca_file == str(tmp_path.resolve() / "ca.pem")
    assert configuration.pools[NEAR].probe_path is None


SHAPE = TokenShape(200, 81)
SLO = Slo(ttft_ms=1000, tpot_ms=50)  # 1 + 80 · 0.05 = 5 s


@pytest.mark.parametrize(
    ("capacity", "slos", "expected"),
    [
        (None, [SLO], DEFAULT_LIMIT),
        (Capacity(1.0, 0.1), [], DEFAULT_LIMIT),
        (Capacity(1.0, 0.1), [SLO], DEFAULT_LIMIT),  # no reference shape
        (Capacity(1.0, 0.1, reference=SHAPE), [SLO], 40),
        (Capacity(1.0, 0.1, reference=SHAPE), [SLO, Slo(ttft_ms=500, tpot_ms=25)], 15),
        (Capacity(1.0, 0.1, reference=SHAPE), [SLO, Slo(ttft_ms=500)], 40),
        (Capacity(1.0, 0.1, max_sequences=16, reference=SHAPE), [SLO], 16),
        (Capacity(1.0, 0.1, kv_tokens=2405, reference=SHAPE), [SLO], 10),
        (Capacity(9.0, 0.1, reference=SHAPE), [SLO], 1),  # the SLO cannot be met
        (Capacity(1.0, 0.0, reference=SHAPE), [SLO], DEFAULT_LIMIT),
        (Capacity(1.0, 1e-12, reference=SHAPE), [SLO], MAX_LIMIT),
        (Capacity(1.0, 0.1, max_sequences=48), [], 48),
    ],
)
def test_limit_auto(capacity: Capacity | None, slos: list[Slo], expected: int) -> None:
    assert auto_limit(capacity, slos) == expected
    assert math.isfinite(expected)
