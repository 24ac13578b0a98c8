"""Prompt text of a wanted length: words of the bundled model's domain, cut from one seeded ring.

Cutting costs a slice. Prompts without hash ids start anywhere in the ring, so that no prefix cache helps by accident; with
hash ids each block is text of its own, so that equal leading ids give an equal prefix, as they had in the trace.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

RING_CHARS = 1 << 18
_HASH_MULTIPLIER = 2654435761  # a prime (Knuth's): different small ids begin at different places of the ring
DEFAULT_CHARS_PER_TOKEN = 4.0
MAX_CHARS_PER_TOKEN = 64.0

_WORDS = (
    "the a an old young brave quiet hidden broken golden silver frozen burning ancient small great dark bright lost found "
    "sword shield bow arrow staff amulet ring cloak helmet potion scroll map key chest lantern rope hammer anvil coin gem "
    "smith baker guard miller hunter healer farmer sailor merchant scholar priest captain thief wanderer king queen "
    "wolf bear dragon goblin spider raven horse fox snake troll village tower forest river bridge cave harbor market "
    "mountain castle temple garden field road gate well mill inn forge asks gives takes finds seeks guards sells buys "
    "tells knows fears hopes walks waits fights returns brings carries opens closes near behind under over before after "
    "with without for from to and or but if when where who why tonight tomorrow always never again please thank you"
)


class Yardstick(msgspec.Struct, frozen=True):
    """How characters become tokens in one model: tokens = overhead_tokens + characters / chars_per_token."""

    chars_per_token: float = DEFAULT_CHARS_PER_TOKEN
    overhead_tokens: float = 0.0
    measured: bool = False

    def chars(self, tokens: int) -> int:
        """How long a prompt must be to have `tokens`; at least 1."""
        return max(1, round((tokens - self.overhead_tokens) * self.chars_per_token))


def yardstick_from(probes: Sequence[tuple[int, int]]) -> Yardstick | None:
    """The least-squares line through probes of (characters, prompt tokens as reported). None where they cannot give one:
    fewer than two lengths, or tokens that hardly grow with characters."""
    if len({chars for chars, _ in probes}) < 2:
        return None
    slope, overhead = np.polyfit([chars for chars, _ in probes], [tokens for _, tokens in probes], 1)
    if slope < 1 / MAX_CHARS_PER_TOKEN:
        return None
    return Yardstick(round(1 / float(slope), 4), round(max(0.0, float(overhead)), 2), measured=True)


class Corpus:
    """Text for prompts. The same generator state gives the same text."""

    __slots__ = ("_ring", "_rng", "_starts")

    def __init__(self, rng: np.random.Generator) -> None:
        known = _WORDS.split()
        words: list[str] = []
        chars = 0
        while chars < RING_CHARS:
            drawn = [known[index] for index in rng.integers(len(known), size=4096).tolist()]
            words += drawn
            chars += sum(len(word) + 1 for word in drawn)
        self._ring = " ".join(words)
        self._rng = rng
        self._starts: list[int] = []

    def prompt(self, chars: int) -> str:
        """A prompt of its own, exactly `chars` long."""
        if not self._starts:
            self._starts = self._rng.integers(len(self._ring), size=1024).tolist()
        return self._cut(self._starts.pop(), chars)

    def blocks(self, hash_ids: Sequence[int], block_chars: int, chars: int) -> str:
        """A prompt of blocks, exactly `chars` long; the last block is cut or goes on as is needed."""
        wanted = min(len(hash_ids), -(-chars // block_chars))
        text = "".join([self._cut(hash_id * _HASH_MULTIPLIER, block_chars) for hash_id in hash_ids[:wanted]])
        if len(text) < chars:
            text += self._cut(hash_ids[-1] * _HASH_MULTIPLIER + block_chars, chars - len(text))
        return text[:chars]

    def _cut(self, start: int, chars: int) -> str:
        begin = start % len(self._ring)
        piece = self._ring[begin : begin + chars]
        while len(piece) < chars:
            piece += self._ring[: chars - len(piece)]
        return piece
