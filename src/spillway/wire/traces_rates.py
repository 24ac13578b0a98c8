"""Traces of rates, not of requests: per client and ten minutes how many requests a second came and how unevenly (ServeGen)."""

import enum
import math
from collections.abc import Iterable

import msgspec

from spillway.core.clock import Seconds
from spillway.wire.traces import BadLine, BadLines, TraceError

BIN_S: Seconds = 600.0
HEADER = ("client", "offset_s", "rate_rps", "cv", "pattern", "shape", "scale")
MAX_NUMBER = 1e9


class ArrivalPattern(enum.StrEnum):
    """The distribution of the inter-arrival times."""

    GAMMA = "Gamma"
    WEIBULL = "Weibull"


class RateBin(msgspec.Struct, frozen=True, gc=False):
    """Client `client` sent `rate_rps` requests a second during [offset_s, offset_s + BIN_S). Inter-arrival times have the
    coefficient of variation `cv` and follow `pattern` with `shape` (no unit) and `scale_s`. Bins without traffic are absent."""

    client: int
    offset_s: Seconds
    rate_rps: float
    cv: float
    pattern: ArrivalPattern
    shape: float
    scale_s: Seconds


class Rates(msgspec.Struct, frozen=True):
    """Bins in the order of the lines. `bad` lines were left out, `first_bad` names some of them."""

    bins: list[RateBin]
    bad: int = 0
    first_bad: tuple[BadLine, ...] = ()


def read_rates(lines: Iterable[str]) -> Rates:
    """Reads a CSV with the columns of HEADER. Raises TraceError for another header and when no line is good."""
    rest = iter(lines)
    if tuple(next(rest, "").strip().split(",")) != HEADER:
        raise TraceError(f"line 1 is not the header {','.join(HEADER)}")
    bins: list[RateBin] = []
    bad = BadLines()
    for number, line in enumerate(rest, 2):
        try:
            client, _, cells = line.partition(",")
            bins.append(_parse(int(client), cells))
        except ValueError as error:
            bad.add(number, str(error))
    if not bins:
        raise bad.none_is_good()
    return Rates(bins, bad.count, tuple(bad.first))


def read_chunks(files: Iterable[tuple[int, Iterable[str]]]) -> Rates:
    """Reads ServeGen's own files: of each client its number and the lines of its `chunk-N-trace.csv`, which has no header and a
    line with rate 0 for each bin without traffic. The reason of a bad line names its file. Raises TraceError when no line is good."""
    bins: list[RateBin] = []
    bad = BadLines()
    for client, lines in files:
        for number, line in enumerate(lines, 1):
            try:
                if not _is_empty(line):
                    bins.append(_parse(client, line))
            except ValueError as error:
                bad.add(number, f"chunk-{client}-trace.csv: {error}")
    if not bins:
        raise bad.none_is_good()
    return Rates(bins, bad.count, tuple(bad.first))


def _is_empty(line: str) -> bool:
    cells = line.split(",", 2)
    return len(cells) == 3 and float(cells[0]) >= 0 and float(cells[1]) == 0


def _parse(client: int, line: str) -> RateBin:
    cells = line.strip().split(",")
    if len(cells) != len(HEADER) - 1:
        raise ValueError(f"{len(cells) + 1} columns instead of {len(HEADER)}")
    offset_s, rate_rps, cv, shape, scale_s = (float(cells[index]) for index in (0, 1, 2, 4, 5))
    if not all(
        math.isfinite(number) and 0 <= number <= MAX_NUMBER for number in (offset_s, rate_rps, cv, shape, scale_s)
    ):
        raise ValueError(f"a number that is not between 0 and {MAX_NUMBER:.0e}")
    return RateBin(client, offset_s, rate_rps, cv, ArrivalPattern(cells[3]), shape, scale_s)
