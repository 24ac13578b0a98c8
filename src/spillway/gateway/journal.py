"""The journal: what the brain was told, so that it can be told again elsewhere. Holds no prompt and no completion.

Each line is `[now, event, checksum]` as JSON, in the order of `Controller.handle`; the checksum is that of the effects, so that
a replay can be compared with what was lived. It covers a worker's life from its start until
`max_bytes`, where it stops and says so in its last line: the beginning is what a replay cannot do without.
"""

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.traffic.effects import Effect
from spillway.traffic.events import Event

FLUSH_S = 0.05
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[Seconds, Event, int]).decode
_FULL = b'["full"]\n'


class Journal:
    """Appends to one file, in slices, off the request's path."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        self._left_bytes = max_bytes
        self._slice: list[bytes] = []

    def record(self, now: Seconds, event: Event, effects: Sequence[Effect]) -> None:
        if self._left_bytes <= 0:
            return
        line = _encode((now, event, checksum_of(effects))) + b"\n"
        self._left_bytes -= len(line)
        if not self._slice:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._slice.append(line if self._left_bytes > 0 else _FULL)

    def flush(self) -> None:
        """A journal that cannot be written ends; it never harms a request."""
        lines, self._slice = b"".join(self._slice), []
        try:
            if lines and os.write(self._file, lines) < len(lines):
                self._left_bytes = 0  # the disk took a part: the torn line is the last
        except OSError:
            self._left_bytes = 0

    def close(self) -> None:
        self.flush()
        os.close(self._file)


def checksum_of(effects: Sequence[Effect]) -> int:
    """CRC-32 of the effects as JSON; 0 for none."""
    return crc32(_encode(effects)) if effects else 0


def read_journal(lines: Iterable[bytes]) -> Iterator[tuple[Seconds, Event, int]]:
    """The lines of a journal: the brain's time, the event, the checksum of its effects. A torn last line is left out; any other damage is a StoreError with its line number."""
    pending: tuple[int, bytes] | None = None
    for number, line in enumerate(lines, 1):
        if pending is not None:
            raise StoreError(f"line {pending[0]} of the journal cannot be read")
        if line == _FULL:
            return
        try:
            yield _decode(line)
        except msgspec.MsgspecError:
            pending = (number, line)
