"""What arrives in `spillway simulate`: a trace of requests as it was, or ServeGen's clients by chance; at most a million."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf

import msgspec
import numpy as np

from spillway.core.errors import UsageError
from spillway.core.priority import Priority
from spillway.load.trace_files import is_servegen, load_servegen, load_trace
from spillway.planner.arrival import Arrival
from spillway.planner.arrivals import Estimate, arrivals, from_trace
from spillway.planner.columns import Columns, Flags, constant, filled
from spillway.planner.curves import DAY_S
from spillway.planner.labels import with_priorities, with_sessions, with_tenants, zipf
from spillway.planner.reshaping import faster, scaled
from spillway.planner.servegen import Stretch, generated, recorded_count
from spillway.planner.thinning import MOST_ARRIVALS, thinned, thinned_records
from spillway.wire.traces import BadLine, TraceRecord

MOST_NAMED = 5


class Traffic(msgspec.Struct, frozen=True):
    """`bad_lines` of the trace were left out."""

    arrivals: list[Arrival]
    bad_lines: int


def traffic(arguments: argparse.Namespace, models: Sequence[str], rng: np.random.Generator) -> Traffic:
    """`models`: those of the configuration, one or more.

    Tells of bad lines, and of arrivals that were left out, on the error output. Raises TraceError, and UsageError where nothing
    arrives or nobody knows the model that is asked for.
    """
    if arguments.model is not None and arguments.model not in models:
        raise UsageError(f"no model {arguments.model!r}: there are {', '.join(models)}")
    make = _generated if is_servegen(arguments.trace) else _played
    columns, bad = make(arguments, models, rng)
    columns = scaled(columns, inputs=arguments.scale_input, outputs=arguments.scale_output)
    told = Estimate(quantile=None, max_tokens=arguments.max_tokens)
    return Traffic(list(arrivals(columns, told)), bad)


def _played(arguments: argparse.Namespace, models: Sequence[str], rng: np.random.Generator) -> tuple[Columns, int]:
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
    if not within:
        raise UsageError("no arrival lies within the duration")
    records = thinned_records(within, rng)
    if len(records) < len(within):
        _tell(f"thinned to {len(records):,} of {len(within):,} arrivals: capacity is to be thinned alike")
    model = _model(arguments.model, records, models)
    columns = from_trace(records, model, models={name: name for name in models})
    columns = replace(
        columns, region=constant("", len(columns))
    )  # one place is simulated, whatever regions a trace has
    return faster(_labelled(columns, arguments, records, rng), speed), trace.bad


def _model(asked: str | None, records: Sequence[TraceRecord], models: Sequence[str]) -> str:
    """Of the records that name none, or none that the configuration has."""
    unknown = dict.fromkeys(record.model for record in records if record.model is not None).keys() - set(models)
    if unknown and asked is None:
        named = ", ".join(repr(name) for name in sorted(unknown)[:MOST_NAMED])
        raise UsageError(
            f"the trace asks for {named}, which the configuration doesn't have: --model NAME says which is meant, "
            f"one of {', '.join(models)}"
        )
    return asked or models[0]


def _labelled(
    columns: Columns, arguments: argparse.Namespace, records: Sequence[TraceRecord], rng: np.random.Generator
) -> Columns:
    """Who sends, drawn where the trace doesn't say it."""
    drawn = with_tenants(columns, zipf(arguments.tenants), rng).tenant
    columns = replace(columns, tenant=filled(columns.tenant, drawn, _missing([r.tenant for r in records])))
    drawn = with_sessions(columns, rng).session
    columns = replace(columns, session=filled(columns.session, drawn, _missing([r.session for r in records])))
    drawn = with_priorities(columns, _priorities(arguments), rng).priority
    return replace(columns, priority=filled(columns.priority, drawn, _missing([r.priority for r in records])))


def _missing(words: Sequence[str | None]) -> Flags:
    return np.array([not word for word in words])


def _priorities(arguments: argparse.Namespace) -> dict[Priority, float]:
    return dict(arguments.priority) or {Priority.INTERACTIVE: 1.0}


def _generated(arguments: argparse.Namespace, models: Sequence[str], rng: np.random.Generator) -> tuple[Columns, int]:
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
    columns = generated(servegen.rates.bins, servegen.lengths.windows, stretch, arguments.model or models[0], rng)
    if not len(columns):
        raise UsageError("no arrival lies within the duration")
    columns = thinned(columns, rng)  # a count by chance may be a little more than was expected
    return with_priorities(faster(columns, arguments.speed), _priorities(arguments), rng), bad


def _tell_bad_lines(bad: int, first: Sequence[BadLine]) -> None:
    if bad:
        _tell(f"{bad} lines of the trace were left out:")
    for line in first:
        print(f"  line {line.number}: {line.reason}", file=sys.stderr)


def _tell(text: str) -> None:
    print(f"spillway simulate: {text}", file=sys.stderr)
