"""Chance that repeats itself."""

import math
import random


class SeededRng:
    """A `core.rng.Rng`: the same seed gives the same values. Never a source of secrets."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(seed)

    def random(self) -> float:
        return self._source.random()

    def token_bytes(self, count: int) -> bytes:
        return self._source.randbytes(count)

    def normal(self, mean: float, deviation: float) -> float:
        """Gaussian by Box and Muller; `mean` itself where `deviation` is 0, without using up chance."""
        if deviation == 0.0:
            return mean
        radius = math.sqrt(-2.0 * math.log(1.0 - self._source.random()))
        return mean + deviation * radius * math.cos(math.tau * self._source.random())
