"""Who sends what a trace does not say: tenants, priorities, regions and sessions, drawn by chance.

A session stays whole: all its requests have the tenant, the priority and the region that were drawn for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np

from spillway.core.clock import Seconds
from spillway.core.errors import ConfigError
from spillway.core.priority import Priority
from spillway.planner.columns import Coded, Columns, Ints
from spillway.planner.reshaping import mean_rps


def zipf(count: int, exponent: float = 1.0) -> tuple[float, ...]:
    """Shares in proportion to 1 / kᵉ of the k-th. Raises ConfigError for no tenants."""
    if count < 1:
        raise ConfigError("at least one tenant")
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    return tuple((weights / weights.sum()).tolist())


def with_tenants(columns: Columns, shares: Sequence[float], rng: np.random.Generator) -> Columns:
    """`tenant-0`, `tenant-1` … with these shares of the sessions (of the requests where there are none)."""
    tenant = Coded(_drawn(columns, shares, rng), tuple(f"tenant-{number}" for number in range(len(shares))))
    return replace(columns, tenant=tenant)


def with_priorities(columns: Columns, shares: Mapping[Priority, float], rng: np.random.Generator) -> Columns:
    return replace(columns, priority=Coded(_drawn(columns, tuple(shares.values()), rng), tuple(shares)))


def with_regions(columns: Columns, shares: Mapping[str, float], rng: np.random.Generator) -> Columns:
    return replace(columns, region=Coded(_drawn(columns, tuple(shares.values()), rng), tuple(shares)))


def with_sessions(
    columns: Columns, rng: np.random.Generator, *, turns: float = 5.0, think_s: Seconds = 60.0
) -> Columns:
    """Each tenant's requests as sessions of `turns` on average, `think_s` apart: a request begins one with the chance 1 / turns, or goes on
    with one of the rate · think_s latest (that many are open when each lasts turns · think_s)."""
    codes = columns.tenant.codes
    session = np.empty(len(columns), np.int64)
    names: list[str] = []
    rate_rps = mean_rps(columns)
    for place, tenant in enumerate(columns.tenant.values):
        rows = np.flatnonzero(codes == place)
        if not len(rows):
            continue
        open_at_once = rate_rps * len(rows) / len(columns) * think_s
        numbers = session_numbers(len(rows), open_at_once, turns, rng)
        session[rows] = numbers + len(names)
        names += [f"{tenant}/{number}" for number in range(int(numbers.max()) + 1)]
    return replace(columns, session=Coded(session, tuple(names)))


def session_numbers(count: int, open_at_once: float, turns: float, rng: np.random.Generator) -> Ints:
    """Of `count` requests in order of time, the sessions that they belong to: 0, 1 … in order of their beginnings."""
    if not turns >= 1:
        raise ConfigError(f"a session has at least 1 turn, not {turns}")
    begins = rng.random(count) < 1 / turns
    begins[:1] = True
    latest = np.cumsum(begins) - 1
    reach = np.minimum(latest + 1, max(1, round(open_at_once)))
    back = np.floor(rng.random(count) * reach).astype(np.int64)
    return np.where(begins, latest, latest - back)


def _drawn(columns: Columns, shares: Sequence[float], rng: np.random.Generator) -> Ints:
    """A place in `shares` for each request: for sessions one draw each, for requests without a session one each."""
    if not shares or not all(isfinite(share) and share >= 0 for share in shares) or not any(shares):
        raise ConfigError("shares are finite, not negative, and not all 0")
    weights = np.array(shares, np.float64)
    weights /= weights.sum()
    session = columns.session
    of_session = rng.choice(len(weights), len(session.values), p=weights)
    nameless = np.array([not name for name in session.values])
    drawn = of_session[session.codes].astype(np.int64)
    alone = np.flatnonzero(nameless[session.codes])
    drawn[alone] = rng.choice(len(weights), len(alone), p=weights)
    return drawn
