"""A journal told again to a fresh brain: whether the same events still have the same effects."""

from collections.abc import Iterable

import msgspec

from spillway.gateway.journal import checksum_of, read_journal
from spillway.traffic.controller import Controller

MOST_DIFFERENCES = 1000


class ReplayResult(msgspec.Struct, frozen=True):
    """`differing`: numbers of the lines (1 is the first) whose effects are not those that were lived; the first MOST_DIFFERENCES."""

    events: int
    differing: tuple[int, ...]


def replay(lines: Iterable[bytes]) -> ReplayResult:
    """Raises StoreError for a journal that cannot be read, ConfigError for one whose configuration is refused today."""
    brain = Controller()
    events = 0
    differing: list[int] = []
    for now, event, checksum in read_journal(lines):
        events += 1
        if checksum_of(brain.handle(event, now)) != checksum and len(differing) < MOST_DIFFERENCES:
            differing.append(events)
    return ReplayResult(events, tuple(differing))
