"""Arrivals from ServeGen's clients: how often and how unevenly each sent in each ten minutes, and how long its requests were.

Each client is a renewal process: gaps are Gamma or Weibull, as its bin says, with the bin's CV, and run in operational time, the
integral of its rate. What is left of a gap at the end of a bin goes on in the next at the next one's rate, so that neither
rates nor CVs bend at the borders; the first gap is what one who comes at a random moment waits (the equilibrium distribution,
D. R. Cox, Renewal Theory, 1962: a uniform part of a gap drawn in proportion to its length). Lower rates have the same CVs.
The shape follows from the CV that was measured, not from the fitted shape in the file, with which it often doesn't agree.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import floor, gamma, isfinite, sqrt

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.planner.arrivals import plain
from spillway.planner.columns import Coded, Columns, Floats, Ints, check_count
from spillway.planner.labels import session_numbers
from spillway.wire.traces_lengths import PROBABILITIES, WINDOW_S, LengthWindow
from spillway.wire.traces_rates import BIN_S, ArrivalPattern, RateBin

LEAST_CV = 0.05
MOST_CV = 13.0
"""Larger ones are fits to a handful of requests: one bin in fifty."""

_WEIBULL_SHAPES = np.geomspace(0.12, 25.0, 400)
_WEIBULL_CVS = np.array([sqrt(gamma(1 + 2 / k) / gamma(1 + 1 / k) ** 2 - 1) for k in _WEIBULL_SHAPES])


class Stretch(msgspec.Struct, frozen=True):
    """Which part of the clients' weeks is lived, and how. `from_s` and `duration_s` are times of the rates; with `shift_s` the same hours
    come so much later, as they do in a region to the west; after the last bin the first comes again. `rate_rps`: the mean over the
    stretch, None: as recorded. `speed`: the stretch takes duration_s / speed, at the same rates."""

    duration_s: Seconds
    rate_rps: float | None = None
    from_s: Seconds = 0.0
    shift_s: Seconds = 0.0
    speed: float = 1.0


def generated(
    bins: Sequence[RateBin],
    lengths: Sequence[LengthWindow],
    stretch: Stretch,
    model: str,
    rng: np.random.Generator,
    *,
    region: str = "",
    turns: float = 5.0,
    think_s: Seconds = 60.0,
) -> Columns:
    """What the clients send during the stretch, with times from 0 on. Each client is a tenant, `REGION/client-N`, with sessions of `turns` on
    average, `think_s` apart.

    The same generator gives the same arrivals. Raises ConfigError where no client sends anything, and for more than MAX_ARRIVALS.
    """
    rates = _rates(bins)
    scale, expected = _scale(rates, stretch)
    check_count(expected)
    quantiles = _Quantiles(lengths)
    parts: list[tuple[int, Floats, Ints, Ints, Ints]] = []
    for client, client_rng in zip(sorted(rates.by_client), rng.spawn(len(rates.by_client)), strict=True):
        at_s = _renewal(list(_lived(rates, client, stretch, scale)), client_rng)
        if len(at_s):
            inputs, outputs = quantiles.drawn(client, _time_of_rates(at_s, stretch) % rates.period_s, client_rng)
            open_at_once = len(at_s) / stretch.duration_s * stretch.speed * think_s
            parts.append((client, at_s, inputs, outputs, session_numbers(len(at_s), open_at_once, turns, client_rng)))
    if not parts:
        raise ConfigError("no client sends anything in this stretch")
    return _columns(parts, stretch, model, region)


def recorded_count(bins: Sequence[RateBin], stretch: Stretch) -> float:
    """How many requests the stretch is expected to have. Raises ConfigError for an impossible stretch."""
    _, wanted = _scale(_rates(bins), stretch)
    return wanted


def concentration(bins: Sequence[RateBin]) -> dict[int, float]:
    """Of each client, its share of all requests."""
    totals: dict[int, float] = {}
    for one in bins:
        totals[one.client] = totals.get(one.client, 0.0) + one.rate_rps
    whole = sum(totals.values())
    return {client: total / whole for client, total in sorted(totals.items(), key=lambda item: -item[1])}


class _Rates(msgspec.Struct, frozen=True):
    by_client: dict[int, dict[int, RateBin]]  # by number of the bin
    bins: int

    @property
    def period_s(self) -> Seconds:
        return self.bins * BIN_S


class _Lived(msgspec.Struct, frozen=True, gc=False):
    """A bin, or a part of one, as it is lived: [from_s, until_s) of the stretch."""

    from_s: Seconds
    until_s: Seconds
    rate_rps: float
    of: RateBin


def _rates(bins: Sequence[RateBin]) -> _Rates:
    by_client: dict[int, dict[int, RateBin]] = {}
    for one in bins:
        if one.rate_rps > 0:
            by_client.setdefault(one.client, {})[floor(one.offset_s / BIN_S)] = one
    if not by_client:
        raise ConfigError("no bins with requests")
    return _Rates(by_client, 1 + max(max(of) for of in by_client.values()))


def _scale(rates: _Rates, stretch: Stretch) -> tuple[float, float]:
    """What recorded rates are multiplied by, and how many requests are then expected."""
    if not all(isfinite(value) for value in (stretch.from_s, stretch.shift_s, stretch.duration_s, stretch.speed)):
        raise ConfigError("the times and the speed of a stretch are finite")
    if not (stretch.duration_s > 0 and stretch.speed > 0):
        raise ConfigError("the duration and the speed of a stretch are above 0")
    recorded = sum(
        lived.rate_rps * (lived.until_s - lived.from_s)
        for client in rates.by_client
        for lived in _lived(rates, client, stretch, 1.0)
    )
    if recorded <= 0:
        raise ConfigError("no client sends anything in this stretch")
    wanted = recorded if stretch.rate_rps is None else stretch.rate_rps * stretch.duration_s
    if not (isfinite(wanted) and wanted > 0):
        raise ConfigError("the rate of a stretch is above 0")
    return wanted / recorded / stretch.speed, wanted / stretch.speed


def _lived(rates: _Rates, client: int, stretch: Stretch, scale: float) -> Iterator[_Lived]:
    """In order of time; gaps between them are times without traffic."""
    of_client = rates.by_client[client]
    begin_s = stretch.from_s - stretch.shift_s
    first = floor(begin_s / BIN_S)
    last = floor((begin_s + stretch.duration_s) / BIN_S)
    for number in range(first, last + 1):
        one = of_client.get(number % rates.bins)
        from_s, until_s = max(0.0, number * BIN_S - begin_s), min(stretch.duration_s, (number + 1) * BIN_S - begin_s)
        if one is not None and from_s < until_s:
            yield _Lived(from_s, until_s, one.rate_rps * scale, one)


def _time_of_rates(at_s: Floats, stretch: Stretch) -> Floats:
    return at_s + (stretch.from_s - stretch.shift_s)


def _renewal(bins: Sequence[_Lived], rng: np.random.Generator) -> Floats:
    """Times of one client's arrivals, ascending."""
    if not bins:
        return np.empty(0)
    left = _first_gap(bins[0].of, rng)
    times: list[Floats] = []
    for lived in bins:
        expected = lived.rate_rps * (lived.until_s - lived.from_s)
        if left < expected:
            passed, left = _passed(left, expected, lived.of, rng)
            times.append(lived.from_s + passed / lived.rate_rps)
        else:
            left -= expected
    return np.concatenate(times) if times else np.empty(0)


