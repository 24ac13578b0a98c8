"""A run sends what is due when it is due, and writes down every request exactly once, whatever the engine does."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np
import pytest

from spillway.load.arrivals import Arrivals, ClosedLoop, OpenLoop
from spillway.load.corpus import Corpus
from spillway.load.record import RequestRecord
from spillway.load.run import Limits, LoadRun
from spillway.load.schedule import constant_arrivals
from spillway.load.sizes import Size
from spillway.load.slo import Slo
from spillway.load.stats import summarize
from spillway.load.target import Credential, RequestMaker, Shape, parse_target
from spillway.net.ports import ConnectionFault
from spillway.testing.virtual_engine import DONE, FINISH, TOKEN, Sent, VirtualEngine
from spillway.testing.virtual_loop import VirtualLoop, run_virtual

SIZE = Size(input_tokens=20, output_tokens=10)


def maker() -> RequestMaker:
    target = parse_target("http://127.0.0.1:9")
    corpus = Corpus(np.random.default_rng(1))
    return RequestMaker(target, Shape(model="m"), [Credential("c", "k")], corpus, np.random.default_rng(2))


def played(
    arrivals: Arrivals,
    limits: Limits,
    script: Callable[[VirtualEngine, VirtualLoop, LoadRun], None] = lambda engine, loop, run: None,
    sizes: Iterator[Size] | None = None,
) -> tuple[list[RequestRecord], VirtualEngine]:
    """The records of a run in virtual time, checked against what its sink was told."""

    async def work(loop: VirtualLoop) -> tuple[list[RequestRecord], VirtualEngine]:
        engine = VirtualEngine(loop)
        told: list[RequestRecord] = []
        run = LoadRun(engine, arrivals, sizes or repeat(SIZE), maker(), limits, loop, told.append)
        script(engine, loop, run)
        records = await run.run()
        assert sorted(record.index for record in told) == list(range(len(records)))
        assert [record.index for record in records] == list(range(len(records)))
        assert run.view().in_flight == 0
        return records, engine

    return run_virtual(work)


def steady(rate_rps: float, duration_s: float) -> OpenLoop:
    return OpenLoop(constant_arrivals(rate_rps), duration_s)


def test_an_open_loop_keeps_its_schedule() -> None:
    records, engine = played(steady(50, 20), Limits(1000, duration_s=20))
    assert len(records) == len(engine.sent) == 1000
    assert [sent.at_s for sent in engine.sent] == pytest.approx([index / 50 for index in range(1000)], abs=0.0006)
    for record in records:
        assert record.error is None
        assert record.ttft_s == pytest.approx(0.1, abs=0.001)
        assert record.tpot_s == pytest.approx(0.01, abs=0.0001)
        assert (record.output_tokens, record.counted) == (10, False)


def test_a_stall_is_not_omitted() -> None:
    """The engine stands still for 5 s and the cap holds requests back: their latency counts from when they were due."""

    def stall(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        loop.call_at(10.0, setattr, engine, "stalled_until_s", 15.0)

    records, engine = played(steady(20, 30), Limits(4, duration_s=30), stall)
    assert engine.most_running == 4
    assert len(records) == 600
    hit = [record for record in records if 10.1 < record.intended_s < 15.0]
    assert len(hit) > 90
    for record in hit:
        assert record.last_s is not None
        assert record.last_s > 15.0
        assert record.ttft_s == pytest.approx((record.first_s or 0) - record.intended_s)
        assert (record.ttft_s or 0) >= 15.0 - record.intended_s
    result = summarize(records, Slo(ttft_ms=1000), profile="constant", planned_s=30)
    assert result.slip_ms.max is not None
    assert result.slip_ms.max > 4500
    assert result.ttft_ms.p99 is not None
    assert result.ttft_ms.p99 > 4000  # measured from the sending it would be 100 ms
    assert result.slo_share < 0.9


@pytest.mark.parametrize("streams", [1, 7])
def test_a_closed_loop_keeps_its_streams_busy(streams: int) -> None:
    records, engine = played(ClosedLoop(duration_s=19), Limits(streams, duration_s=19))
    assert engine.most_running == streams
    assert len(records) == streams * 100  # an answer takes 0.1 + 9 × 0.01 s
    assert all(record.sent_s == record.intended_s for record in records)


def test_a_number_of_requests_ends_the_run() -> None:
    records, _ = played(ClosedLoop(max_requests=30), Limits(4))
    assert len(records) == 30


def test_a_burst_is_limited_only_by_the_cap() -> None:
    records, engine = played(OpenLoop(repeat(0.0), max_requests=3000), Limits(1000))
    assert len(records) == 3000
    assert engine.most_running == 1000


def test_the_warmup_is_marked() -> None:
    records, _ = played(steady(10, 10), Limits(100, duration_s=10, warmup_s=4))
    assert [record.warmup for record in records] == [True] * 40 + [False] * 60
    result = summarize(records, Slo(), profile="constant", warmup_s=4, planned_s=10)
    assert (result.requests, result.duration_s) == (60, pytest.approx(6.09, abs=0.1))


def test_a_request_that_never_ends_times_out_and_is_cancelled() -> None:
    def silent(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        engine.answer = lambda sent: None

    records, engine = played(steady(5, 2), Limits(100, duration_s=2, timeout_s=3), silent)
    assert [record.error for record in records] == ["timeout"] * 10
    assert all(sent.cancelled for sent in engine.sent)
    assert all(3.0 <= (record.last_s or 0) - (record.sent_s or 0) <= 3.2 for record in records)


def test_what_is_open_at_the_end_of_the_drain_is_counted() -> None:
    def silent(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        engine.answer = lambda sent: None

    records, engine = played(steady(10, 5), Limits(8, duration_s=5, timeout_s=1000, drain_s=2), silent)
    assert [record.error for record in records] == ["unfinished"] * 8 + ["not_sent"] * 42
    assert len(engine.sent) == 8
    result = summarize(records, Slo(), profile="constant", planned_s=5)
    assert (result.requests, result.ok, result.failed) == (50, 0, 50)
    assert result.errors == {"not_sent": 42, "unfinished": 8}


def test_a_stopped_run_gives_what_there_is() -> None:
    def stop(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        loop.call_at(5.05, run.stop)

    records, engine = played(steady(10, 60), Limits(100, duration_s=60), stop)
    assert len(records) == 51
    result = summarize(records, Slo(), profile="constant")
    assert (result.ok, result.interrupted, result.errors) == (49, 2, {})
    assert sum(sent.cancelled for sent in engine.sent) == 2


def test_a_cancelled_run_cancels_its_requests() -> None:
    async def work(loop: VirtualLoop) -> VirtualEngine:
        engine = VirtualEngine(loop, ttft_s=100)
        run = LoadRun(engine, steady(10, 60), repeat(SIZE), maker(), Limits(100), loop, lambda record: None)
        task = loop.create_task(run.run())
        loop.call_at(1.05, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine

    engine = run_virtual(work)
    assert len(engine.sent) == 11
    assert all(sent.cancelled for sent in engine.sent)


IN_BAND = b'data: {"error":{"message":"m","type":"t","param":null,"code":"upstream_error"}}\n\n'
REFUSAL = b'{"error":{"message":"m","type":"t","param":null,"code":"rate_limit_exceeded"}}'
LOST = ConnectionFault.LOST


ANSWERS: list[tuple[Callable[[VirtualEngine, Sent], None], int, str | None]] = [
    (lambda engine, sent: engine.events(sent, [TOKEN, FINISH, DONE]), 200, None),
    (lambda engine, sent: engine.events(sent, [TOKEN, FINISH]), 200, None),
    (lambda engine, sent: engine.events(sent, [TOKEN, DONE]), 200, None),
    (lambda engine, sent: engine.events(sent, [TOKEN, TOKEN]), 200, "cut"),
    (lambda engine, sent: engine.events(sent, [TOKEN, IN_BAND]), 200, "upstream_error"),
    (lambda engine, sent: engine.events(sent, [TOKEN, IN_BAND, DONE]), 200, "upstream_error"),
    (lambda engine, sent: engine.events(sent, [TOKEN, IN_BAND], LOST), 200, "upstream_error"),
    (lambda engine, sent: engine.events(sent, [TOKEN, FINISH, DONE], LOST), 200, "cut"),
    (lambda engine, sent: engine.events(sent, [b"x" * 3_000_000, DONE]), 200, "malformed"),
    (lambda engine, sent: engine.reply(sent, 429, REFUSAL), 429, "rate_limit_exceeded"),
    (lambda engine, sent: engine.reply(sent, 503, b"<html>"), 503, "http_503"),
    (lambda engine, sent: engine.reply(sent, 500, b"{}"), 500, "http_500"),
    (lambda engine, sent: engine.reply(sent, 200, b'{"choices":[{}],"usage":{"completion_tokens":4}}'), 200, None),
    (lambda engine, sent: engine.reply(sent, 200, b'{"choices":[]}'), 200, "malformed"),
    (lambda engine, sent: engine.reply(sent, 200, b"not json"), 200, "malformed"),
    (lambda engine, sent: engine.reply(sent, 200, b'{"choices":[{}],"error":{"message":"m"}}'), 200, "in_band"),
    (lambda engine, sent: engine.fail(sent, ConnectionFault.CONNECT), 0, "connect"),
    (lambda engine, sent: engine.fail(sent, LOST), 0, "lost"),
]


@pytest.mark.parametrize(("answer", "status", "error"), ANSWERS, ids=range(18))
def test_how_an_answer_is_judged(answer: Callable[[VirtualEngine, Sent], None], status: int, error: str | None) -> None:
    def script(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        engine.answer = lambda sent: answer(engine, sent)

    records, _ = played(ClosedLoop(max_requests=3), Limits(2), script)
    assert [(record.status, record.error) for record in records] == [(status, error)] * 3
    result = summarize(records, Slo(), profile="concurrent")
    assert result.requests == result.ok + sum(result.errors.values()) == 3
    assert result.refused == (3 if status == 429 else 0)
    assert result.failed == (3 if error and status != 429 else 0)


def test_tokens_are_counted_where_no_usage_comes() -> None:
    def script(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        engine.answer = lambda sent: engine.events(sent, [TOKEN, TOKEN + TOKEN, FINISH + DONE])

    records, _ = played(ClosedLoop(max_requests=2), Limits(1), script)
    assert [(record.output_tokens, record.counted) for record in records] == [(3, True)] * 2
    assert summarize(records, Slo(), profile="synchronous").counted_share == 1.0


def test_headers_of_the_gateway_are_kept() -> None:
    def script(engine: VirtualEngine, loop: VirtualLoop, run: LoadRun) -> None:
        engine.headers = [
            (b"x-spillway-pool", b"npc@west"),
            (b"x-spillway-spill", b"ceiling"),
            (b"x-spillway-version", b"npc-1"),
            (b"x-spillway-attempts", b"2"),
            (b"x-request-id", b"req_1"),
        ]

    records, _ = played(ClosedLoop(max_requests=2), Limits(1), script)
    record = records[0]
    assert (record.pool, record.spill, record.version, record.attempts) == ("npc@west", "ceiling", "npc-1", 2)
    assert record.request_id == "req_1"
    result = summarize(records, Slo(), profile="synchronous")
    assert (result.pools, result.spilled_share, result.attempts_mean) == ({"npc@west": 2}, 1.0, 2.0)
