"""Tokens of the fake engine: one word is one token, both ways. So a test can ask for exactly as many as it wants."""

import hashlib
import math
from typing import cast

_FIRST_SYLLABLES = "bacedifoguhakeli"
_LAST_SYLLABLES = "mornsailtelvrunt"


def word(start: int, index: int) -> str:
    """The `index`-th output token of a reply; `start` comes from the prompt. All but the first begin with a space."""
    number = (start + index * 11) % 32
    first, last = 2 * (number % 8), 4 * (number // 8)
    text = _FIRST_SYLLABLES[first : first + 2] + _LAST_SYLLABLES[last : last + 4]
    return text if index == 0 else f" {text}"


class Prompt:
    """What a request brings: `text` of all its parts, and `tokens`: words between white space, and ids one by one.

    `content` is the decoded `messages`, `prompt` or `input`: strings, token ids, chat messages, content parts, lists of
    these; anything else counts nothing. Never 0 tokens, as engines add at least one of their own.
    """

    __slots__ = ("text", "tokens")

    def __init__(self, content: object) -> None:
        texts: list[str] = []
        ids = _collect(content, texts)
        self.text = "\n".join(texts)
        self.tokens = max(1, len(self.text.split()) + ids)

    @property
    def start(self) -> int:
        """What `word` begins with: equal prompts get equal replies."""
        return hashlib.sha256(self.text.encode()).digest()[0]


def _collect(content: object, texts: list[str]) -> int:
    """Appends the texts inside; returns the number of token ids."""
    match content:
        case str():
            texts.append(content)
        case int():
            return 1
        case list():
            return sum(_collect(item, texts) for item in cast("list[object]", content))
        case dict():
            fields = cast("dict[str, object]", content)
            return sum(_collect(fields[name], texts) for name in ("content", "text") if name in fields)
        case _:
            pass
    return 0


def embedding(text: str, dimensions: int) -> list[float]:
    """A unit vector that depends only on the text, so that equal texts have equal vectors."""
    block = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    values = [int.from_bytes(block[2 * i : 2 * i + 2], "big") / 32767.5 - 1.0 for i in range(dimensions)]
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / norm for value in values]
