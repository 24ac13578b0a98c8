"""`spillway key`: what it prints, and that it refuses what it cannot understand."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from spillway.cli.key import duration_s
from spillway.cli.main import main
from spillway.core.errors import UsageError
from spillway.store.minting import digest_of, load_seal
from spillway.testing.rng import SeededRng

Spillway = Callable[..., tuple[int, str, str]]


@pytest.fixture
def key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Spillway:
    """Runs `spillway key …` on a home of its own: exit status, stdout, stderr."""

    def run(action: str, *words: str) -> tuple[int, str, str]:
        status = main(["key", action, *words, "--home", str(tmp_path / "home")])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def test_a_key_is_created_listed_and_revoked(key: Spillway, tmp_path: Path) -> None:
    status, out, _ = key(
        "create", "--tenant", "acme", "--name", "ci", "--models", "npc, quest", "--priority", "realtime",
        "--expires-in", "30d", "--json",
    )  # fmt: skip
    created = json.loads(out)
    assert status == 0
    secret = created.pop("secret")
    assert secret.startswith("sk-")
    assert created["models"] == ["npc", "quest"]
    assert created["priority"] == "realtime"
    assert created["expires_at_s"] - created["created_at_s"] == 30 * 86_400
    listed = json.loads(key("list", "--json")[1])
    assert listed == {"keys": [created]}
    assert json.loads(key("list", "--tenant", "other", "--json")[1]) == {"keys": []}
    assert secret not in key("list")[1]
    assert key("revoke", created["id"])[0] == 0
    assert json.loads(key("list", "--json")[1]) == {"keys": []}
    assert "revoked" in key("list", "--all")[1]
    home = tmp_path / "home"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    content = b"".join(path.read_bytes() for path in home.iterdir())
    assert secret.encode() not in content
    digest = digest_of(secret.encode(), load_seal(home, SeededRng(0)))
    assert digest is not None
    assert digest in content


def test_without_json_the_secret_alone_is_on_stdout(key: Spillway) -> None:
    status, out, err = key("create", "--tenant", "acme")
    assert status == 0
    assert out.startswith("sk-")
    assert out.count("\n") == 1
    assert "acme" in err


def test_looking_at_keys_makes_no_database(key: Spillway, tmp_path: Path) -> None:
    for words in (("list",), ("revoke", "key_none")):
        status, _, err = key(*words)
        assert (status, "no database" in err) == (2, True)
    assert not (tmp_path / "home").exists()


def test_a_provider_s_secret_is_not_needed(key: Spillway, tmp_path: Path) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text(
        "pools: {hosted: {provider: openai, base_url: 'https://example.invalid/v1', api_key: '${NOWHERE_SET}', model: m}}\n"
        "models: {small: {tiers: [[hosted]]}}\n"
    )
    status, out, err = key("create", "--tenant", "acme", "--models", "small", "--config", str(file))
    assert (status, out[:3]) == (0, "sk-"), err


def test_an_unknown_key_cannot_be_revoked(key: Spillway) -> None:
    key("create", "--tenant", "acme")
    assert key("revoke", "key_none")[0] == 1
    status, out, _ = key("revoke", "key_none", "--json")
    assert (status, json.loads(out)) == (1, {"id": "key_none", "revoked": False})


@pytest.mark.parametrize(
    "words",
    [
        ["--tenant", ""],
        ["--tenant", "two words"],
        ["--tenant", "acme", "--models", ","],
        ["--tenant", "acme", "--expires-in", "soon"],
        ["--tenant", "acme", "--expires-in", "999999w"],
    ],
)
def test_what_cannot_be_understood_is_status_2(key: Spillway, words: list[str]) -> None:
    status, out, err = key("create", *words)
    assert (status, out) == (2, "")
    assert "spillway key: " in err


def test_a_configuration_says_where_the_store_is_and_which_models_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spillway.yaml"
    file.write_text(
        f"""
gateway: {{home: "{tmp_path / "from-file"}"}}
store: {{url: "sqlite:other.db"}}
clusters: {{east: {{}}}}
pools: {{npc@east: {{cluster: east, endpoints: ["http://127.0.0.1:9"], model: m, limit: 1}}}}
models: {{npc: {{tiers: [[npc@east]], aliases: [npc-latest]}}}}
"""
    )
    words = ["key", "create", "--config", str(file), "--tenant", "acme", "--json", "--models"]
    assert main([*words, "npc-latest"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == ["npc"]
    assert (tmp_path / "from-file" / "other.db").exists()
    assert main([*words, "no-such"]) == 2
    assert "no-such" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_durations(text: str, seconds: int) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "0d", "-1d", "1.5h", "30", "30 d", "9999999d", "٣d"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        duration_s(text)
