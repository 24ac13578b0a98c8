"""Traces of rates, not of requests: per client and ten minutes how many requests a second came and how unevenly (ServeGen)."""

import enum
import math
from collections.abc import Iterable

import msgspec

from spillway.core.clock import Seconds
from spillway.wire.traces import MAX_BAD_LINES_NAMED, BadLine, TraceError

BIN_S: Seconds = 600.0
HEADER = ("client", "offset_s", "rate_rps", "cv", "pattern", "shape", "scale")


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
    bad: list[BadLine] = []
    bad_count = 0
    for number, line in enumerate(rest, 2):
        try:
            bins.append(_parse(line))
        except ValueError as error:
            bad_count += 1
            if len(bad) < MAX_BAD_LINES_NAMED:
                bad.append(BadLine(number, str(error)))
    if not bins:
        raise TraceError(f"no good line: {bad[0].reason} (line {bad[0].number})" if bad else "no lines")
    return Rates(bins, bad_count, tuple(bad))


def _parse(line: str) -> RateBin:
    cells = line.strip().split(",")
    if len(cells) != len(HEADER):
        raise ValueError(f"{len(cells)} columns instead of {len(HEADER)}")
    offset_s, rate_rps, cv, shape, scale_s = (float(cells[index]) for index in (1, 2, 3, 5, 6))
    if not all(math.isfinite(number) and number >= 0 for number in (offset_s, rate_rps, cv, shape, scale_s)):
        raise ValueError("a number that is negative or not finite")
    return RateBin(int(cells[0]), offset_s, rate_rps, cv, ArrivalPattern(cells[4]), shape, scale_s)
