"""A bench over real sockets, against an upstream that behaves and one that does not."""

import asyncio
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import uvloop

from spillway.app.system import SystemClock
from spillway.load.bench import Bench, BenchReport
from spillway.load.corpus import Corpus, Yardstick
from spillway.load.options import BenchOptions, checked
from spillway.load.probe import ProbeError
from spillway.load.record import RequestRecord
from spillway.load.schedule import Profile
from spillway.load.slo import Slo
from spillway.load.target import Credential, RequestMaker, Shape, parse_target
from spillway.net.connecting import Destination
from spillway.net.pool import HttpOrigin
from spillway.net.settings import ClientLimits
from spillway.testing.spec import UpstreamSpec
from spillway.testing.upstream import UpstreamDouble

pytestmark = pytest.mark.server

SPEC = UpstreamSpec(time_to_first_token_s=0.02, inter_token_latency_s=0.002, output_tokens=10)
YARDSTICK = Yardstick(5.0)
SHAPE = Shape(model="fake")


def benched(
    options: BenchOptions,
    *rules: str,
    spec: UpstreamSpec = SPEC,
    shape: Shape = SHAPE,
    later: Callable[[Bench, UpstreamDouble], None] | None = None,
) -> tuple[BenchReport, UpstreamDouble]:
    """Runs a bench against an upstream of its own. Everything that was sent is in the log and in the upstream's."""

    async def work() -> tuple[BenchReport, UpstreamDouble]:
        async with UpstreamDouble(spec) as upstream:
            upstream.misbehave(*rules)
            maker = RequestMaker(
                parse_target(upstream.url),
                shape,
                [Credential("c")],
                Corpus(np.random.default_rng(1)),
                np.random.default_rng(2),
            )
            origin = HttpOrigin(Destination(upstream.url), ClientLimits())
            told: list[RequestRecord] = []
            bench = Bench(
                checked(options, streamed=shape.streamed),
                origin,
                maker,
                SystemClock(),
                np.random.default_rng(3),
                told.append,
            )
            if later is not None:
                later(bench, upstream)
            try:
                async with asyncio.timeout(30):
                    report = await bench.run()
            finally:
                origin.abort()
            assert len(told) == sum(len(step.records) for step in report.steps)
            await upstream.quiet()
            return report, upstream

    return uvloop.run(work())


def options(profile: Profile, **more: object) -> BenchOptions:
    return msgspec.structs.replace(BenchOptions(profile=profile, yardstick=YARDSTICK, duration_s=1.0), **more)


def test_constant_rate() -> None:
    report, upstream = benched(options(Profile.CONSTANT, rate=100.0, slo=Slo(ttft_ms=1000)))
    result = report.best.result
    assert (result.requests, result.ok, result.errors) == (100, 100, {})
    assert upstream.log.arrived == 100
    assert result.output_tokens_per_s == pytest.approx(1000 / result.duration_s, rel=0.01)
    assert result.ttft_ms.p50 is not None
    assert 15 <= result.ttft_ms.p50 < 500
    assert result.tpot_ms.p50 is not None
    assert 1 <= result.tpot_ms.p50 < 50
    assert result.goodput_rps > 0


def test_a_thousand_streams() -> None:
    spec = UpstreamSpec(time_to_first_token_s=0.5, max_num_seqs=2000, output_tokens=2)
    report, _ = benched(options(Profile.CONCURRENT, rate=1000.0, duration_s=None, max_requests=2000), spec=spec)
    result = report.best.result
    assert (result.requests, result.ok) == (2000, 2000), result.errors


def test_whole_answers() -> None:
    shape = Shape(model="fake", streamed=False, chat=False)
    report, _ = benched(options(Profile.SYNCHRONOUS), shape=shape)
    result = report.best.result
    assert result.ok == result.requests > 5
    assert (result.ttft_ms.p50, result.counted_share) == (None, 0.0)
    assert result.output_tokens_per_s > 0


