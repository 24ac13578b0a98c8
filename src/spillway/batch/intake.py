"""Intake: an input file is read once, every mistake in it is found with its line, and its lines are cut into shards."""

from collections.abc import AsyncIterator, Container
from hashlib import blake2b

import msgspec

from spillway.batch.jobs import Mistake, Shard
from spillway.batch.settings import Settings
from spillway.core.errors import BadRequestError
from spillway.wire.batch_lines import read_line

MOST_MISTAKES = 100
"""That are told; after so many nobody reads on."""


class Checked(msgspec.Struct, frozen=True):
    """What an input file holds. With `mistakes` there are no shards."""

    lines: int
    shards: tuple[Shard, ...]
    mistakes: tuple[Mistake, ...]
    models: tuple[str, ...]  # in the order of their first lines


class Intake:
    """Takes a file in pieces, in order. `models`: public names; None: any. Memory: a line, and 16 bytes for each custom_id."""

    def __init__(self, endpoint: str, settings: Settings, models: Container[str] | None = None) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._known_models = models
        self._rest = b""
        self._offset = 0  # of the line that comes next
        self._number = 0  # lines of the file so far, empty ones too
        self._lines = 0
        self._seen: set[bytes] = set()
        self._models: dict[str, None] = {}
        self._mistakes: list[Mistake] = []
        self._shards: list[Shard] = []
        self._first = 0
        self._begin = 0
        self._stopped = False

    @property
    def gave_up(self) -> bool:
        """Nothing more will be told: there are enough mistakes, or one after which nothing can be understood."""
        return self._stopped or len(self._mistakes) >= MOST_MISTAKES

    def take(self, data: bytes) -> None:
        if self.gave_up:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line, len(line) + 1)
            if self.gave_up:
                return
        if len(self._rest) > self._settings.limits.line_bytes:
            self._number += 1
            self._too_long()

    def end(self) -> Checked:
        if self._rest and not self.gave_up:
            self._line(self._rest, len(self._rest))
        if not self._lines and not self._mistakes:
            self._mistakes.append(Mistake("empty_file", "The input file has no lines."))
        if self._mistakes:
            return Checked(self._lines, (), tuple(self._mistakes), tuple(self._models))
        if self._lines > self._first:
            self._cut()
        return Checked(self._lines, tuple(self._shards), (), tuple(self._models))

    def _line(self, text: bytes, size_bytes: int) -> None:
        self._number += 1
        if text.strip():
            self._check(text)
            self._lines += 1
        self._offset += size_bytes
        settings = self._settings
        if self._lines - self._first >= settings.shard_lines or self._offset - self._begin >= settings.shard_bytes:
            self._cut()

    def _check(self, text: bytes) -> None:
        limits = self._settings.limits
        if self._lines >= limits.lines:
            message = f"A batch may have at most {limits.lines} lines."
            self._mistakes.append(Mistake("too_many_requests", message, self._number))
            self._stopped = True
            return
        if len(text) > limits.line_bytes:
            self._too_long()
            return
        try:
            line = read_line(text, self._endpoint)
        except BadRequestError as error:
            self._mistakes.append(Mistake(error.code or "invalid_request", str(error), self._number, error.param))
            return
        name = blake2b(line.custom_id.encode(), digest_size=16).digest()
        if name in self._seen:
            message = f"The custom_id '{line.custom_id[:64]}' is there twice."
            self._mistakes.append(Mistake("duplicate_custom_id", message, self._number, "custom_id"))
        self._seen.add(name)
        if self._known_models is not None and line.model not in self._known_models:
            message = f"The model '{line.model[:64]}' does not exist."
            self._mistakes.append(Mistake("model_not_found", message, self._number, "body.model"))
        self._models.setdefault(line.model)

    def _too_long(self) -> None:
        message = f"A line may have at most {self._settings.limits.line_bytes} bytes."
        self._mistakes.append(Mistake("line_too_long", message, self._number))
        self._stopped = True

    def _cut(self) -> None:
        if self._lines == self._first:  # empty lines only: they go with the next
            return
        self._shards.append(
            Shard(len(self._shards), self._first, self._lines - self._first, self._begin, self._offset - self._begin)
        )
        self._first, self._begin = self._lines, self._offset


async def check(pieces: AsyncIterator[bytes], intake: Intake) -> Checked:
    async for piece in pieces:
        intake.take(piece)
        if intake.gave_up:
            break
    return intake.end()


def lines_of(data: bytes) -> list[bytes]:
    """The lines of a shard's bytes; empty ones are none."""
    return [line for line in data.split(b"\n") if line.strip()]
