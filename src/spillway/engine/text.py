"""From token ids to text as it grows, and where to end it. Pure.

Decoding everything at every step would be quadratic, so only a window is decoded: the ids of the last piece of text, and those after
it. Text that ends in U+FFFD may be half of a character and is held back.
"""

from collections.abc import Sequence

REPLACEMENT = "\ufffd"
MAX_HALF_CHARS = 3
"""An unfinished character is one to three bytes, and so at most three replacement characters."""
MAX_GARBAGE_TOKENS = 32
"""So many ids whose text ends in more replacement characters than that are bytes that will never be text: let go of them."""


class TextWindow:
    """Which ids to decode for one generation, and what is new in their text.

    Whoever owns it appends ids with `extend`, decodes both `rows`, and gives the texts to `accept`.
    """

    __slots__ = ("_context", "_fresh", "_told_chars")

    def __init__(self) -> None:
        self._context: list[int] = []
        self._fresh: list[int] = []
        self._told_chars = 0  # of the text of `_fresh`

    def extend(self, ids: Sequence[int]) -> None:
        self._fresh.extend(ids)

    @property
    def pending(self) -> bool:
        return bool(self._fresh)

    def rows(self) -> tuple[list[int], list[int]]:
        """What was told last, and the same with all that is new."""
        return self._context, self._context + self._fresh

    def accept(self, context: str, whole: str, *, final: bool) -> str:
        """The new text; empty while it may still change. `final`: nothing comes after it, so nothing is held back."""
        fresh = whole[len(context) :]
        garbage = len(fresh) - len(fresh.rstrip(REPLACEMENT))
        hopeless = garbage > MAX_HALF_CHARS and len(self._fresh) >= MAX_GARBAGE_TOKENS
        held = 0 if final or hopeless else min(garbage, MAX_HALF_CHARS)
        told = fresh[self._told_chars : len(fresh) - held]
        if held:
            self._told_chars += len(told)
        else:
            self._context, self._fresh, self._told_chars = self._fresh, [], 0
        return told


class StopScanner:
    """Ends text before the first stop string. What could be the beginning of one is held back.

    The result does not depend on how the text was cut into pieces: that stop string ends the text which is complete first,
    the longest of those that are complete at the same character.
    """

    __slots__ = ("_held", "_longest", "_stops")

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max(map(len, stops))
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Text that may be told, and whether a stop string ended it. Nothing may be fed after that."""
        held = self._held + text
        ends: list[tuple[int, int]] = []
        for stop in self._stops:
            at = held.find(stop)
            if at >= 0:
                ends.append((at + len(stop), at))
        if ends:
            self._held = ""
            return held[: min(ends)[1]], True
        keep = self._possible_beginning(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def rest(self) -> str:
        """What is held back, when nothing comes any more."""
        held, self._held = self._held, ""
        return held

    def _possible_beginning(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
