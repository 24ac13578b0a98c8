"""Keys are made here: a secret is shown once, what is kept is a digest that is keyed with a secret of this home.

A secret is `sk-`, 32 random characters, and 8 that prove it: one keyed hash of what comes before them gives both these 8 and the
digest. So whoever makes a secret up is found out by one hash, without a look-up. Without the seal a stolen database does not even
let a guessed key be checked.
"""

import contextlib
import os
from hashlib import blake2b
from hmac import compare_digest
from itertools import product
from pathlib import Path

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError, StoreError
from spillway.core.ids import KeyId, ModelName, PolicyName, TenantId, random_word
from spillway.core.priority import Priority
from spillway.core.rng import Rng
from spillway.store.rows import KeyRow

PREFIX = "sk-"
PASS_PREFIX = b"pass-"
RANDOM_CHARACTERS = 32  # of 5 bits
CHECK_CHARACTERS = 8  # of 5 bits: of 10¹² made-up secrets one costs a look-up
SEAL_BYTES = 32
LONGEST_LIFE_S = 100 * 365 * 86_400.0  # of a key that expires: its end must still be a date
_CHECK_BYTES = CHECK_CHARACTERS * 5 // 8
_DIGEST_BYTES = 32
_PAIRS = [bytes(pair) for pair in product(b"abcdefghijklmnopqrstuvwxyz234567", repeat=2)]
"""Base 32, ten bits at a time: half the cost of the library's on the way of a made-up key."""
_SECRET_CHARACTERS = len(PREFIX) + RANDOM_CHARACTERS + CHECK_CHARACTERS


def digest_of(secret: bytes, seal: bytes) -> bytes | None:
    """What a secret that was made here is kept as; None: it was not made with this seal. Not a slow hash: a secret has 160 random bits.
    A pass is as good as the secret that it stands for."""
    if len(secret) != _SECRET_CHARACTERS:
        return _passed(secret, seal) if secret.startswith(PASS_PREFIX) else None
    check, digest = _sealed(secret[:-CHECK_CHARACTERS], seal)
    return digest if compare_digest(secret[-CHECK_CHARACTERS:], check) else None


def new_secret(rng: Rng, seal: bytes) -> tuple[str, bytes]:
    """A secret, and its digest."""
    proven = f"{PREFIX}{random_word(rng, RANDOM_CHARACTERS)}"
    check, digest = _sealed(proven.encode(), seal)
    return proven + check.decode(), digest


def pass_of(name: bytes, seal: bytes) -> bytes:
    """What a batch worker shows in a key's place. `name`: the hex digits of a key's digest, or the id of a key of the configuration."""
    return b"%b%b.%b" % (
        PASS_PREFIX,
        name,
        blake2b(name, key=seal, person=b"pass", digest_size=16).hexdigest().encode(),
    )


def _passed(secret: bytes, seal: bytes) -> bytes | None:
    name, _, _ = secret[len(PASS_PREFIX) :].rpartition(b".")
    if len(name) != 2 * _DIGEST_BYTES or not compare_digest(secret, pass_of(name, seal)):
        return None
    return bytes.fromhex(name.decode("ascii"))


def _sealed(proven: bytes, seal: bytes) -> tuple[bytes, bytes]:
    sealed = blake2b(proven, key=seal, digest_size=_CHECK_BYTES + _DIGEST_BYTES).digest()
    bits = int.from_bytes(sealed[:_CHECK_BYTES])
    check = _PAIRS[bits >> 30] + _PAIRS[bits >> 20 & 1023] + _PAIRS[bits >> 10 & 1023] + _PAIRS[bits & 1023]
    return check, sealed[_CHECK_BYTES:]


def mint(
    rng: Rng,
    seal: bytes,
    *,
    now_s: Seconds,
    tenant: TenantId,
    name: str = "",
    models: frozenset[ModelName] | None = None,
    highest_priority: Priority = Priority.INTERACTIVE,
    expires_at_s: Seconds | None = None,
    policy: PolicyName | None = None,
    networks: tuple[str, ...] = (),
) -> tuple[KeyRow, str]:
    """A new key and its secret, which exists nowhere else."""
    secret, digest = new_secret(rng, seal)
    row = KeyRow(
        id=KeyId(f"key_{random_word(rng, 12)}"),
        digest=digest,
        tenant=tenant,
        name=name,
        models=models,
        highest_priority=highest_priority,
        created_at_s=now_s,
        expires_at_s=expires_at_s,
        revoked_at_s=None,
        last4=secret[-4:],
        policy=policy,
        networks=networks,
    )
    return row, secret


def fingerprint_of(seal: bytes) -> bytes:
    """Tells seals apart without telling anything of them."""
    return blake2b(b"fingerprint", key=seal, digest_size=16).digest()


def seal_of(configured: str | None, home: Path, rng: Rng) -> bytes:
    """The seal: what the configuration says (64 hex digits, for several hosts with one database), else that of `HOME/key.secret`."""
    if configured is None:
        return load_seal(home, rng)
    try:
        seal = bytes.fromhex(configured)
    except ValueError:
        seal = b""
    if len(seal) != SEAL_BYTES:
        raise ConfigError(f"gateway.key_secret must be {SEAL_BYTES * 2} hex digits")
    return seal


def load_seal(home: Path, rng: Rng) -> bytes:
    """The 32 bytes of `HOME/key.secret`, made with mode 0600 when there are none. Two processes get the same ones.

    StoreError where the file cannot be used, or others may read it.
    """
    path = home / "key.secret"
    try:
        if not path.exists():
            _make_seal(path, rng)
        status, seal = path.stat(), path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path.name}: {error.strerror or error}") from error
    if len(seal) != SEAL_BYTES:
        raise StoreError(f"{path.name} must hold {SEAL_BYTES} bytes, it holds {len(seal)}")
    if status.st_mode & 0o077:
        raise StoreError(f"{path.name} may be read by others: chmod 600 it, and think of new keys")
    return seal


def _make_seal(path: Path, rng: Rng) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".key.secret.{random_word(rng, 12)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, rng.token_bytes(SEAL_BYTES))
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):  # another process was first: its bytes count
            os.link(draft, path)
    finally:
        os.close(descriptor)
        draft.unlink()
