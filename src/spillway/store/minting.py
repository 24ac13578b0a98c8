"""Keys are made here: a secret is shown once, what is kept is a digest that is keyed with a secret of this home.

Without `HOME/key.secret` a stolen database does not even let a guessed key be checked.
"""

import contextlib
import os
from hashlib import blake2b
from pathlib import Path

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.core.ids import KeyId, ModelName, TenantId, random_word
from spillway.core.priority import Priority
from spillway.core.rng import Rng
from spillway.store.rows import KeyRow

SECRET_WORD_CHARACTERS = 40  # of 5 bits: 200 random bits
SEAL_BYTES = 32
LONGEST_LIFE_S = 100 * 365 * 86_400.0  # of a key that expires: its end must still be a date


def digest_of(secret: bytes, seal: bytes) -> bytes:
    """BLAKE2b keyed with `seal`, 32 bytes. Not a slow hash: the secret itself has 200 random bits."""
    return blake2b(secret, key=seal, digest_size=32).digest()


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
) -> tuple[KeyRow, str]:
    """A new key and its secret, which exists nowhere else."""
    secret = f"sk-{random_word(rng, SECRET_WORD_CHARACTERS)}"
    row = row_for(
        secret, seal, key=KeyId(f"key_{random_word(rng, 12)}"), now_s=now_s, tenant=tenant, name=name, models=models,
        highest_priority=highest_priority, expires_at_s=expires_at_s,
    )  # fmt: skip
    return row, secret


def row_for(
    secret: str,
    seal: bytes,
    *,
    key: KeyId,
    now_s: Seconds,
    tenant: TenantId,
    name: str = "",
    models: frozenset[ModelName] | None = None,
    highest_priority: Priority = Priority.INTERACTIVE,
    expires_at_s: Seconds | None = None,
) -> KeyRow:
    """The row of a secret that was made elsewhere (a key in the configuration file)."""
    return KeyRow(
        id=key,
        digest=digest_of(secret.encode(), seal),
        tenant=tenant,
        name=name,
        models=models,
        highest_priority=highest_priority,
        created_at_s=now_s,
        expires_at_s=expires_at_s,
        revoked_at_s=None,
        last4=secret[-4:],
    )


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
