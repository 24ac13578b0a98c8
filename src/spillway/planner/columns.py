"""Arrivals as columns: arrays with an entry for each request, in order of time. What makes and reshapes traffic works on these;
`arrivals` turns them into what a simulation is told, one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from spillway.core.errors import ConfigError
from spillway.core.priority import Priority

MAX_ARRIVALS = 5_000_000
"""In one set of columns: about 130 bytes each, and as many again while they are reshaped."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Coded(Generic[Value]):
    """A column of which many entries are equal: each of `codes` is a place in `values`."""

    codes: Ints
    values: tuple[Value, ...]

    def at(self, rows: Ints) -> "Coded[Value]":
        return Coded(self.codes[rows], self.values)

    def listed(self) -> list[Value]:
        """An entry for each request."""
        values = self.values
        return [values[code] for code in self.codes.tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """`at_s` ascends. `output_tokens`: what will be generated. Empty words: not known. `deadline_s` is infinite where there is none.
    `prefix`: chained hashes of the prompt's leading blocks, each of `block_tokens`."""

    at_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    block_tokens: Ints
    deadline_s: Floats
    model: Coded[str]
    tenant: Coded[str]
    organization: Coded[str]
    user: Coded[str]
    session: Coded[str]
    region: Coded[str]
    priority: Coded[Priority]
    prefix: Coded[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.at_s)

    def at(self, rows: Ints, at_s: Floats) -> "Columns":
        """These rows, at other times (ascending)."""
        return Columns(
            at_s, self.input_tokens[rows], self.output_tokens[rows], self.block_tokens[rows], self.deadline_s[rows],
            self.model.at(rows), self.tenant.at(rows), self.organization.at(rows), self.user.at(rows), self.session.at(rows),
            self.region.at(rows), self.priority.at(rows), self.prefix.at(rows),
        )  # fmt: skip


def constant(value: Value, count: int) -> Coded[Value]:
    return Coded(np.zeros(count, np.int64), (value,))


def coded(values: Sequence[Value]) -> Coded[Value]:
    """Of an entry for each request."""
    places = dict.fromkeys(values)
    for place, value in enumerate(places):
        places[value] = place
    codes = np.fromiter((places[value] for value in values), np.int64, len(values))
    return Coded(codes, tuple(places))


def filled(said: Coded[Value], drawn: Coded[Value], missing: Flags) -> Coded[Value]:
    """What was said, and what was drawn where that is missing."""
    places: dict[Value, int] = {}
    first, second = (
        np.array([places.setdefault(value, len(places)) for value in of.values], np.int64) for of in (said, drawn)
    )
    codes = np.where(missing, second[drawn.codes], first[said.codes])
    return Coded(codes, tuple(places))


def joined(sources: Sequence[Columns]) -> Columns:
    """All arrivals of the sources in order of time; at the same time, in the order of the sources. What has the same name in two
    sources (a tenant, a session) is the same. Raises ConfigError for none and for more than MAX_ARRIVALS."""
    if not sources:
        raise ConfigError("no source of arrivals")
    check_count(sum(len(source) for source in sources))
    at_s = np.concatenate([source.at_s for source in sources])
    rows = np.argsort(at_s, kind="stable")
    together = Columns(
        at_s,
        np.concatenate([source.input_tokens for source in sources]),
        np.concatenate([source.output_tokens for source in sources]),
        np.concatenate([source.block_tokens for source in sources]),
        np.concatenate([source.deadline_s for source in sources]),
        _chained(sources, lambda source: source.model),
        _chained(sources, lambda source: source.tenant),
        _chained(sources, lambda source: source.organization),
        _chained(sources, lambda source: source.user),
        _chained(sources, lambda source: source.session),
        _chained(sources, lambda source: source.region),
        _chained(sources, lambda source: source.priority),
        _chained(sources, lambda source: source.prefix),
    )
    return together.at(rows, at_s[rows])


def check_count(count: float) -> None:
    """Raises ConfigError for more arrivals than are made at once."""
    if count > MAX_ARRIVALS:
        raise ConfigError(
            f"{count:,.0f} arrivals are more than {MAX_ARRIVALS:,}: ask for a shorter time or a lower rate"
        )


def _chained(sources: Sequence[Columns], column: Callable[[Columns], Coded[Value]]) -> Coded[Value]:
    places: dict[Value, int] = {}
    codes: list[Ints] = []
    for source in sources:
        of = column(source)
        of_source = np.array([places.setdefault(value, len(places)) for value in of.values], np.int64)
        codes.append(of_source[of.codes])
    return Coded(np.concatenate(codes), tuple(places))
