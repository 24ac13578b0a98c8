"""A drill: the same load three times on a running system, before, during and after a fault; and the fault taken back, come what may.

A phase lasts its planned seconds; what still runs then is finished beside the next one, so that the load has no pause when the
fault comes and when it goes. It comes when the last request of the baseline has ended, a moment after the load of its own phase
has begun: whoever is hit by it in flight belongs to that phase. It is taken back in a `finally`, before anything else is waited for.
"""

import asyncio
import contextlib
import enum
from collections.abc import Callable, Coroutine

import msgspec
import numpy as np

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import SpillwayError
from spillway.load.bench import Bench
from spillway.load.drill_faults import Fault
from spillway.load.options import BenchOptions
from spillway.load.probe import probe
from spillway.load.record import RequestRecord
from spillway.load.run import RunView
from spillway.load.target import RequestMaker
from spillway.net.ports import Origin

LONGEST_LEAD = 0.5  # of a phase: the longest that the strike waits for the baseline's last request


class PhaseName(enum.StrEnum):
    """In the order they run; WARMUP only where it was asked for, and in no figure."""

    WARMUP = "warmup"
    BASELINE = "baseline"
    DURING = "during"
    AFTER = "after"


class Phase(msgspec.Struct, frozen=True):
    name: PhaseName
    records: list[RequestRecord]


class DrillReport(msgspec.Struct, frozen=True):
    """`phases` that ran, without the warm-up. `struck_s`: from the beginning of its phase until the fault was made; None: it was not.
    `restored`: what was seen of it; None: it could not be seen (`failure` says why),
    or nothing was struck. `stopped`: before the planned end."""

    fault: str
    duration_s: Seconds
    phases: list[Phase]
    struck_s: Seconds | None
    restored: str | None
    failure: str | None
    stopped: bool

    @property
    def whole(self) -> bool:
        return self.restored is not None and self.failure is None and not self.stopped


class Load(msgspec.Struct, frozen=True):
    """`options` have a duration, that of each phase, and no warm-up. `maker` and `rng` make a phase's from the same seed: arrivals,
    lengths and callers are the same in each phase; prompts differ, else caches would make the later phases faster."""

    options: BenchOptions
    origin: Origin
    maker: Callable[[PhaseName], RequestMaker]
    rng: Callable[[], np.random.Generator]


class Drill:
    """`run` once. `said` hears what happens; `sink` every record when it is complete, its `step` the number of the phase."""

    def __init__(
        self,
        fault: Fault,
        load: Load,
        clock: Clock,
        said: Callable[[str], None],
        sink: Callable[[RequestRecord], None],
        *,
        warmup_s: Seconds = 0.0,
    ) -> None:
        self._fault = fault
        self._load = load
        self._clock = clock
        self._said = said
        self._sink = sink
        self._warmup_s = warmup_s
        self._stop = asyncio.Event()
        self._running: list[tuple[PhaseName, Bench, asyncio.Task[object]]] = []
        self._records: dict[PhaseName, list[RequestRecord]] = {}
        self._struck_s: Seconds | None = None
        self._restored: str | None = None
        self._failure: str | None = None

    async def run(self) -> DrillReport:
        """Raises UsageError where the fault can't be made here, AdminError, ProbeError. What fails later is in the report."""
        options = self._load.options
        await self._fault.check()
        maker = self._load.maker(PhaseName.BASELINE)
        yardstick = options.yardstick or await probe(self._load.origin, maker, self._clock, options.timeout_s)
        options = msgspec.structs.replace(options, yardstick=yardstick)
        async with asyncio.TaskGroup() as tasks:
            if self._warmup_s:
                shorter = msgspec.structs.replace(options, duration_s=self._warmup_s)
                await self._phase(tasks, PhaseName.WARMUP, shorter)
            await self._phase(tasks, PhaseName.BASELINE, options)
            await self._struck_phase(tasks, options)
            await self._phase(tasks, PhaseName.AFTER, options)
        phases = [Phase(name, records) for name, records in self._records.items() if name is not PhaseName.WARMUP]
        return DrillReport(
            self._fault.title, options.duration_s or 0.0, phases, self._struck_s, self._restored, self._failure,
            self._stop.is_set() and self._failure is None,
        )  # fmt: skip

    def stop(self) -> None:
        """Takes the fault back at once and ends with the results so far. May be called again: nothing more happens."""
        self._stop.set()
        for _, bench, _ in self._running:
            bench.stop()

    def view(self) -> tuple[PhaseName, RunView] | None:
        """The latest phase and how its load goes; None before the first."""
        if not self._running:
            return None
        name, bench, _ = self._running[-1]
        return None if bench.current is None else (name, bench.current.view())

    async def _struck_phase(self, tasks: asyncio.TaskGroup, options: BenchOptions) -> None:
        if self._stop.is_set():
            return
        begun_s = self._clock.monotonic()
        self._begin(tasks, PhaseName.DURING, options)
        await self._baseline_over(options)
        if self._stop.is_set():
            return
        self._said(f"{self._fault.title}; if this command is killed, undo it by hand: {self._fault.by_hand}")
        try:
            await self._fault.strike()
            self._struck_s = round(self._clock.monotonic() - begun_s, 3)
            self._said("struck")
            await self._stopped_within((options.duration_s or 0.0) - self._struck_s)
        except SpillwayError as error:
            self._failed(f"the fault could not be made: {error}")
        finally:
            await _despite_cancellation(self._restore())

    async def _baseline_over(self, options: BenchOptions) -> None:
        baseline = next(task for name, _, task in self._running if name is PhaseName.BASELINE)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait(
            {baseline, stop},
            timeout=LONGEST_LEAD * (options.duration_s or 0.0),
            return_when=asyncio.FIRST_COMPLETED,
        )
        stop.cancel()

    async def _restore(self) -> None:
        try:
            self._restored = await self._fault.restore()
            self._said(f"restored: {self._restored}")
        except SpillwayError as error:
            self._failed(f"NOT RESTORED: {error}; by hand: {self._fault.by_hand}")

    def _failed(self, why: str) -> None:
        self._failure = why if self._failure is None else f"{self._failure}; {why}"
        self._said(why)
        self.stop()

    async def _phase(self, tasks: asyncio.TaskGroup, name: PhaseName, options: BenchOptions) -> None:
        if not self._stop.is_set():
            self._begin(tasks, name, options)
            await self._stopped_within(options.duration_s or 0.0)

    def _begin(self, tasks: asyncio.TaskGroup, name: PhaseName, options: BenchOptions) -> None:
        self._said(f"{name}, {options.duration_s:g} s")
        step = len(self._records)
        records = self._records.setdefault(name, [])

        def sink(record: RequestRecord) -> None:
            record.step = step
            records.append(record)
            self._sink(record)

        load = self._load
        bench = Bench(options, load.origin, load.maker(name), self._clock, load.rng(), sink)
        self._running.append((name, bench, tasks.create_task(bench.run())))

    async def _stopped_within(self, seconds: Seconds) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)


async def _despite_cancellation(work: Coroutine[None, None, None]) -> None:
    """To its end, also where whoever waits is cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
