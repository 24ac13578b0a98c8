"""Secrets are long, shown once, and kept only as a digest that needs this home's seal."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from spillway.core.errors import ConfigError, StoreError
from spillway.core.ids import KeyId, TenantId
from spillway.store.minting import digest_of, load_seal, mint, row_for
from spillway.store.opening import sqlite_path
from spillway.testing.rng import SeededRng


def test_a_minted_key_keeps_no_secret() -> None:
    row, secret = mint(SeededRng(1), b"s" * 32, now_s=5.0, tenant=TenantId("acme"), name="ci")
    word = secret.removeprefix("sk-")
    assert len(word) * 5 >= 160
    assert secret.encode() not in msgspec.msgpack.encode(row)
    assert word[:-4] not in repr(row)
    assert row.last4 == secret[-4:]
    assert row.digest == digest_of(secret.encode(), b"s" * 32)
    assert row.digest != digest_of(secret.encode(), b"t" * 32)
    assert row.created_at_s == 5.0
    again, _ = mint(SeededRng(2), b"s" * 32, now_s=5.0, tenant=TenantId("acme"))
    assert again.id != row.id


def test_a_configured_secret_gets_the_same_digest() -> None:
    row = row_for("sk-demo", b"s" * 32, key=KeyId("demo"), now_s=1.0, tenant=TenantId("acme"))
    assert (row.id, row.digest, row.last4) == ("demo", digest_of(b"sk-demo", b"s" * 32), "demo")


def test_the_seal_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    seal = load_seal(home, SeededRng(1))
    assert len(seal) == 32
    assert load_seal(home, SeededRng(2)) == seal
    assert stat.S_IMODE((home / "key.secret").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["key.secret"]


def test_many_at_once_get_the_same_seal(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        seals = set(threads.map(load_seal, [tmp_path] * 32, map(SeededRng, range(32))))
    assert len(seals) == 1


def test_a_seal_that_others_may_read_or_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.secret"
    load_seal(tmp_path, SeededRng(1))
    path.chmod(0o644)
    with pytest.raises(StoreError, match="read by others"):
        load_seal(tmp_path, SeededRng(1))
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(StoreError, match="32 bytes"):
        load_seal(tmp_path, SeededRng(1))
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError):
        load_seal(tmp_path, SeededRng(1))


def test_store_urls(tmp_path: Path) -> None:
    assert sqlite_path("sqlite:spillway.db", tmp_path) == tmp_path / "spillway.db"
    assert sqlite_path("sqlite:/srv/s.db", tmp_path) == Path("/srv/s.db")
    for url in ("postgresql://h/d", "spillway.db", "sqlite:", "sqlite:///srv/s.db"):
        with pytest.raises(ConfigError, match="sqlite:PATH"):
            sqlite_path(url, tmp_path)