def _passed(left: float, expected: float, of: RateBin, rng: np.random.Generator) -> tuple[Floats, float]:
    """Operational times of the arrivals in [0, expected), the first at `left`; and what is left of the last gap at the end."""
    cv = _cv(of)
    draws = int(expected + 3 * cv * sqrt(expected)) + 16
    chunks, at = [np.array([left])], left
    while at < expected:
        chunk = at + np.cumsum(_gaps(of.pattern, cv, draws, rng))
        chunks.append(chunk)
        at = float(chunk[-1])
    passed = np.concatenate(chunks)
    count = int(np.searchsorted(passed, expected))
    return passed[:count], float(passed[count] - expected)


def _gaps(pattern: ArrivalPattern, cv: float, count: int, rng: np.random.Generator) -> Floats:
    """With mean 1."""
    if pattern is ArrivalPattern.GAMMA:
        return rng.gamma(cv**-2, cv**2, count)
    shape = _weibull_shape(cv)
    return rng.weibull(shape, count) / gamma(1 + 1 / shape)


def _first_gap(of: RateBin, rng: np.random.Generator) -> float:
    """A uniform part of a gap that is drawn in proportion to its length: such a Gamma gap has a shape larger by 1, such a Weibull gap is
    the (1/k)-th power of a Gamma variable of shape 1 + 1/k."""
    cv = _cv(of)
    if of.pattern is ArrivalPattern.GAMMA:
        return rng.random() * rng.gamma(cv**-2 + 1, cv**2)
    shape = _weibull_shape(cv)
    return rng.random() * rng.gamma(1 + 1 / shape) ** (1 / shape) / gamma(1 + 1 / shape)