@pytest.mark.parametrize(
    ("rule", "error", "status"),
    [
        ("cut:3", "cut", 200),
        ("reset_mid_stream:3", "cut", 200),
        ("error_event:2", None, 200),
        ("429:retry_after_s=1", None, 429),
        ("503", None, 503),
        ("reset", "lost", 0),
        ("malformed_http", "malformed", 0),
        ("close_after_head", "cut", 200),
        ("stall:2", "timeout", 200),
        ("no_response", "timeout", 0),
    ],
)
def test_trouble_is_an_error(rule: str, error: str | None, status: int) -> None:
    report, _ = benched(
        options(Profile.CONCURRENT, rate=4.0, duration_s=None, max_requests=8, timeout_s=0.5), f"{rule}@0-3600"
    )
    records = report.best.records
    assert [record.status for record in records] == [status] * 8
    assert all(record.error is not None for record in records)
    if error is not None:
        assert {record.error for record in records} == {error}
    assert report.best.result.ok == 0


@pytest.mark.parametrize("rule", ["malformed_chunk:2", "no_done", "no_usage", "comments"])
def test_what_is_tolerated(rule: str) -> None:
    report, _ = benched(options(Profile.CONCURRENT, rate=4.0, duration_s=None, max_requests=8), rule)
    result = report.best.result
    assert (result.ok, result.errors) == (8, {})
    assert result.counted_share == (1.0 if rule == "no_usage" else 0.0)


def test_a_server_that_stalls_cannot_hide_it() -> None:
    """One stream is allowed; the first answer takes 0.6 s; what was due in the meantime waited for it."""
    report, _ = benched(
        options(Profile.CONSTANT, rate=20.0, max_concurrency=1, duration_s=1.0), "slow_first_token:0.6:count=1"
    )
    result = report.best.result
    assert (result.requests, result.ok) == (20, 20)
    assert result.slip_ms.max is not None
    assert result.slip_ms.max > 450
    assert result.ttft_ms.p50 is not None
    assert result.ttft_ms.p50 > 100  # every other answer came 20 ms after its request was sent


def test_probes_measure_the_tokenizer() -> None:
    report, upstream = benched(options(Profile.SYNCHRONOUS, yardstick=None, max_requests=10))
    assert report.yardstick.measured
    for record in report.best.records:
        assert record.prompt_tokens == pytest.approx(record.input_tokens, rel=0.1)
    assert upstream.log.arrived == 18


def test_a_target_that_answers_nothing_well_is_found_before_the_run() -> None:
    with pytest.raises(ProbeError, match="invalid_api_key"):
        benched(options(Profile.CONSTANT, rate=1.0, yardstick=None), "401")


def test_a_sweep_goes_from_the_slowest_to_the_fastest() -> None:
    spec = UpstreamSpec(time_to_first_token_s=0.01, max_num_seqs=8, output_tokens=1)
    report, _ = benched(options(Profile.SWEEP, rate=4.0, duration_s=0.5, max_concurrency=32), spec=spec)
    results = [step.result for step in report.steps]
    assert [result.profile for result in results] == ["synchronous", "throughput", "constant", "constant"]
    assert results[1].throughput_rps > 2 * results[0].throughput_rps
    rates = [result.rate or 0.0 for result in results[2:]]
    assert results[0].throughput_rps < rates[0] < rates[1]
    assert rates[1] == pytest.approx(results[1].throughput_rps, abs=0.01)
    assert report.best.result.goodput_rps == max(result.goodput_rps for result in results)


def test_a_stopped_sweep_ends_with_what_there_is() -> None:
    def later(bench: Bench, upstream: UpstreamDouble) -> None:
        asyncio.get_running_loop().call_later(0.7, bench.stop)

    report, _ = benched(options(Profile.SWEEP, rate=5.0, duration_s=0.5), later=later)
    assert report.interrupted
    assert len(report.steps) == 2
