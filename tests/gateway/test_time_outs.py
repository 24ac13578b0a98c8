"""What is too slow: an upstream that says nothing, a whole answer that never ends, a client that takes nothing."""

from spillway.core.outcome import Outcome
from spillway.gateway.settings import GatewaySettings, ModelTimeouts
from tests.gateway.bench import NPC, WEST, Bench

WHOLE = b'{"model":"npc","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"npc","stream":true,"messages":[{"role":"user","content":"hi"}]}'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
HELLO = b'data: {"choices":[{"delta":{"content":"hello"},"finish_reason":null}]}\n\n'


def test_slow_attempts_are_given_up() -> None:
    bench = Bench(settings=GatewaySettings(first_content_s=1.0, between_chunks_s=2.0))
    client, _ = bench.ask(STREAM)
    first = bench.last
    bench.clock.advance(1.1)
    bench.driver.sweep()
    assert first.cancelled
    assert bench.last.pool == WEST
    bench.last.stream(ROLE, HELLO)
    bench.driver.sweep()
    bench.clock.advance(2.1)
    bench.driver.sweep()
    assert client.cuts == [Outcome.CUT]
    assert bench.last.cancelled


def test_a_model_has_time_outs_of_its_own() -> None:
    bench = Bench(settings=GatewaySettings(first_content_s=10.0, between_chunks_s=10.0))
    bench.driver.set_timeouts({NPC: ModelTimeouts(first_content_s=1.0, between_chunks_s=2.0)})
    client, _ = bench.ask(STREAM)
    bench.clock.advance(1.1)
    bench.driver.sweep()
    assert bench.last.pool == WEST
    bench.last.stream(ROLE, HELLO)
    bench.driver.sweep()
    bench.clock.advance(2.1)
    bench.driver.sweep()
    assert client.cuts == [Outcome.CUT]


def test_a_whole_answer_that_takes_too_long_is_not_tried_again() -> None:
    bench = Bench(settings=GatewaySettings(whole_s=5.0))
    client, _ = bench.ask(WHOLE)
    bench.clock.advance(5.1)
    bench.driver.sweep()
    assert client.refusal == (Outcome.UPSTREAM_TIMEOUT, "")
    assert [attempt.cancelled for attempt in bench.backends.attempts] == [True]
    [record] = bench.sink.records
    assert (record.outcome, record.attempts) == (Outcome.UPSTREAM_TIMEOUT, 1)
    assert bench.driver.in_flight == 0


def test_silence_while_the_client_is_slow_is_not_the_upstreams() -> None:
    bench = Bench(settings=GatewaySettings(between_chunks_s=2.0))
    client, call = bench.ask(STREAM)
    assert call is not None
    bench.last.stream(ROLE, HELLO)
    call.client_slow()
    for _ in range(5):
        bench.clock.advance(1.0)
        bench.driver.sweep()
    call.client_ready()
    bench.driver.sweep()
    assert not client.cuts
    bench.clock.advance(2.1)
    bench.driver.sweep()
    assert client.cuts == [Outcome.CUT]


def test_a_client_that_takes_its_answer_too_slowly_loses_its_slot() -> None:
    bench = Bench(settings=GatewaySettings(total_s=10.0))
    client, call = bench.ask(STREAM)
    assert call is not None
    bench.last.stream(ROLE, HELLO)
    call.client_slow()
    bench.clock.advance(10.1)
    bench.driver.sweep()
    assert client.cuts == [Outcome.CLIENT_TIMEOUT]
    assert bench.last.cancelled
    assert bench.driver.in_flight == 0
    assert bench.sink.records[0].outcome is Outcome.CLIENT_TIMEOUT
