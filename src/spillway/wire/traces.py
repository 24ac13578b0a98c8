"""Traces of traffic: when requests came and how many tokens they had. Lines in, records out; files are opened elsewhere.

A line that cannot be understood is counted and named by its number, and the rest is used: real traces are cut off in the
middle of a line. Only a trace without a single good line is an error.
"""

import datetime
import math
from collections.abc import Callable, Iterable
from itertools import chain

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError

MAX_RECORDS = 5_000_000
MAX_BAD_LINES_NAMED = 20


class TraceError(ConfigError):
    """No record could be read, or the format is not known."""


class TraceRecord(msgspec.Struct, frozen=True, gc=False):
    """One request. `offset_s` counts from the first record of its trace. `hash_ids` name its prompt's blocks of 512
    tokens: two prompts with equal leading ids have an equal prefix. None where the format has no such column."""

    offset_s: Seconds
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] | None = None


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
"""Gives a record whose offset counts from any moment; raises ValueError with the reason."""


def read_trace(lines: Iterable[str], max_records: int = MAX_RECORDS) -> Trace:
    """Reads a trace in the format that its first line shows: a CSV header of Azure's, or JSON objects of Mooncake's.

    Raises TraceError for an unknown format and for a trace without any good line.
    """
    rest = iter(lines)
    first = next(rest, "").lstrip("\ufeff")
    if first.lstrip().startswith("{"):
        return _read(chain([first], rest), 1, parse_mooncake, max_records)
    columns = [column.strip() for column in first.split(",")]
    if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= set(columns):
        return _read(rest, 2, azure_parser(columns), max_records)
    raise TraceError(
        "line 1 is neither a JSON object (Mooncake) nor a header with TIMESTAMP, ContextTokens, GeneratedTokens (Azure)"
    )


def azure_parser(columns: list[str]) -> Parse:
    """Reads `2023-11-16 18:17:03.9799600,4808,10`, with columns in the order of `columns`."""
    when, context, generated = (columns.index(name) for name in ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))

    def parse(line: str) -> TraceRecord:
        cells = line.split(",")
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} columns instead of {len(columns)}")
        moment = datetime.datetime.fromisoformat(cells[when].strip())
        aware = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return _checked(aware.timestamp(), int(cells[context]), int(cells[generated]), None)

    return parse


class _MooncakeLine(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def parse_mooncake(line: str) -> TraceRecord:
    """Reads `{"timestamp": MS, "input_length": N, "output_length": N, "hash_ids": […]}`."""
    decoded = msgspec.json.decode(line, type=_MooncakeLine)
    return _checked(decoded.timestamp / 1000, decoded.input_length, decoded.output_length, decoded.hash_ids)


def _checked(offset_s: Seconds, input_tokens: int, output_tokens: int, hash_ids: tuple[int, ...] | None) -> TraceRecord:
    if not math.isfinite(offset_s):
        raise ValueError("the time is not a finite number")
    if input_tokens < 1 or output_tokens < 1:
        raise ValueError("a token count below 1")
    return TraceRecord(offset_s, input_tokens, output_tokens, hash_ids)


def _read(lines: Iterable[str], first_number: int, parse: Parse, max_records: int) -> Trace:
    records: list[TraceRecord] = []
    first_bad: list[BadLine] = []
    bad = 0
    truncated = False
    for number, line in enumerate(lines, first_number):
        if not line.strip():
            continue
        if len(records) >= max_records:
            truncated = True
            break
        try:
            records.append(parse(line))
        except ValueError as error:  # msgspec's decode errors are ValueErrors too
            bad += 1
            if len(first_bad) < MAX_BAD_LINES_NAMED:
                first_bad.append(BadLine(number, str(error)))
    if not records:
        raise TraceError(f"no good line: {first_bad[0].reason} (line {first_bad[0].number})" if bad else "no lines")
    return Trace(_from_zero(records), bad, tuple(first_bad), truncated)


def _from_zero(records: list[TraceRecord]) -> list[TraceRecord]:
    ordered = sorted(records, key=lambda record: record.offset_s)
    start_s = ordered[0].offset_s
    return [
        TraceRecord(round(record.offset_s - start_s, 6), record.input_tokens, record.output_tokens, record.hash_ids)
        for record in ordered
    ]
