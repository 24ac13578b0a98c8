"""From a trace to columns, and from columns to what a simulation is told."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from zlib import crc32

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.core.ids import ModelName, OrganizationId, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.arrival import Arrival
from spillway.planner.columns import Columns, Floats, Ints, check_count, coded, constant
from spillway.traffic.events import Arrived
from spillway.wire.traces import TraceRecord

BODY_BYTES_PER_TOKEN = 4
PREFIX_BLOCK_TOKENS = 512
"""Blocks of a trace that are shorter are joined to about so many: what the brain knows of prefixes is bounded by number."""

MOST_PREFIX_BLOCKS = 256
MADE_AT_ONCE = 1 << 14


class Estimate(msgspec.Struct, frozen=True):
    """What a gateway tells the brain of an output before it exists: the `quantile` of its tenant's outputs, as one would have learned
    it, and no more than the `max_tokens` that clients send. Neither: what it will be."""

    quantile: float | None = 0.7
    max_tokens: int | None = None


TRUTH = Estimate(quantile=None)


def from_trace(
    records: Sequence[TraceRecord], model: str, *, models: Mapping[str, str] | None = None, region: str = ""
) -> Columns:
    """The records of a trace. `models`: what the trace's words for models stand for; all else asks for `model`. `region`: of those
    that name none. A record without a tenant has the tenant "", one without a priority is interactive.

    Raises ConfigError for no records and for more than MAX_ARRIVALS.
    """
    if not records:
        raise ConfigError("no records")
    check_count(len(records))
    named = models or {}
    places = [_prefix(record) for record in records]
    return Columns(
        np.array([record.offset_s for record in records], np.float64),
        np.array([record.input_tokens for record in records], np.int64),
        np.array([record.output_tokens for record in records], np.int64),
        np.array([block_tokens for block_tokens, _ in places], np.int64),
        np.array([np.inf if record.deadline_s is None else record.deadline_s for record in records], np.float64),
        coded([model if record.model is None else named.get(record.model, model) for record in records]),
        coded([record.tenant or "" for record in records]),
        coded([record.organization or "" for record in records]),
        coded([record.user or "" for record in records]),
        coded([record.session or "" for record in records]),
        coded([region if record.region is None else record.region for record in records]),
        coded([record.priority or Priority.INTERACTIVE for record in records]),
        coded([prefix for _, prefix in places]),
    )


def plain(at_s: Floats, input_tokens: Ints, output_tokens: Ints, model: str, *, region: str = "") -> Columns:
    """Arrivals of which nothing else is known."""
    count = len(at_s)
    word = constant("", count)
    return Columns(
        at_s, input_tokens, output_tokens, np.full(count, PREFIX_BLOCK_TOKENS, np.int64), np.full(count, np.inf),
        constant(model, count), word, word, word, word, constant(region, count), constant(Priority.INTERACTIVE, count),
        constant((), count),
    )  # fmt: skip


def arrivals(columns: Columns, estimate: Estimate | None = None, *, name: str = "r") -> Iterator[Arrival]:
    """In order of time. Request ids are `name` and a number from 0 on: two streams that are merged need two names."""
    estimates = estimated(columns, estimate or Estimate())
    number = 0
    for begin in range(0, len(columns), MADE_AT_ONCE):
        rows = np.arange(begin, min(begin + MADE_AT_ONCE, len(columns)))
        part = columns.at(rows, columns.at_s[rows])
        for (
            at_s, inputs, outputs, told, block_tokens, deadline_s, model, tenant, organization, user, session, region, priority, prefix,
        ) in zip(
            part.at_s.tolist(), part.input_tokens.tolist(), part.output_tokens.tolist(), estimates[rows].tolist(),
            part.block_tokens.tolist(), part.deadline_s.tolist(), part.model.listed(), part.tenant.listed(),
            part.organization.listed(), part.user.listed(), part.session.listed(), part.region.listed(), part.priority.listed(),
            part.prefix.listed(), strict=True,
        ):  # fmt: skip
            arrived = Arrived(
                RequestId(f"{name}{number}"), ModelName(model), TenantId(tenant), priority, inputs, told, inputs * BODY_BYTES_PER_TOKEN,
                session, OrganizationId(organization), user, deadline_s=None if deadline_s == np.inf else deadline_s, prefix=prefix,
                block_tokens=block_tokens,
            )  # fmt: skip
            yield Arrival(at_s, region, outputs, arrived)
            number += 1


def merged(*streams: Iterable[Arrival]) -> Iterator[Arrival]:
    """Several streams as one, in order of time."""
    return merge(*streams, key=_at_s)


def estimated(columns: Columns, estimate: Estimate) -> Ints:
    """Of each output, what the gateway tells the brain."""
    told = columns.output_tokens
    if estimate.quantile is not None:
        told = _learned(columns, estimate.quantile)
    elif estimate.max_tokens is not None:
        return np.full(len(columns), estimate.max_tokens, np.int64)
    return told if estimate.max_tokens is None else np.minimum(told, estimate.max_tokens)


def _learned(columns: Columns, quantile: float) -> Ints:
    codes = columns.tenant.codes
    by_tenant = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[by_tenant], prepend=-1))
    told = np.empty(len(columns), np.int64)
    for rows in np.split(by_tenant, starts[1:]):
        told[rows] = round(float(np.quantile(columns.output_tokens[rows], quantile)))
    return told


def _prefix(record: TraceRecord) -> tuple[int, tuple[int, ...]]:
    """Tokens a hash, and hashes of the leading blocks, each chained to the ones before it."""
    if not record.hash_ids:
        return PREFIX_BLOCK_TOKENS, ()
    together = max(1, PREFIX_BLOCK_TOKENS // record.block_tokens)
    whole = max(1, len(record.hash_ids) // together)
    hashed, hashes = 0, list[int]()
    for block in range(min(whole, MOST_PREFIX_BLOCKS)):
        ids = record.hash_ids[block * together : (block + 1) * together]
        hashed = crc32(repr(ids).encode(), hashed)
        hashes.append(hashed)
    return together * record.block_tokens, tuple(hashes)


def _at_s(arrival: Arrival) -> Seconds:
    return arrival.at_s
