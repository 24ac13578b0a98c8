"""The long form of memory, for seconds: every kind of request ends as it should, and a process that grows is found."""

import asyncio
import contextlib
import sys

import pytest

from spillway.testing.processes import started_command
from tests.soak.memory import MOST_GROWTH, Plan, Sample, run, verdict_of, watch

pytestmark = pytest.mark.server

GROWS = """
import threading
print("ready", flush=True)
held, never = [], threading.Event()
while not never.wait(0.01):
    held.append(bytearray(200_000))
"""
STANDS_STILL = 'import threading\nprint("ready", flush=True)\nthreading.Event().wait()'
WATCHED_S = 1.5


def test_all_kinds_of_load_end_as_they_should() -> None:
    plan = Plan(4.0, per_s=40.0, tenants=20, sample_s=0.1, renew_s=0.2, operate_s=1.0, patience_s=1.0)
    figures, _ = run(plan)
    assert not figures["unexpected"]
    assert figures["requests"] > 60
    assert figures["keys"]["revoked"] > 3
    assert {name.partition(":")[0] for name in figures["endings"]} >= {
        "whole",
        "stream",
        "unknown_model",
        "unknown_key",
    }
    assert all(megabytes > 10 for pair in figures["medians_mb"].values() for megabytes in pair)


def test_a_process_that_grows_is_found() -> None:
    async def watched(grows: int, stands_still: int) -> list[Sample]:
        samples: list[Sample] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCHED_S):
                await watch(grows, stands_still, samples, 0.02)
        return samples

    with (
        started_command([sys.executable, "-c", GROWS]) as grows,
        started_command([sys.executable, "-c", STANDS_STILL]) as stands_still,
    ):
        for process in (grows, stands_still):
            process.wait_for("ready")
        verdict = verdict_of(asyncio.run(watched(grows.pid, stands_still.pid)), WATCHED_S)
    assert verdict.worker_growth > MOST_GROWTH
    assert verdict.parent_growth == 1.0
    assert not verdict.passed


@pytest.mark.parametrize(("late_bytes", "passed"), [(1020, True), (1021, False)])
def test_the_median_of_the_last_sixth_over_that_of_the_third(late_bytes: int, passed: bool) -> None:
    samples = [Sample(float(second), 1000 if second < 30 else late_bytes, 500) for second in range(60)]
    samples[20] = Sample(20.0, 9000, 500)  # one that stands out does not matter
    assert verdict_of(samples, 60.0).passed is passed
