"""A drill in virtual time: the same load in each phase, the fault between, and taken back whatever happens."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from spillway.core.errors import SpillwayError
from spillway.load.corpus import Corpus, Yardstick
from spillway.load.drill import Drill, DrillReport, Load, PhaseName
from spillway.load.drill_document import drill_document, figures_of
from spillway.load.drill_faults import DrillError
from spillway.load.drill_figures import back_s
from spillway.load.drill_page import drill_page
from spillway.load.options import BenchOptions
from spillway.load.record import RequestRecord
from spillway.load.schedule import Profile
from spillway.load.slo import Slo
from spillway.load.target import Credential, RequestMaker, Shape, parse_target
from spillway.testing.virtual_engine import VirtualEngine
from spillway.testing.virtual_loop import VirtualLoop, run_virtual

SLO = Slo(ttft_ms=500)
DURATION_S = 30.0
OPTIONS = BenchOptions(
    profile=Profile.POISSON, rate=20, duration_s=DURATION_S, yardstick=Yardstick(5.0), slo=SLO, timeout_s=60.0
)


class StallFault:
    """The engine answers nothing for `for_s` from the strike on, or until it is restored."""

    title = "stall"
    by_hand = "let it go on"

    def __init__(self, engine: VirtualEngine, loop: VirtualLoop, for_s: float = 1000.0) -> None:
        self.events: list[tuple[str, float]] = []
        self.refusals: list[SpillwayError] = []
        self.strike_error: SpillwayError | None = None
        self._engine = engine
        self._loop = loop
        self._for_s = for_s

    async def check(self) -> None:
        self.events.append(("check", self._loop.time()))

    async def strike(self) -> None:
        self.events.append(("strike", self._loop.time()))
        if self.strike_error is not None:
            raise self.strike_error
        self._engine.stalled_until_s = self._loop.time() + self._for_s

    async def restore(self) -> str:
        await asyncio.sleep(0.5)  # a cancelled drill must not break off here
        self.events.append(("restore", self._loop.time()))
        if self.refusals:
            raise self.refusals.pop()
        self._engine.stalled_until_s = 0.0
        return "goes on"


Script = Callable[[Drill, StallFault, VirtualLoop], None]


def drilled(
    script: Script = lambda drill, fault, loop: None, *, for_s: float = 5.0, warmup_s: float = 0.0
) -> tuple[DrillReport, StallFault, list[RequestRecord]]:
    async def work(loop: VirtualLoop) -> tuple[DrillReport, StallFault, list[RequestRecord]]:
        engine = VirtualEngine(loop)
        fault = StallFault(engine, loop, for_s)
        logged: list[RequestRecord] = []
        drill = Drill(fault, Load(OPTIONS, engine, maker, rng), loop, print, logged.append, warmup_s=warmup_s)
        script(drill, fault, loop)
        return await drill.run(), fault, logged

    return run_virtual(work)


def maker(phase: PhaseName) -> RequestMaker:
    corpus = Corpus(np.random.default_rng(list(PhaseName).index(phase)))
    client = [Credential("c", "k")]
    return RequestMaker(parse_target("http://127.0.0.1:9"), Shape(model="m"), client, corpus, np.random.default_rng(2))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_each_phase_has_the_same_arrivals_and_the_fault_lies_between() -> None:
    report, fault, logged = drilled(warmup_s=4.0)
    assert [phase.name for phase in report.phases] == ["baseline", "during", "after"]
    due = [sorted(record.intended_s for record in phase.records) for phase in report.phases]
    assert due[1] == pytest.approx(due[0], abs=0.001)
    assert due[2] == pytest.approx(due[0], abs=0.001)
    assert [name for name, _ in fault.events] == ["check", "strike", "restore"]
    assert [at_s for _, at_s in fault.events] == pytest.approx([0.0, 34.0 + (report.struck_s or 0.0), 64.5], abs=0.01)
    assert {record.step for record in logged} == {0, 1, 2, 3}
    assert report.whole


def test_nobody_of_the_baseline_is_hit() -> None:
    report, _, _ = drilled()
    assert report.struck_s is not None
    ends = [record.last_s - DURATION_S for record in report.phases[0].records if record.last_s is not None]
    assert 0 < max(ends) <= report.struck_s < 1.0


def test_a_fault_that_passes_by_itself_is_over_when_goodput_is_back() -> None:
    report, _, _ = drilled(for_s=5.0)
    figures = figures_of(report, SLO)
    assert figures[PhaseName.BASELINE].goodput_of_baseline == 1.0
    assert figures[PhaseName.BASELINE].back_s == 0.0
    during = figures[PhaseName.DURING]
    assert during.goodput_of_baseline == pytest.approx(1 - 4.6 / DURATION_S, abs=0.04)
    assert during.back_s == pytest.approx(4.6, abs=0.6)
    assert during.ttft_ms.max == pytest.approx(5000, abs=300)
    assert figures[PhaseName.AFTER].back_s == 0.0


def test_a_fault_that_stays_is_not_back_within_its_phase() -> None:
    report, _, _ = drilled(for_s=1000.0)
    figures = figures_of(report, SLO)
    assert figures[PhaseName.DURING].goodput_rps < 1
    assert figures[PhaseName.DURING].back_s is None
    assert figures[PhaseName.DURING].requests == figures[PhaseName.BASELINE].requests
    assert figures[PhaseName.AFTER].goodput_of_baseline == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("at_s", "struck"), [(3.0, False), (30.1, False), (40.0, True), (62.0, True)])
def test_stopped_at_any_time_it_restores_what_was_struck(*, at_s: float, struck: bool) -> None:
    def stop(drill: Drill, fault: StallFault, loop: VirtualLoop) -> None:
        loop.call_at(at_s, drill.stop)
        loop.call_at(at_s + 0.1, drill.stop)

    report, fault, _ = drilled(stop)
    assert report.stopped
    assert not report.whole
    assert (report.struck_s is not None) == struck
    assert [name for name, _ in fault.events if name != "check"] == (["strike", "restore"] if struck else [])
    if struck:
        assert fault.events[-1][1] <= max(at_s, 2 * DURATION_S) + 0.6


def test_a_strike_that_fails_half_way_is_taken_back() -> None:
    def fail(drill: Drill, fault: StallFault, loop: VirtualLoop) -> None:
        fault.strike_error = DrillError("no")

    report, fault, _ = drilled(fail)
    assert fault.events[-1][0] == "restore"
    assert report.restored == "goes on"
    assert report.failure == "the fault could not be made: no"
    assert report.struck_s is None
    assert [phase.name for phase in report.phases] == ["baseline", "during"]


def test_what_cannot_be_seen_restored_is_said_and_ends_the_drill() -> None:
    def fail(drill: Drill, fault: StallFault, loop: VirtualLoop) -> None:
        fault.refusals.append(DrillError("still there"))

    report, _, _ = drilled(fail)
    assert report.restored is None
    assert not report.whole
    assert report.failure == "NOT RESTORED: still there; by hand: let it go on"
    assert [phase.name for phase in report.phases] == ["baseline", "during"]


def test_a_drill_that_is_cancelled_while_it_restores_goes_on_restoring() -> None:
    async def work(loop: VirtualLoop) -> StallFault:
        engine = VirtualEngine(loop)
        fault = StallFault(engine, loop)
        drill = Drill(fault, Load(OPTIONS, engine, maker, rng), loop, print, lambda record: None)
        task = loop.create_task(drill.run())
        loop.call_at(2 * DURATION_S + 0.2, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        return fault

    fault = run_virtual(work)
    assert [name for name, _ in fault.events] == ["check", "strike", "restore"]


def test_documents() -> None:
    report, _, _ = drilled(for_s=5.0)
    document = drill_document(report, SLO)
    assert document["restored"] == "goes on"
    assert isinstance(document["during"], dict)
    page = drill_page(report, SLO, [], "here")
    assert "Drill: stall" in page
    assert "Time to first token, p95" in page
    assert "http" not in page.replace("http://www.w3.org/", "")


def test_the_time_until_goodput_is_back() -> None:
    steady = [index / 20 for index in range(600)]
    assert back_s(steady, steady, 30.0) == 0.0
    assert back_s([], steady, 30.0) is None
    assert back_s([at for at in steady if at >= 10], steady, 30.0) == pytest.approx(10.0, abs=0.3)
    assert back_s([at for at in steady if not 5 <= at < 8], steady, 30.0) == pytest.approx(8.0, abs=0.3)
    assert back_s([at for at in steady if round(at * 20) % 10], steady, 30.0) is None  # a tenth is missing all the time
    assert back_s(steady[:60], steady[:60], 30.0) is None  # too few to tell 5 %
