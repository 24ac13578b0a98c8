"""The home directory belongs to one gateway at a time: two would answer for one ledger, and rewrite each other's files."""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from spillway.core.errors import ConfigError


@contextlib.contextmanager
def owned(home: Path) -> Generator[None, None, None]:
    """Makes the directory where it is missing and holds `HOME/lock`, which the kernel gives back whatever ends this process.

    ConfigError where the directory cannot be used, or belongs to another gateway.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"the home {home} cannot be used: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(f"the home {home} belongs to another gateway that runs: choose another with --home") from None
    try:
        yield
    finally:
        os.close(descriptor)
