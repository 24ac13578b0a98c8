"""Which format a trace has, told by its own first lines."""

from collections.abc import Iterable
from itertools import chain, islice

from spillway.wire.traces import MAX_RECORDS, Parse, Trace, TraceError, collected
from spillway.wire.traces_csv import csv_parser
from spillway.wire.traces_json import json_parser

LOOKED_AT = 100
"""Lines of which one must show the format: the first may be damaged."""


def read_trace(lines: Iterable[str], max_records: int = MAX_RECORDS) -> Trace:
    """Reads a trace of requests: CSV with the header of Azure's or BurstGPT's, JSON objects of Mooncake's, Bailian's or our own.

    Lines before the one that shows the format are counted as bad. Raises TraceError for an unknown format and for a trace without
    any good line.
    """
    rest = iter(lines)
    seen: list[str] = []
    for line in islice(rest, LOOKED_AT):
        if (parse := csv_parser(line)) is not None:
            return collected(chain(seen, [""], rest), 1, parse, max_records)  # "": the header has a number, too
        seen.append(line)
        if line.lstrip("\ufeff \t").startswith("{") and (parse := json_parser(line.lstrip("\ufeff"))) is not None:
            return collected(chain(seen, rest), 1, _without_mark(parse), max_records)
    raise TraceError(
        "no format is known of which the first lines are: CSV with TIMESTAMP, ContextTokens, GeneratedTokens (Azure) or Timestamp, "
        "Model, Request tokens, Response tokens (BurstGPT), JSON objects with timestamp (Mooncake), chat_id (Bailian) or at_s (ours)"
        if seen
        else "no lines"
    )


def _without_mark(parse: Parse) -> Parse:
    """The first line of a file may begin with a byte order mark."""
    return lambda line: parse(line.lstrip("\ufeff"))
