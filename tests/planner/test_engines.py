"""The two models of an engine: each by itself on figures that can be done by hand, and both on the same requests."""

from collections.abc import Callable
from math import inf

import numpy as np
import pytest

from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.planner.arrival import Arrival
from spillway.planner.engine import Engine, Job
from spillway.planner.scenario import EngineSpec, StepCosts, capacity_of, engine_of
from spillway.planner.stepped_engine import SteppedEngine
from spillway.planner.summary_engine import SummaryEngine
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import Capacity, TokenShape

MODELS = (SummaryEngine, SteppedEngine)
MakeEngine = Callable[[EngineSpec], Engine]
both = pytest.mark.parametrize("make", MODELS)
COSTS = StepCosts(base_s=0.01, sequence_s=0.001, prefill_s=0.0001)


def job_of(
    number: int, at_s: float = 0.0, input_tokens: int = 100, output_tokens: int = 50, prefix: tuple[int, ...] = ()
) -> Job:
    arrived = Arrived(
        RequestId(f"r{number}"), ModelName("m"), TenantId("t"), Priority.INTERACTIVE, input_tokens, output_tokens,
        prefix=prefix, block_tokens=50,
    )  # fmt: skip
    return Job(Arrival(at_s, "", output_tokens, arrived), 0, PoolName("p"), EndpointUrl("u"), at_s, spilled=False)


def drive(engine: Engine, jobs: list[Job]) -> dict[Job, tuple[float, float]]:
    """(first token, end) of every job, in the engine's own time."""
    first: dict[Job, float] = {}
    ends: dict[Job, tuple[float, float]] = {}
    waiting = list(reversed(jobs))
    while waiting or engine.due < inf:
        if waiting and waiting[-1].sent_at <= engine.due:
            job = waiting.pop()
            assert engine.start(job, job.sent_at)
            continue
        now = engine.due
        for job, is_first in engine.happen(now):
            if is_first:
                first[job] = now
            else:
                ends[job] = (first[job], now)
    return ends


@both
def test_a_request_alone_takes_what_its_steps_take(make: MakeEngine) -> None:
    job = job_of(0)
    first, end = drive(make(EngineSpec(COSTS)), [job])[job]
    # 100 prompt tokens, and 50 tokens of a step of 11 ms each
    assert first == pytest.approx(0.01 + 0.011, abs=0.002)
    assert end == pytest.approx(0.01 + 50 * 0.011, rel=0.01)


@both
def test_every_job_has_one_first_token_and_one_end(make: MakeEngine) -> None:
    jobs = poisson(300, rate=20.0, seed=3)
    ends = drive(make(EngineSpec(COSTS, max_sequences=8, kv_tokens=2000)), jobs)
    assert set(ends) == set(jobs)
    assert all(job.sent_at < first <= end for job, (first, end) in ends.items())


@both
def test_an_answer_of_one_token_ends_with_its_first(make: MakeEngine) -> None:
    job = job_of(0, output_tokens=1)
    first, end = drive(make(EngineSpec(COSTS)), [job])[job]
    assert first == end


@both
def test_a_full_queue_refuses(make: MakeEngine) -> None:
    engine = make(EngineSpec(COSTS, max_sequences=1, queue=1))
    taken = [engine.start(job_of(number), 0.0) for number in range(4)]
    assert taken[0]
    assert not taken[-1]
    assert engine.holds == sum(taken)


@both
def test_sequences_wait_for_one_another(make: MakeEngine) -> None:
    jobs = [job_of(number) for number in range(4)]
    alone = drive(make(EngineSpec(COSTS, max_sequences=1)), jobs)
    ends = sorted(end for _, end in alone.values())
    gaps = np.diff([0.0, *ends])
    assert gaps == pytest.approx([0.56] * 4, rel=0.05)


@both
def test_a_failure_loses_all_and_it_starts_anew(make: MakeEngine) -> None:
    engine = make(EngineSpec(COSTS, max_sequences=2, kv_tokens=1000))
    jobs = [job_of(number) for number in range(5)]
    for job in jobs:
        engine.start(job, 0.0)
    engine.happen(engine.due)
    assert set(engine.fail(0.1)) == set(jobs)
    assert (engine.holds, engine.due, engine.kv_usage()) == (0, inf, 0.0)
    again = job_of(9, at_s=1.0)
    assert again in drive(engine, [again])


