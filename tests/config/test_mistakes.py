"""Each mistake in a configuration is reported with the line and the column where it stands, and all of them at once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.texts import ENVIRON, GOOD, problems, read

from spillway.config import InvalidConfigurationError, load
from spillway.config.document import MAX_BYTES
from spillway.core.errors import ConfigError


def test_the_text_without_mistakes() -> None:
    assert problems(GOOD) == ()


MISTAKES = [
    # old, replacement, line, column, path, words
    ("    limit: 32", "    limit: -3", 10, 12, "pools.near.limit", "expected an integer ≥ 0 or 'auto', found -3"),
    ("    limit: 32", "    limit: many", 10, 12, "pools.near.limit", "found \"many\""),
    ("    limit: 32", "    limit: 1.5", 10, 12, "pools.near.limit", "found 1.5"),
    ("    limit: 32", "    limit: true", 10, 12, "pools.near.limit", "found true"),
    ("    limit: 32", "    limit: [1]", 10, 12, "pools.near.limit", "found a list"),
    ("    limit: 32", "    limit: {a: 1}", 10, 12, "pools.near.limit", "found a mapping"),
    ("    limit: 32", "    limit:", 10, 11, "pools.near.limit", "found nothing"),
    ("    limit: 32", "    limit: '32'", 10, 12, "pools.near.limit", "found \"32\""),
    ("    limit: 32", "    limits: 32", 10, 5, "pools.near.limits", "unknown key; did you mean 'limit'?"),
    ("    limit: 32", "    zzz: 32", 10, 5, "pools.near.zzz", "unknown key; known are model, version"),
    ("    limit: 32", "    model: again", 10, 5, "pools.near.model", "is there twice, first in line 9"),
    ("    limit: 32", "    version: a b", 10, 14, "pools.near.version", "a name of 1 to 128 visible ASCII characters"),
    ("    limit: 32", "    version: " + "v" * 129, 10, 14, "pools.near.version", "a name of 1 to 128"),
    ("    limit: 32", "    capacity: {x_s: 1}", 10, 5, "pools.near.capacity.y_s", "is missing"),
    ("    limit: 32", "    capacity: {x_s: -1, y_s: 1}", 10, 21, "pools.near.capacity.x_s", "expected a number ≥ 0, found -1"),
    ("    limit: 32", "    capacity: {x_s: 1e999, y_s: 1}", 10, 21, "pools.near.capacity.x_s", "found inf"),
    ("    limit: 32", "    capacity: {x_s: 1, y_s: 1, max_sequences: 0}", 6, 3, "pools.near", "max_sequences 0 is less than 1"),
    ("    limit: 32", "    price: {input_usd_per_mtok: -1}", 10, 33, "pools.near.price.input_usd_per_mtok", "≥ 0"),
    ("    limit: 32", "    proxy: socks5://user:pw@x:1", 10, 12, "pools.near.proxy", "a proxy is given as http://host:port"),
    ("    limit: 32", "    probe_path: health", 10, 17, "pools.near.probe_path", "a path begins with /"),
    ("    limit: 32", "    ca_file: no.pem", 10, 14, "pools.near.ca_file", "there is no file 'no.pem'"),
    ("    limit: 32", "    base_url: http://a", 10, 5, "pools.near.base_url", "belongs to a hosted pool"),
    ("    limit: 32", "    provider: openai", 6, 3, "pools.near", "either a cluster or a provider"),
    ("    cluster: east\n", "", 6, 3, "pools.near", "either a cluster or a provider"),
    ("    cluster: east", "    cluster: eats", 7, 14, "pools.near.cluster", "there is no cluster 'eats'; there is east"),
    ("    model: npc-1.9m\n", "", 6, 3, "pools.near.model", "is missing"),
    ('["http://127.0.0.1:9101"]', "[]", 8, 16, "pools.near.endpoints", "at least one endpoint"),
    ('["http://127.0.0.1:9101"]', '"http://a"', 8, 16, "pools.near.endpoints", "expected a list, found \"http://a\""),
    ('["http://127.0.0.1:9101"]', "[http://a, http://a/]", 8, 27, "pools.near.endpoints[1]", "is there twice"),
    ('["http://127.0.0.1:9101"]', "[http://a, ftp://b]", 8, 27, "pools.near.endpoints[1]", "expected http://HOST[:PORT][/PATH]"),
    ('["http://127.0.0.1:9101"]', "['http://a:99999']", 8, 17, "pools.near.endpoints[0]", "expected http://"),
    ('["http://127.0.0.1:9101"]', "['http://:80']", 8, 17, "pools.near.endpoints[0]", "expected http://"),
    ('["http://127.0.0.1:9101"]', "['http://a?b=c']", 8, 17, "pools.near.endpoints[0]", "without ? and #"),
    ('["http://127.0.0.1:9101"]', "['http://a b']", 8, 17, "pools.near.endpoints[0]", "visible ASCII"),
    ('["http://127.0.0.1:9101"]', "['http://me:pw@a']", 8, 17, "pools.near.endpoints[0]", "must not hold a user"),
    ("    provider: openai", "    provider: azure", 12, 15, "pools.far.provider", "expected 'openai', found \"azure\""),
    ('    base_url: "https://example.invalid/v1/"\n', "", 11, 3, "pools.far.base_url", "is missing: a hosted pool needs it"),
    ("    model: small", "    model: small\n    endpoints: [http://a]", 16, 5, "pools.far.endpoints", "a hosted pool has a base_url"),
    ("${HOSTED_KEY}", "${NO_SUCH}", 14, 14, "pools.far.api_key", "the environment variable NO_SUCH is not set"),
    ("${HOSTED_KEY}", "${not a name}", 14, 14, "pools.far.api_key", "must be followed by a name"),
    ("[[near], [far]]", "[[near], [fare]]", 18, 22, "models.npc.tiers[1][0]", "there is no pool 'fare'; there are far, near"),
    ("[[near], [far]]", "[[near], [near]]", 18, 22, "models.npc.tiers[1][0]", "the pool 'near' is there twice"),
    ("[[near], [far]]", "[[near], []]", 18, 21, "models.npc.tiers[1]", "a tier needs at least one pool"),
    ("[[near], [far]]", "[]", 18, 12, "models.npc.tiers", "a model needs at least one tier"),
    ("[[near], [far]]", "[near, far]", 18, 13, "models.npc.tiers[0]", "expected a list, found \"near\""),
    ("    tiers: [[near], [far]]\n", "", 17, 3, "models.npc.tiers", "is missing"),
    ("[npc-latest]", "[npc]", 19, 15, "models.npc.aliases[0]", "the name 'npc' already means 'npc'"),
    ("tenant: demo,", "", 21, 5, "keys[0].tenant", "is missing"),
    ("models: [npc-latest]", "models: [np]", 21, 52, "keys[0].models[0]", "there is no model 'np'; there is npc"),
    ("models: [npc-latest]", "priority: high", 21, 53, "keys[0].priority", "one of realtime, interactive, batch"),
    ("${DEMO_KEY}", "short", 21, 14, "keys[0].secret", "expected text of 16 to 512 characters, found another value (not shown)"),
    ("keys:\n", "keys:\n  - {secret: '${DEMO_KEY}', tenant: x}\n", 22, 14, "keys[1].secret", "another key has the same secret"),
    ('listen: "127.0.0.1:0"', "listen: 8080", 2, 11, "gateway.listen", "expected an address HOST:PORT, found 8080"),
    ('listen: "127.0.0.1:0"', "listen: 127.0.0.1:70000", 2, 11, "gateway.listen", "a port is at most 65535"),
    ('listen: "127.0.0.1:0"', "workers: 0", 2, 12, "gateway.workers", "expected an integer ≥ 1 and ≤ 256, found 0"),
    ('listen: "127.0.0.1:0"', "drain_s: -1", 2, 12, "gateway.drain_s", "expected a number ≥ 0, found -1"),
    ('listen: "127.0.0.1:0"', "expose_pools: on", 2, 17, "gateway.expose_pools", "expected true or false, found \"on\""),
    ('listen: "127.0.0.1:0"', "timeouts: {sweep_s: 0}", 2, 23, "gateway.timeouts.sweep_s", "expected a number > 0, found 0"),
    ('listen: "127.0.0.1:0"', "limits: 3", 2, 11, "gateway.limits", "expected a mapping with keys such as max_head_bytes"),
    ('listen: "127.0.0.1:0"', "tls: {cert: a.pem, key: b.pem}", 2, 15, "gateway.tls.cert", "there is no file 'a.pem'"),
    ("clusters:", "store: {url: 'postgresql:x/y'}\nclusters:", 3, 14, "store.url", "expected postgresql://"),
    ("clusters:", "store: {url: 'sqlite://x'}\nclusters:", 3, 14, "store.url", "expected sqlite:PATH"),
    ("clusters:", "shared: {url: 'http://x'}\nclusters:", 3, 15, "shared.url", "expected redis://"),
    ("clusters:", "shared: {url: 'redis://x/y'}\nclusters:", 3, 15, "shared.url", "expected redis://"),
    ("clusters:", "shared: {times: {grace_s: 1.9}}\nclusters:", 3, 27, "shared.times.grace_s", "report_s and timeout_s"),
    ("clusters:", "shared: {times: {stop_s: 60}}\nclusters:", 3, 10, "shared.times.forget_s", "stop_s and timeout_s"),
    ("clusters:", "priorities: {realtime: {ceiling: 2}}\nclusters:", 3, 34, "priorities.realtime.ceiling", "> 0 and ≤ 1, found 2"),
    ("clusters:", "priorities: {realtime: {ceiling: 0.1}}\nclusters:", 3, 1, "priorities.interactive", "above that of a more urgent"),
    ("clusters:", "priorities: {realtime: {ceiling: 0}}\nclusters:", 3, 34, "priorities.realtime.ceiling", "> 0 and ≤ 1, found 0"),
    ("    limit: 32", "    limit: 32\n    own_share: 0", 11, 16, "pools.near.own_share", "> 0 and ≤ 1, found 0"),
    ("    limit: 32", "    limit: 32\n    own_share: 1.5", 11, 16, "pools.near.own_share", "> 0 and ≤ 1, found 1.5"),
    ("    aliases: [npc-latest]", "    aliases: [npc-latest]\n    policy: {residency: [eu]}", 17, 3, "models.npc", "its policy refuses every pool"),
    ("    aliases: [npc-latest]", "    aliases: [npc-latest]\n    policy: {tiers: 0}", 17, 3, "models.npc", "tiers 0 is less than 1"),
    ("clusters:", "policies: {p: {residency: [eu]}}\nclusters:", 3, 12, "policies.p", "refuses every pool of every model"),
    ("clusters:", "tenants: {demo: {policy: none}}\nclusters:", 3, 26, "tenants.demo.policy", "there is no policy 'none'"),
    ("clusters:", "tenants: {demo: {plan: gold}}\nclusters:", 3, 24, "tenants.demo.plan", "there is no plan 'gold'; there are no plans"),
    ("clusters:", "plans: {free: {}}\norganizations: {o: {plan: fre}}\nclusters:", 4, 27, "organizations.o.plan", "there is no plan 'fre'; there is free"),
    ("clusters:", "tenants: {demo: {quota: {tokens_per_minute: -1}}}\nclusters:", 3, 45, "tenants.demo.quota.tokens_per_minute", "≥ 0 and ≤ 1e+15, found -1"),
    ("clusters:", "tenants: {demo: {quota: {usd_per_day: 1e9}}}\nclusters:", 3, 39, "tenants.demo.quota.usd_per_day", "≥ 0 and ≤ 5e+06"),
    ("clusters:", "plans: {p: {tokens_per_min: 1}}\nclusters:", 3, 13, "plans.p.tokens_per_min", "did you mean 'tokens_per_minute'?"),
    ("clusters:", "plans: {p: {models: {npx: {}}}}\nclusters:", 3, 27, "plans.p.models.npx", "there is no model 'npx'; there is npc"),
    ("clusters:", "plans: {p: {models: {npc-latest: {}}}}\nclusters:", 3, 22, "plans.p.models.npc-latest", "is another name of 'npc'"),
    ("clusters:", "organizations: {o: {quota: {each_user: {}}}}\nclusters:", 3, 29, "organizations.o.quota.each_user", "the organization's tenants"),
    ("clusters:", "tenants: {t: {suspended: maybe}}\nclusters:", 3, 26, "tenants.t.suspended", "expected true or false"),
    ('listen: "127.0.0.1:0"', "default_plan: free", 2, 17, "gateway.default_plan", "there is no plan 'free'"),
    ('listen: "127.0.0.1:0"', "trusted_proxies: [10.0.0.1/8]", 2, 21, "gateway.trusted_proxies[0]", "has host bits set"),
    ('listen: "127.0.0.1:0"', "trusted_proxies: [proxy]", 2, 21, "gateway.trusted_proxies[0]", "a network such as 10.0.0.0/8"),
    ('listen: "127.0.0.1:0"', "key_secret: '${DEMO_KEY}'", 2, 15, "gateway.key_secret", "64 hex digits, found another value (not shown)"),
    ("models: [npc-latest]", "networks: ['::/200']", 21, 54, "keys[0].networks[0]", "no network: "),
    ("models: [npc-latest]", "policy: strict", 21, 51, "keys[0].policy", "there is no policy 'strict'"),
    ("clusters:", "shared: {times: {report_s: -1}}\nclusters:", 3, 28, "shared.times.report_s", "≥ 0, found -1"),
    ("    aliases: [npc-latest]", "    aliases: [npc-latest, b]\n  b:\n    tiers: [[near]]\n    aliases: [npc]", 19, 27, "models.npc.aliases[1]", "the name 'b' already means 'b'"),
    ("    aliases: [npc-latest]", "    aliases: [x]\n  b:\n    tiers: [[near]]\n    aliases: [x]", 22, 15, "models.b.aliases[0]", "the name 'x' already means 'npc'"),
    ('listen: "127.0.0.1:0"', "gauges: {interval_s: 1}", 2, 24, "gateway.gauges.interval_s", "≥ 2, found 1"),
    ('listen: "127.0.0.1:0"', "gauges: {path: metrics}", 2, 18, "gateway.gauges.path", "a path begins with /"),
    ("clusters:", "retries: {attempts: 0}\nclusters:", 3, 21, "retries.attempts", "less than 1"),
    ("clusters:", "breaker: {max_open_s: 1}\nclusters:", 3, 23, "breaker.max_open_s", "less than breaker.open_s"),
    ("clusters:", "telemetry: {access_log_share: 2}\nclusters:", 3, 31, "telemetry.access_log_share", "≥ 0 and ≤ 1"),
    ("clusters:", "telemetry: {trace: {otlp_url: x}}\nclusters:", 3, 31, "telemetry.trace.otlp_url", "expected http://"),
    ("clusters:", "bogus: 1\nclusters:", 3, 1, "bogus", "unknown key; known are gateway, store"),
    ("  near:\n", "  ne ar:\n", 6, 3, "pools.ne ar", "the key must be a name of 1 to 128"),
    ("  near:\n", "  ? [a]\n  : 1\n  near:\n", 6, 5, "pools", "a key must be text"),
    ("clusters:", "clusters: &x", 0, 0, "", ""),  # an anchor alone is harmless
    ("    limit: 32", "    limit: *x", 10, 12, "", "aliases are not taken"),
    ("    limit: 32", "    limit: !!int 32", 10, 12, "", "tags are not taken"),
    ("    limit: 32", "    limit: [", 12, 13, "", "not YAML: "),
    ("    limit: 32", "   limit: 32", 10, 4, "", "not YAML: "),
    ("clusters:", "---\nclusters:", 3, 1, "", "one document only"),
    ("    limit: 32", "    limit: " + "[" * 40 + "]" * 40, 10, 41, "", "nested deeper than 32"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "replacement", "line", "column", "path", "words"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))]
)
def test_one_mistake(old: str, replacement: str, line: int, column: int, path: str, words: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, replacement, 1)
    found = problems(text)
    if not line:
        assert found == ()
        return
    first = next((problem for problem in found if words in problem.message), None)
    assert first is not None, found
    assert (first.file, first.line, first.column, first.path) == ("spillway.yaml", line, column, path)
    assert str(first).startswith(f"spillway.yaml:{line}:{column}: {path}")
    assert len(found) <= 2
    shown = " ".join(map(str, found))
    assert not any(secret in shown for secret in [*ENVIRON.values(), "pw"])


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = GOOD
    for old, replacement in (
        ("limit: 32", "limt: 32"),
        ("cluster: east", "cluster: west"),
        ("provider: openai", "provider: other"),
        ("tenant: demo", "tenant: 5"),
        ("[[near], [far]]", "[[near], [nowhere]]"),
    ):
        text = text.replace(old, replacement)
    with pytest.raises(ConfigError) as caught:
        read(text)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "pools.near.cluster", "pools.near.limt", "pools.far.provider", "models.npc.tiers[1][0]", "keys[0].tenant",
    ]  # fmt: skip


def test_a_part_that_is_wrong_is_not_called_missing() -> None:
    """The pool is dropped, but the model that names it is not blamed for that."""
    assert [one.path for one in problems(GOOD.replace("    model: small", "    model: 7"))] == ["pools.far.model"]


def test_a_secret_is_never_shown() -> None:
    text = GOOD.replace("model: small", 'model: ["${HOSTED_KEY}"]').replace("limit: 32", 'limit: "${HOSTED_KEY}"')
    text = text.replace("provider: openai", 'provider: "${HOSTED_KEY}"')
    shown = " ".join(map(str, problems(text)))
    assert "not shown" in shown
    assert ENVIRON["HOSTED_KEY"] not in shown
    assert ENVIRON["HOSTED_KEY"] not in repr(read(GOOD))
    assert ENVIRON["DEMO_KEY"] not in repr(read(GOOD))


@pytest.mark.parametrize(
    ("text", "words"),
    [("[1]", "expected a mapping"), ("text", "expected a mapping"), ("x" * (MAX_BYTES + 1), "larger than"), ("a: \x01", "not YAML")],
    ids=range(4),
)  # fmt: skip
def test_what_is_no_configuration_at_all(text: str, words: str) -> None:
    assert [words in str(problem) for problem in problems(text)] == [True]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"gateway: \xff")
    for name, words in (("none.yaml", "No such file"), ("latin.yaml", "not UTF-8"), (".", "directory")):
        with pytest.raises(InvalidConfigurationError, match=words):
            load(tmp_path / name, {})


def test_an_empty_file_is_all_defaults() -> None:
    for text in ("", "# nothing", "gateway:\npools:\nkeys: []\n", "{}"):
        assert read(text).gateway.listen == "127.0.0.1:8080"


words = st.sampled_from(
    [word for line in GOOD.splitlines() for word in line.replace(":", " : ").split()]
    + ["*", "&a", "!x", "${", "\t", "-", "?"]
)


@given(
    st.lists(
        st.one_of(words, st.sampled_from(["\n", "\n  ", " ", ": ", "- ", "[", "]", "{", "}"]), st.text(max_size=3)),
        max_size=40,
    )
)
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    for text in ("".join(pieces), GOOD + "".join(pieces), "pools:\n  near:\n    " + "".join(pieces)):
        assert all(problem.message for problem in problems(text))


def test_a_file_that_is_too_large_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text(GOOD + "# " + "é" * (MAX_BYTES // 2))
    assert len(file.read_text()) < MAX_BYTES
    with pytest.raises(InvalidConfigurationError, match="larger than"):
        load(file, ENVIRON)
