"""The long form of streaming, for seconds: nothing is lost, and a worker that stands still is found."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak.streams import LONGEST_STALL_MS, Plan, build, direct, figures_of, through_gateway

pytestmark = pytest.mark.server

PLAN = Plan(streams=40, interval_ms=50, seconds=1.0, warm_up_s=1.2)
STOPPED_S = 0.3


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("tools"))


@pytest.fixture
def later() -> Iterator[list[threading.Timer]]:
    timers: list[threading.Timer] = []
    yield timers
    for timer in timers:
        timer.join()


def test_all_streams_are_complete_with_and_without_a_gateway(tools: Path) -> None:
    for figures in (direct(tools, PLAN), through_gateway(tools, PLAN).figures):
        assert figures.complete, figures
        assert figures.events_sent == PLAN.streams * PLAN.events_per_stream


def test_a_worker_that_stands_still_is_found(tools: Path, later: list[threading.Timer]) -> None:
    def stand_still(worker: int) -> None:
        os.kill(worker, signal.SIGSTOP)
        later.append(threading.Timer(STOPPED_S, os.kill, (worker, signal.SIGCONT)))
        later[-1].start()

    figures = through_gateway(tools, PLAN, stand_still).figures
    assert figures.longest_stall_ms > 0.5 * STOPPED_S * 1000 > LONGEST_STALL_MS
    assert figures.complete
    assert not figures.passed


def test_what_the_generator_did_not_get_is_lost() -> None:
    quantiles = {"p50": 1, "p99": 2, "max": 3}
    report = {"delay_us": quantiles, "ttft_us": quantiles, "broken": 0, "streams_done": 2, "all_events": 99}
    mock = {"streams": 2, "streams_left": 0, "events": 100}
    figures = figures_of(Plan(streams=2), report, mock)
    assert figures.events_lost == 1
    assert not figures.passed
    assert figures_of(Plan(streams=2), report | {"all_events": 100}, mock).passed
    assert not figures_of(Plan(streams=2), report | {"all_events": 100, "streams_done": 1}, mock).passed