@both
def test_a_cancelled_job_is_gone_and_the_others_go_on(make: MakeEngine) -> None:
    engine = make(EngineSpec(COSTS, max_sequences=3))
    jobs = [job_of(number) for number in range(6)]
    for job in jobs:
        engine.start(job, 0.0)
    ended: list[Job] = []
    while engine.due < 0.2:
        ended += [job for job, is_first in engine.happen(engine.due) if not is_first]
    for job in (jobs[0], jobs[1], jobs[5]):
        assert job not in ended
        engine.cancel(job, 0.2)
    ended += list(drive_on(engine))
    assert set(ended) == {jobs[2], jobs[3], jobs[4]}
    assert engine.holds == 0


@both
def test_a_stalled_engine_does_nothing_until_it_lives_again(make: MakeEngine) -> None:
    engine = make(EngineSpec(COSTS))
    job = job_of(0)
    engine.start(job, 0.0)
    engine.slow(inf, 0.001)
    assert engine.due == inf
    engine.slow(1.0, 10.0)
    assert 10.0 <= engine.due < 10.1
    assert drive_on(engine)[job] > 10.4


@both
def test_twice_as_slow_takes_twice_as_long(make: MakeEngine) -> None:
    engine = make(EngineSpec(COSTS))
    job = job_of(0)
    engine.slow(2.0, 0.0)
    assert drive(engine, [job])[job][1] == pytest.approx(2 * 0.56, rel=0.02)


@both
def test_a_known_prefix_is_not_computed_again(make: MakeEngine) -> None:
    engine = make(EngineSpec(COSTS, prefix_tokens=1000))
    cold = job_of(0, 0.0, 1000, 10, tuple(range(20)))
    warm = job_of(1, 5.0, 1000, 10, tuple(range(20)))
    ends = drive(engine, [cold, warm])
    assert (cold.warm, warm.warm) == (0, 999)
    assert ends[cold][0] - 0.0 > ends[warm][0] - 5.0 + 0.09


def test_where_memory_runs_out_the_last_one_gives_way_and_comes_back() -> None:
    engine = SteppedEngine(EngineSpec(COSTS, kv_tokens=260))
    ends = drive(engine, [job_of(0), job_of(1)])
    assert engine.preempted > 0
    assert len(ends) == 2


def test_a_record_and_its_engine_say_the_same() -> None:
    record = Capacity(x_s=0.9, y_s=0.02, reference=TokenShape(200, 80))
    for endpoints in (1, 4):
        x_s, y_s = capacity_of(engine_of(record, endpoints), 200, 80, endpoints)
        assert (x_s, y_s) == pytest.approx((0.9, 0.02))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", [1, 2])
def test_both_models_agree_on_the_mean(load: float, seed: int) -> None:
    """Within 10 % up to 0.9 of what 64 sequences carry, on short prompts with outputs of any length."""
    spec = EngineSpec(COSTS, max_sequences=64)
    x_s, y_s = capacity_of(spec, 100, 50)
    jobs = poisson(3000, rate=load * 64 / (x_s + y_s * 64), seed=seed)
    means: list[float] = []
    for make in MODELS:
        ends = drive(make(spec), [copied(job) for job in jobs])
        means.append(float(np.mean([end - job.sent_at for job, (_, end) in ends.items()])))
    assert means[0] == pytest.approx(means[1], rel=0.1)


def poisson(count: int, *, rate: float, seed: int) -> list[Job]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1.0 / rate, count)).tolist()
    outputs = rng.geometric(1 / 50, count).tolist()
    return [job_of(number, times[number], 100, outputs[number]) for number in range(count)]


def copied(job: Job) -> Job:
    return Job(job.arrival, 0, job.pool, job.url, job.sent_at, spilled=False)


def drive_on(engine: Engine) -> dict[Job, float]:
    """Ends of what it holds."""
    ends: dict[Job, float] = {}
    while engine.due < inf:
        now = engine.due
        ends |= {job: now for job, is_first in engine.happen(now) if not is_first}
    return ends
