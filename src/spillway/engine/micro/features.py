"""Texts as hashed character n-grams: what the shipped classifier is trained on and reads."""

from zlib import crc32

import msgspec

PADDING = 0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`labels`: of the outputs. `flagged`: those that are told, with the score from which on they count."""

    labels: list[str]
    flagged: dict[str, float]
    buckets: int
    smallest: int
    largest: int
    max_chars: int = 512


def features(text: str, recipe: Recipe) -> list[int]:
    """Bucket numbers, from 1 on, of all character n-grams of the text in lower case, with one mark at each end."""
    padded = f"\x02{' '.join(text.lower().split())[: recipe.max_chars]}\x03".encode()
    return [
        1 + crc32(padded[at : at + size]) % (recipe.buckets - 1)
        for size in range(recipe.smallest, recipe.largest + 1)
        for at in range(len(padded) - size + 1)
    ] or [PADDING]
