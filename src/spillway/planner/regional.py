"""Arrivals of one day in several regions, from ServeGen's rates: each client a tenant, its unevenness kept."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.arrival import Arrival
from spillway.traffic.events import Arrived
from spillway.wire.traces_rates import BIN_S, RateBin

DAY_S: Seconds = 86_400.0
HOUR_S: Seconds = 3600.0
BINS_A_DAY = round(DAY_S / BIN_S)
MOST_CV = 13.0  # ServeGen's largest that is not a fit to next to nothing
SESSIONS = 64  # of one client


class Shape(msgspec.Struct, frozen=True):
    """Token counts are log-normal with these means and sigmas, and at least 1."""

    input_tokens: float
    output_tokens: float
    input_sigma: float
    output_sigma: float


def day_of(
    bins: Sequence[RateBin],
    rates_rps: Mapping[str, float],
    rng: np.random.Generator,
    *,
    shape: Shape,
    model: ModelName,
    priorities: Sequence[tuple[Priority, float]],
    day: int,
    speed: float,
    hours: tuple[float, float] = (0.0, 24.0),
    most_cv: float = MOST_CV,
) -> list[Arrival]:
    """Region k of n lives k · 24 / n hours later than the first. `rates_rps`: the mean rate of a whole day by region.

    `speed`: a bin of ten minutes lasts 600 / speed seconds, at the same rates: the day's shape is kept and has fewer requests.
    `most_cv`: of gaps; 1 makes all clients Poisson at most. `hours`: the part of the first region's day that is played.
    """
    drawn: list[tuple[float, str, int, int]] = []
    for place, (region, rate_rps) in enumerate(rates_rps.items()):
        shift_s = place * DAY_S / len(rates_rps)
        for client, (profile, cv) in profiles(bins, day).items():
            turned = np.roll(profile, round(shift_s / BIN_S)) * rate_rps
            at_s = renewal(turned, min(cv, most_cv), rng, speed)
            kept = at_s[(at_s >= hours[0] * HOUR_S / speed) & (at_s < hours[1] * HOUR_S / speed)]
            sessions = rng.integers(0, SESSIONS, len(kept))
            drawn += [
                (at, region, client, session) for at, session in zip(kept.tolist(), sessions.tolist(), strict=True)
            ]
    drawn.sort()
    return _arrivals(drawn, hours[0] * HOUR_S / speed, rng, shape, model, priorities)


def profiles(bins: Sequence[RateBin], day: int) -> dict[int, tuple[np.ndarray, float]]:
    """By client: its rate in each bin of the day, with all clients' mean over the day 1; and its mean CV."""
    rates: dict[int, np.ndarray] = {}
    unevenness: dict[int, list[tuple[float, float]]] = {}
    for one in bins:
        if day * DAY_S <= one.offset_s < (day + 1) * DAY_S and one.rate_rps > 0:
            place = int((one.offset_s - day * DAY_S) // BIN_S)
            rates.setdefault(one.client, np.zeros(BINS_A_DAY))[place] += one.rate_rps
            unevenness.setdefault(one.client, []).append((one.rate_rps, min(one.cv, MOST_CV)))
    mean_rps = sum(float(rate.mean()) for rate in rates.values())
    return {
        client: (rates[client] / mean_rps, sum(r * cv for r, cv in seen) / sum(r for r, _ in seen))
        for client, seen in sorted(unevenness.items())
    }


def renewal(rates_rps: np.ndarray, cv: float, rng: np.random.Generator, speed: float) -> np.ndarray:
    """Times of a renewal process with Gamma gaps of this CV, run through the integral of the rate: rates of bins and the CV both hold."""
    bin_s = BIN_S / speed
    expected = np.concatenate(([0.0], np.cumsum(rates_rps) * bin_s))
    if expected[-1] <= 0.0:
        return np.empty(0)
    squared = max(cv, 0.1) ** 2
    count = int(expected[-1] + 6.0 * np.sqrt(expected[-1] * max(1.0, squared)) + 16)
    operational = np.cumsum(rng.gamma(1.0 / squared, squared, count)) - rng.uniform() * squared
    operational = operational[(operational > 0.0) & (operational < expected[-1])]
    return np.interp(operational, expected, np.arange(len(expected)) * bin_s)


def _arrivals(
    drawn: Sequence[tuple[float, str, int, int]],
    from_s: Seconds,
    rng: np.random.Generator,
    shape: Shape,
    model: ModelName,
    priorities: Sequence[tuple[Priority, float]],
) -> list[Arrival]:
    count = len(drawn)
    inputs = _lengths(shape.input_tokens, shape.input_sigma, count, rng)
    outputs = _lengths(shape.output_tokens, shape.output_sigma, count, rng)
    shares = np.array([share for _, share in priorities])
    ranks = rng.choice(len(priorities), count, p=shares / shares.sum()).tolist()
    told = round(shape.output_tokens)  # what the gateway has learned to expect
    return [
        Arrival(
            at_s - from_s,
            region,
            outputs[number],
            Arrived(
                RequestId(f"r{number}"),
                model,
                TenantId(f"{region}/{client}"),
                priorities[ranks[number]][0],
                inputs[number],
                told,
                4 * inputs[number],
                f"{region}/{client}/{session}",
            ),
        )
        for number, (at_s, region, client, session) in enumerate(drawn)
    ]


def _lengths(mean: float, sigma: float, count: int, rng: np.random.Generator) -> list[int]:
    drawn = rng.lognormal(np.log(mean) - sigma * sigma / 2, sigma, count)
    return np.maximum(1, np.rint(drawn)).astype(int).tolist()
