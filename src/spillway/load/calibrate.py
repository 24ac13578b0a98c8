"""A load sweep against a live pool: what a request's residence is at each load, and the line through it.

Each level is a closed loop of fixed lengths. Its first part, while the loop fills and everybody is in step, is left out. What is
fitted is residence against the load that was measured, not the one that was asked for; Little's law (load = throughput ·
residence) is checked beside it. The sweep ends where the pool is over-saturated: such points lie on no line.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import SpillwayError
from spillway.load.arrivals import ClosedLoop
from spillway.load.corpus import Yardstick
from spillway.load.fit import Line, Point, fit_line, held_out_errors
from spillway.load.probe import probe
from spillway.load.record import RequestRecord
from spillway.load.run import Limits, LoadRun
from spillway.load.sizes import drawn_sizes
from spillway.load.slo import Slo
from spillway.load.target import RequestMaker
from spillway.net.ports import Origin, Receiver, Ticket

WARMUP_SHARE = 0.3
LEAST_GAIN = 0.03  # less throughput than this for more load: the pool is full
TTFT_BLOWN = 10.0  # times the TTFT of the first level
MOST_ERRORS = 0.02
FLOOR_OF_ERROR = 0.002  # no mean is known better than this share of it: the machine's own noise


class CalibrationError(SpillwayError):
    """Nothing could be measured: every request failed, or none ended within a level."""


class Plan(msgspec.Struct, frozen=True):
    """`levels`: how many requests are kept in flight, ascending. `duration_s` and `most_requests` bound each level."""

    levels: tuple[int, ...]
    duration_s: Seconds
    input_tokens: int
    output_tokens: int
    timeout_s: Seconds = 120.0
    most_requests: int = 100_000


class Level(msgspec.Struct, frozen=True):
    """`in_flight` and `little` should agree: the mean load, and throughput · residence. `requests` ended well within the window."""

    concurrency: int
    requests: int
    errors: int
    in_flight: float
    little: float
    residence_s: Seconds
    residence_error_s: Seconds
    ttft_s: Seconds | None
    throughput_rps: float
    input_tokens: float
    output_tokens: float
    fitted: bool = True


class Calibration(msgspec.Struct, frozen=True):
    """`held_out`: of each fitted level, by what share the line through the others misses it. `saturated`: why the sweep ended."""

    line: Line
    levels: tuple[Level, ...]
    held_out: tuple[float, ...]
    saturated: str | None
    input_tokens: int
    output_tokens: int


class Spread:
    """Several endpoints as one origin, in turn: with equal requests the turn is as good as the least load."""

    __slots__ = ("_next", "_origins")

    def __init__(self, origins: Sequence[Origin]) -> None:
        self._origins = origins
        self._next = 0

    def send(self, request: bytes, receiver: Receiver) -> Ticket:
        self._next = (self._next + 1) % len(self._origins)
        return self._origins[self._next].send(request, receiver)


async def calibrate(
    plan: Plan,
    origin: Origin,
    maker: RequestMaker,
    clock: Clock,
    yardstick: Yardstick | None,
    told: Callable[[Level], None],
) -> Calibration:
    """Runs the sweep; `told` hears each level. Raises ProbeError, CalibrationError and FitError."""
    maker.measure_with(yardstick or await probe(origin, maker, clock, plan.timeout_s))
    levels: list[Level] = []
    saturated: str | None = None
    for concurrency in plan.levels:
        level = level_of(concurrency, await _run(plan, concurrency, origin, maker, clock), plan)
        saturated = over_saturated(levels, level)
        levels.append(msgspec.structs.replace(level, fitted=saturated is None))
        told(levels[-1])
        if saturated is not None:
            break
    fitted = [level for level in levels if level.fitted]
    points = [Point(level.in_flight, level.residence_s, level.residence_error_s) for level in fitted]
    requests = sum(level.requests for level in fitted)
    return Calibration(
        fit_line(points),
        tuple(levels),
        tuple(held_out_errors(points)),
        saturated,
        round(sum(level.input_tokens * level.requests for level in fitted) / requests),
        round(sum(level.output_tokens * level.requests for level in fitted) / requests),
    )


async def _run(plan: Plan, concurrency: int, origin: Origin, maker: RequestMaker, clock: Clock) -> list[RequestRecord]:
    sizes = drawn_sizes(plan.input_tokens, 0, plan.output_tokens, 0, np.random.default_rng(concurrency))
    limits = Limits(max_concurrency=concurrency, duration_s=plan.duration_s, timeout_s=plan.timeout_s, drain_s=0.0)

    def sink(record: RequestRecord) -> None:
        """The run returns its records anyway."""

    loop = ClosedLoop(plan.duration_s, plan.most_requests)
    return await LoadRun(origin, loop, sizes, maker, limits, clock, sink).run()


def level_of(concurrency: int, records: Sequence[RequestRecord], plan: Plan) -> Level:
    """The figures of a level, from what happened after its warm-up. Raises CalibrationError."""
    begin_s, end_s = plan.duration_s * WARMUP_SHARE, plan.duration_s
    failed = [record for record in records if record.error not in (None, "unfinished")]
    ended = [
        record for record in records if record.error is None and record.last_s and begin_s <= record.last_s <= end_s
    ]
    if not ended:
        reason = f"all fail, the first with {failed[0].error!r}" if failed else "none ended in time (--duration-s)"
        raise CalibrationError(f"{concurrency} at once: of {len(records)} requests {reason}")
    times = np.array([(record.last_s or 0.0) - (record.sent_s or 0.0) for record in ended])
    busy_s = sum(_overlap(record, begin_s, end_s) for record in records)
    ttfts = [record.first_s - record.sent_s for record in ended if record.first_s and record.sent_s is not None]
    mean_s = float(times.mean())
    deviation_s = float(times.std(ddof=1)) if len(times) > 1 else mean_s
    throughput_rps = len(ended) / (end_s - begin_s)
    return Level(
        concurrency=concurrency,
        requests=len(ended),
        errors=len(failed),
        in_flight=busy_s / (end_s - begin_s),
        little=throughput_rps * mean_s,
        residence_s=mean_s,
        residence_error_s=max(deviation_s / len(times) ** 0.5, FLOOR_OF_ERROR * mean_s),
        ttft_s=float(np.median(ttfts)) if ttfts else None,
        throughput_rps=throughput_rps,
        input_tokens=float(np.mean([record.prompt_tokens or record.input_tokens for record in ended])),
        output_tokens=float(np.mean([record.output_tokens for record in ended])),
    )


def over_saturated(before: Sequence[Level], level: Level) -> str | None:
    """Why this level is past what the pool can do, or None."""
    if level.errors > MOST_ERRORS * (level.requests + level.errors):
        return f"{level.errors} of {level.requests + level.errors} requests failed at {level.concurrency} at once"
    if not before:
        return None
    if (
        level.throughput_rps * level.output_tokens
        < (1 + LEAST_GAIN) * before[-1].throughput_rps * before[-1].output_tokens
    ):
        return f"throughput no longer grows at {level.concurrency} at once"
    if level.ttft_s and before[0].ttft_s and level.ttft_s > TTFT_BLOWN * before[0].ttft_s:
        return f"TTFT at {level.concurrency} at once is more than {TTFT_BLOWN:g} times that of the first level"
    return None


class Best(msgspec.Struct, frozen=True):
    """b* and λ* under an SLO; λ* in requests of the reference shape per second."""

    b_star: float
    lambda_star: float


def best_under(slo: Slo, calibration: Calibration) -> Best | None:
    """T_slo = TTFT + TPOT · (n_out − 1), or the bound on the whole where that is tighter; b* = (T_slo − x)/y,
    λ* = (1 − x/T_slo)/y. None without such a bound; zeros where even an idle pool is too slow."""
    bounds_ms: list[float] = []
    if slo.ttft_ms is not None and slo.tpot_ms is not None:
        bounds_ms.append(slo.ttft_ms + slo.tpot_ms * (calibration.output_tokens - 1))
    if slo.e2e_ms is not None:
        bounds_ms.append(slo.e2e_ms)
    if not bounds_ms:
        return None
    most_s, line = min(bounds_ms) / 1000, calibration.line
    return Best(max(0.0, (most_s - line.x_s) / line.y_s), max(0.0, (1 - line.x_s / most_s) / line.y_s))


def _overlap(record: RequestRecord, begin_s: Seconds, end_s: Seconds) -> Seconds:
    if record.sent_s is None:
        return 0.0
    until_s = end_s if record.last_s is None else record.last_s
    return max(0.0, min(until_s, end_s) - max(record.sent_s, begin_s))
