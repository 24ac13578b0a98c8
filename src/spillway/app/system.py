"""The system's clock and randomness, made here and passed down."""

import random
import secrets
import time


class SystemClock:
    """`core.clock.Clock` on the real clocks."""

    monotonic = staticmethod(time.monotonic)  # noqa: TID251  the one place that makes a clock
    wall = staticmethod(time.time)  # noqa: TID251


class SystemRng:
    """`core.rng.Rng`: `random` is quick and not secret, `token_bytes` is fit for secrets."""

    def __init__(self) -> None:
        self._random = random.Random(secrets.randbits(64))

    def random(self) -> float:
        return self._random.random()

    def token_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)
