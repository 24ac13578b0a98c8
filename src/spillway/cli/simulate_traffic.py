"""What arrives in `spillway simulate`: a trace of requests as it was, or ServeGen's clients by chance; at most a million."""

import argparse
import sys
from collections.abc import Sequence
from math import inf

import msgspec
import numpy as np

from spillway.core.errors import UsageError
from spillway.load.trace_files import is_servegen, load_servegen, load_trace
from spillway.planner.arrival import Arrival
from spillway.planner.arrivals import Estimate, arrivals
from spillway.planner.curves import DAY_S
from spillway.planner.labels import with_priorities
from spillway.planner.playback import Cast, play
from spillway.planner.reshaping import faster
from spillway.planner.servegen import Stretch, generated, recorded_count
from spillway.planner.thinning import MOST_ARRIVALS, thinned, thinned_records
from spillway.wire.traces import BadLine


class Traffic(msgspec.Struct, frozen=True):
    """`bad_lines` of the trace were left out."""

    arrivals: list[Arrival]
    bad_lines: int


def traffic(arguments: argparse.Namespace, cast: Cast, rng: np.random.Generator) -> Traffic:
    """Tells of bad lines, and of arrivals that were left out, on the error output. Raises TraceError, and UsageError where nothing
    arrives."""
    made = _generated(arguments, cast, rng) if is_servegen(arguments.trace) else _played(arguments, cast, rng)
    if not made.arrivals:
        raise UsageError("no arrival lies within the duration")
    return made


def _played(arguments: argparse.Namespace, cast: Cast, rng: np.random.Generator) -> Traffic:
    trace = load_trace(arguments.trace)
    _tell_bad_lines(trace.bad, trace.first_bad)
    if trace.truncated:
        _tell(f"only the first {len(trace.records):,} records were read")
    if arguments.from_s:
        raise UsageError("--from is for ServeGen's weeks; a trace is played from its beginning")
    speed = arguments.speed
    if arguments.rate is not None:
        if trace.duration_s == 0:
            raise UsageError("--rate: all of the trace comes at once")
        speed *= arguments.rate * trace.duration_s / len(trace.records)
    within = [record for record in trace.records if record.offset_s / speed < arguments.duration]
    records = thinned_records(within, rng)
    if len(records) < len(within):
        _tell(f"thinned to {len(records):,} of {len(within):,} arrivals: capacity is to be thinned alike")
    return Traffic(list(play(records, cast, rng, speed=speed)), trace.bad)


def _generated(arguments: argparse.Namespace, cast: Cast, rng: np.random.Generator) -> Traffic:
    servegen = load_servegen(arguments.trace)
    bad = servegen.rates.bad + servegen.lengths.bad
    _tell_bad_lines(bad, (*servegen.rates.first_bad, *servegen.lengths.first_bad))
    lasts_s = DAY_S if arguments.duration == inf else arguments.duration * arguments.speed
    stretch = Stretch(lasts_s, arguments.rate, arguments.from_s)
    count = recorded_count(servegen.rates.bins, stretch)
    if count > MOST_ARRIVALS:
        _tell(
            f"thinned to {MOST_ARRIVALS:,} of {count:,.0f} arrivals: capacity is to be thinned alike, or give a --rate"
        )
        stretch = msgspec.structs.replace(stretch, rate_rps=MOST_ARRIVALS / lasts_s)
    columns = generated(servegen.rates.bins, servegen.lengths.windows, stretch, cast.model, rng, region=cast.regions[0])
    columns = thinned(columns, rng)  # a count by chance may be a little more than was expected
    columns = with_priorities(faster(columns, arguments.speed), dict(cast.priorities), rng)
    return Traffic(list(arrivals(columns, Estimate(quantile=None, max_tokens=cast.max_tokens))), bad)


def _tell_bad_lines(bad: int, first: Sequence[BadLine]) -> None:
    if bad:
        _tell(f"{bad} lines of the trace were left out:")
    for line in first:
        print(f"  line {line.number}: {line.reason}", file=sys.stderr)


def _tell(text: str) -> None:
    print(f"spillway simulate: {text}", file=sys.stderr)
