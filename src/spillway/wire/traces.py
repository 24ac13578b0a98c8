"""Traces of traffic: when requests came and how many tokens they had, as records. How lines become records: `traces_formats`.

A line that cannot be understood is counted and named by its number, and the rest is used: real traces are cut off in the
middle of a line. Only a trace without a single good line is an error.
"""

from collections.abc import Callable, Iterable

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.core.priority import Priority

MAX_RECORDS = 5_000_000
MAX_BAD_LINES_NAMED = 20
MAX_TOKENS = 10_000_000
MAX_OFFSET_S: Seconds = 1e11
"""More than the seconds since the epoch of any clock: times of day are offsets too until the first is known."""

BLOCK_TOKENS = 512


class TraceError(ConfigError):
    """No record could be read, or the format is not known."""


class TraceRecord(msgspec.Struct, frozen=True, gc=False):
    """One request. `offset_s` counts from the first record of its trace. `hash_ids` name its prompt's blocks of `block_tokens`
    tokens: two prompts with equal leading ids have an equal prefix. Everything else is None where the trace does not say it;
    `deadline_s` counts from the arrival, `model` is the trace's own word for it."""

    offset_s: Seconds
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] | None = None
    block_tokens: int = BLOCK_TOKENS
    model: str | None = None
    tenant: str | None = None
    organization: str | None = None
    user: str | None = None
    session: str | None = None
    priority: Priority | None = None
    region: str | None = None
    deadline_s: Seconds | None = None


class BadLine(msgspec.Struct, frozen=True):
    """`number` counts from 1, as editors do."""

    number: int
    reason: str


class Trace(msgspec.Struct, frozen=True):
    """Records by ascending offset. `first_bad` names at most MAX_BAD_LINES_NAMED of the `bad` lines; `truncated` says that
    there were more than MAX_RECORDS records and the rest was not read."""

    records: list[TraceRecord]
    bad: int = 0
    first_bad: tuple[BadLine, ...] = ()
    truncated: bool = False

    @property
    def duration_s(self) -> Seconds:
        return self.records[-1].offset_s


Parse = Callable[[str], TraceRecord]
"""Gives a record whose offset counts from any moment; raises ValueError with the reason (RecursionError: too deep)."""


def checked(record: TraceRecord) -> TraceRecord:
    """Raises ValueError for numbers that no request has."""
    if not abs(record.offset_s) <= MAX_OFFSET_S:
        raise ValueError("the time is not a number of seconds of any clock")
    if not (1 <= record.input_tokens <= MAX_TOKENS and 1 <= record.output_tokens <= MAX_TOKENS):
        raise ValueError(f"a token count that is not between 1 and {MAX_TOKENS}")
    if not 1 <= record.block_tokens <= MAX_TOKENS:
        raise ValueError("blocks of no tokens")
    if record.deadline_s is not None and not 0 <= record.deadline_s <= MAX_OFFSET_S:
        raise ValueError("a deadline that is no time")
    return record


def collected(lines: Iterable[str], first_number: int, parse: Parse, max_records: int = MAX_RECORDS) -> Trace:
    """What `parse` makes of the lines, the first of which has the number `first_number`. Empty lines are nothing.

    Raises TraceError when no line is good.
    """
    records: list[TraceRecord] = []
    bad = BadLines()
    truncated = False
    for number, line in enumerate(lines, first_number):
        if not line.strip():
            continue
        if len(records) >= max_records:
            truncated = True
            break
        try:
            records.append(checked(parse(line)))
        except (ValueError, RecursionError) as error:  # msgspec's decode errors are ValueErrors too
            bad.add(number, str(error))
    if not records:
        raise bad.none_is_good()
    return Trace(_from_zero(records), bad.count, tuple(bad.first), truncated)


class BadLines:
    """Counts them all and remembers the first."""

    __slots__ = ("count", "first")

    def __init__(self) -> None:
        self.count = 0
        self.first: list[BadLine] = []

    def add(self, number: int, reason: str) -> None:
        self.count += 1
        if len(self.first) < MAX_BAD_LINES_NAMED:
            self.first.append(BadLine(number, reason))

    def none_is_good(self) -> TraceError:
        if not self.first:
            return TraceError("no lines")
        return TraceError(f"no good line: {self.first[0].reason} (line {self.first[0].number})")


def _from_zero(records: list[TraceRecord]) -> list[TraceRecord]:
    ordered = sorted(records, key=lambda record: record.offset_s)
    start_s = ordered[0].offset_s
    if start_s == 0.0:
        return ordered
    replace = msgspec.structs.replace
    return [replace(record, offset_s=round(record.offset_s - start_s, 6)) for record in ordered]
