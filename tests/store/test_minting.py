"""Secrets are long, shown once, and kept only as a digest that needs this home's seal."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import ConfigError, StoreError
from spillway.core.ids import TenantId
from spillway.store.minting import (
    CHECK_CHARACTERS,
    RANDOM_CHARACTERS,
    digest_of,
    fingerprint_of,
    load_seal,
    mint,
    new_secret,
    seal_of,
)
from spillway.store.opening import sqlite_path
from spillway.testing.rng import SeededRng

SEAL = b"s" * 32


def test_a_minted_key_keeps_no_secret() -> None:
    row, secret = mint(SeededRng(1), SEAL, now_s=5.0, tenant=TenantId("acme"), name="ci")
    assert len(secret) == len("sk-") + RANDOM_CHARACTERS + CHECK_CHARACTERS
    assert RANDOM_CHARACTERS * 5 >= 160
    kept = msgspec.msgpack.encode(row)
    assert secret.encode() not in kept
    assert secret[:-CHECK_CHARACTERS].encode() not in kept
    assert secret[3:-CHECK_CHARACTERS] not in repr(row)
    assert row.last4 == secret[-4:]
    assert row.digest == digest_of(secret.encode(), SEAL)
    assert len(row.digest) == 32
    assert row.created_at_s == 5.0
    again, _ = mint(SeededRng(2), SEAL, now_s=5.0, tenant=TenantId("acme"))
    assert again.id != row.id


def test_a_secret_that_was_not_made_with_this_seal_is_known_by_itself() -> None:
    secret, digest = new_secret(SeededRng(1), SEAL)
    assert digest_of(secret.encode(), SEAL) == digest
    assert digest_of(secret.encode(), b"t" * 32) is None


@given(st.integers(0, 42), st.binary(min_size=1, max_size=1))
def test_one_wrong_character_is_enough(place: int, other: bytes) -> None:
    secret = new_secret(SeededRng(1), SEAL)[0].encode()
    changed = secret[:place] + other + secret[place + 1 :]
    assert (digest_of(changed, SEAL) is None) == (changed != secret)


@given(st.one_of(st.binary(max_size=64), st.text(max_size=64).map(lambda text: f"sk-{text}".encode())))
def test_what_is_made_up_is_no_secret(made_up: bytes) -> None:
    assert digest_of(made_up, SEAL) is None


def test_seals_of_several_hosts_come_from_the_configuration(tmp_path: Path) -> None:
    assert seal_of("5a" * 32, tmp_path, SeededRng(1)) == b"\x5a" * 32
    assert list(tmp_path.iterdir()) == []
    assert seal_of(None, tmp_path, SeededRng(1)) == load_seal(tmp_path, SeededRng(2))
    for wrong in ("5a" * 31, "5a" * 33, "zz" * 32, ""):
        with pytest.raises(ConfigError, match="64 hex digits") as raised:
            seal_of(wrong, tmp_path, SeededRng(1))
        assert not wrong or wrong not in str(raised.value)


def test_fingerprints_tell_seals_apart_and_nothing_of_them() -> None:
    assert fingerprint_of(SEAL) == fingerprint_of(SEAL) != fingerprint_of(b"t" * 32)
    assert fingerprint_of(SEAL) not in SEAL


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
    assert sqlite_path("postgresql://h/d", tmp_path) is None
    for url in ("spillway.db", "sqlite:", "sqlite:///srv/s.db", "mysql://h/d"):
        with pytest.raises(ConfigError, match="sqlite:PATH"):
            sqlite_path(url, tmp_path)
    with pytest.raises(ConfigError, match="postgresql://") as found:
        sqlite_path("postgresql:secret", tmp_path)
    assert "secret" not in str(found.value)
