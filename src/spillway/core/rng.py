"""Chance as an argument. `app` makes the system source; tests and the simulator seed their own."""

from typing import Protocol


class Rng(Protocol):
    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def token_bytes(self, count: int) -> bytes:
        """`count` random bytes; from the system source they are fit for secrets."""
        ...
