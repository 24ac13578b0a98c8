"""A whole bench: probes, then one run, or the runs of a sweep; afterwards the figures."""

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from spillway.core.clock import Clock, Seconds
from spillway.load.arrivals import Arrivals, ClosedLoop, OpenLoop
from spillway.load.corpus import Yardstick
from spillway.load.options import DEFAULT_SWEEP_STEPS, BenchOptions, streams_of
from spillway.load.probe import probe
from spillway.load.record import RequestRecord
from spillway.load.run import Limits, LoadRun
from spillway.load.schedule import Profile, constant_arrivals, gamma_arrivals, replay_arrivals
from spillway.load.sizes import Size, drawn_sizes, trace_sizes
from spillway.load.stats import BenchResult, summarize
from spillway.load.target import RequestMaker
from spillway.net.ports import Origin


class Step(msgspec.Struct, frozen=True):
    """One run of a bench."""

    result: BenchResult
    records: list[RequestRecord]


class BenchReport(msgspec.Struct, frozen=True):
    """`steps` has one run, or all of a sweep in the order they ran. `interrupted`: stopped before the planned end."""

    steps: list[Step]
    yardstick: Yardstick
    interrupted: bool

    @property
    def best(self) -> Step:
        """The run whose figures stand for the whole: of a sweep the one with the highest goodput."""
        return max(self.steps, key=lambda step: step.result.goodput_rps)


class Bench:
    """`run` once. `sink` is told every record of every run when it is complete."""

    def __init__(
        self,
        options: BenchOptions,
        origin: Origin,
        maker: RequestMaker,
        clock: Clock,
        rng: np.random.Generator,
        sink: Callable[[RequestRecord], None],
    ) -> None:
        self._options = options
        self._origin = origin
        self._maker = maker
        self._clock = clock
        # streams of their own: the arrivals of a seed stay the same whatever the lengths are
        self._arrivals_rng, sizes_rng = rng.spawn(2)
        self._sizes = self._fitted(sizes_rng)
        self._sink = sink
        self._steps: list[Step] = []
        self._stopped = False
        self.title = "probes"  # what runs now
        self.current: LoadRun | None = None

    async def run(self) -> BenchReport:
        """Raises ProbeError when the target does not answer."""
        options = self._options
        yardstick = options.yardstick or await probe(self._origin, self._maker, self._clock, options.timeout_s)
        self._maker.measure_with(yardstick)
        if options.profile is Profile.SWEEP:
            await self._sweep(int(options.rate or DEFAULT_SWEEP_STEPS))
        else:
            await self._step(options.profile, options.rate)
        return BenchReport(self._steps, yardstick, self._stopped)

    def stop(self) -> None:
        """Ends at once, with the results so far."""
        self._stopped = True
        if self.current is not None:
            self.current.stop()

    async def _sweep(self, steps: int) -> None:
        """GuideLLM's: the slowest and the fastest the target can go, then constant rates between the two."""
        slowest = await self._step(Profile.SYNCHRONOUS, None)
        fastest = await self._step(Profile.THROUGHPUT, None)
        rates = np.linspace(slowest.throughput_rps, fastest.throughput_rps, steps - 1)[1:]
        for rate in sorted({round(float(rate), 3) for rate in rates if rate > 0}):
            await self._step(Profile.CONSTANT, rate)

    async def _step(self, profile: Profile, rate: float | None) -> BenchResult:
        options = self._options
        limits = Limits(
            max_concurrency=streams_of(options, profile, rate),
            duration_s=options.duration_s,
            warmup_s=options.warmup_s,
            timeout_s=options.timeout_s,
            drain_s=options.drain_s,
        )
        if self._stopped and self._steps:
            return self._steps[-1].result
        run = LoadRun(
            self._origin, self._arrivals(profile, rate), self._sizes, self._maker, limits, self._clock, self._sink,
            step=len(self._steps),
        )  # fmt: skip
        run.stopped = self._stopped
        self.title = f"{profile}{f' {rate:g}' if rate else ''}"
        self.current = run
        records = await run.run()
        planned_s: Seconds | None = None if run.stopped else options.duration_s
        result = summarize(
            records, options.slo, profile=profile, rate=rate, warmup_s=options.warmup_s, planned_s=planned_s
        )
        self._steps.append(Step(result, records))
        return result

    def _arrivals(self, profile: Profile, rate: float | None) -> Arrivals:
        options = self._options
        match profile:
            case Profile.CONSTANT if rate is not None:
                schedule = constant_arrivals(rate)
            case Profile.POISSON if rate is not None:
                schedule = gamma_arrivals(rate, options.burstiness, self._arrivals_rng)
            case Profile.REPLAY if options.trace is not None:
                schedule = replay_arrivals(options.trace.records, options.speed)
            case _:
                return ClosedLoop(options.duration_s, options.max_requests)
        return OpenLoop(schedule, options.duration_s, options.max_requests)

    def _fitted(self, rng: np.random.Generator) -> Iterator[Size]:
        options = self._options
        lengths = options.lengths
        wanted = (
            trace_sizes(options.trace.records)
            if options.trace is not None
            else drawn_sizes(lengths.input_tokens, lengths.input_sd, lengths.output_tokens, lengths.output_sd, rng)
        )
        return (options.fit.apply(size) for size in wanted)