def _cv(of: RateBin) -> float:
    return min(max(of.cv, LEAST_CV), MOST_CV)


def _weibull_shape(cv: float) -> float:
    return float(np.interp(cv, _WEIBULL_CVS[::-1], _WEIBULL_SHAPES[::-1]))


class _Quantiles:
    """Finds the lengths of a client at a time: of its window, else of its nearest, else the mean of all windows."""

    def __init__(self, windows: Sequence[LengthWindow]) -> None:
        if not windows:
            raise ConfigError("no lengths")
        self._of: dict[int, list[LengthWindow]] = {}
        for window in windows:
            self._of.setdefault(window.client, []).append(window)
        self._mean = tuple(
            np.mean([getattr(window, name) for window in windows], axis=0) for name in ("inputs", "outputs")
        )

    def drawn(self, client: int, times_s: Floats, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Input and output tokens, drawn for themselves: ServeGen has no joint distribution."""
        inputs, outputs = np.empty(len(times_s), np.int64), np.empty(len(times_s), np.int64)
        windows = np.floor(times_s / WINDOW_S).astype(np.int64)
        for number in np.unique(windows).tolist():
            rows = np.flatnonzero(windows == number)
            for column, quantiles in zip((inputs, outputs), self._at(client, number * WINDOW_S), strict=True):
                drawn = np.interp(rng.random(len(rows)), PROBABILITIES, quantiles)
                column[rows] = np.maximum(1, np.rint(drawn)).astype(np.int64)
        return inputs, outputs

    def _at(self, client: int, offset_s: Seconds) -> tuple[Sequence[float] | Floats, ...]:
        of_client = self._of.get(client)
        if of_client is None:
            return self._mean
        nearest = min(of_client, key=lambda window: abs(window.offset_s - offset_s))
        return nearest.inputs, nearest.outputs


def _columns(
    parts: Sequence[tuple[int, Floats, Ints, Ints, Ints]], stretch: Stretch, model: str, region: str
) -> Columns:
    at_s = np.concatenate([times for _, times, _, _, _ in parts])
    rows = np.argsort(at_s, kind="stable")
    tenants = tuple(f"{region}/client-{client}" if region else f"client-{client}" for client, *_ in parts)
    sessions: list[str] = []
    numbered: list[Ints] = []
    for tenant, (_, _, _, _, numbers) in zip(tenants, parts, strict=True):
        numbered.append(numbers + len(sessions))
        sessions += [f"{tenant}/{number}" for number in range(int(numbers.max()) + 1)]
    codes = np.repeat(np.arange(len(parts)), [len(times) for _, times, _, _, _ in parts])
    columns = plain(
        at_s / stretch.speed,
        np.concatenate([inputs for _, _, inputs, _, _ in parts]),
        np.concatenate([outputs for _, _, _, outputs, _ in parts]),
        model,
        region=region,
    )
    told = replace(columns, tenant=Coded(codes, tenants), session=Coded(np.concatenate(numbered), tuple(sessions)))
    return told.at(rows, told.at_s[rows])
