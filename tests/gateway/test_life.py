"""The life of a request between a client and upstreams that the test plays."""

import json

import pytest

from spillway.core.outcome import Outcome
from spillway.gateway.settings import GatewaySettings
from spillway.net.ports import ConnectionFault
from tests.gateway.bench import EAST, EVENT_STREAM, WEST, Bench

WHOLE = b'{"model":"npc","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"npc","stream":true,"messages":[{"role":"user","content":"hi"}]}'
STREAM_WITH_USAGE = b'{"model":"npc","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
ANSWER = b'{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
HELLO = b'data: {"choices":[{"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
BROKEN = b'data: {"choices":[{"delta":{"con\n\n'


def test_a_whole_answer_is_passed_on_and_settled_once() -> None:
    bench = Bench()
    client, call = bench.ask(WHOLE)
    assert call is not None
    assert json.loads(bench.last.body)["model"] == "upstream-name"
    bench.clock.advance(0.5)
    bench.last.answer(200, ANSWER)
    assert (client.status, client.got, client.closed) == (200, ANSWER, 1)
    [record] = bench.sink.records
    assert (record.outcome, record.pool, record.prompt_tokens, record.completion_tokens) == (Outcome.OK, EAST, 7, 3)
    assert record.cost_usd == pytest.approx((7 * 1.0 + 3 * 2.0) / 1e6)
    assert record.duration_s == pytest.approx(0.5)
    assert client.served is not None
    assert client.served.overhead_ms == pytest.approx(0.0)
    assert bench.driver.in_flight == 0


def test_a_stream_is_held_until_content_and_usage_is_taken_out_for_who_did_not_ask() -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    assert json.loads(bench.last.body)["stream_options"] == {"include_usage": True}
    bench.last.stream(ROLE)
    assert client.status is None
    bench.clock.advance(0.2)
    bench.last.read(HELLO)
    assert client.status == 200
    bench.last.read(STOP)
    bench.last.read(USAGE)
    bench.last.read(DONE)
    bench.last.receiver.response_end()
    assert client.got == ROLE + HELLO + STOP + DONE
    assert client.closed == 1
    [record] = bench.sink.records
    assert (record.outcome, record.completion_tokens, record.estimated) == (Outcome.OK, 3, False)
    assert record.ttft_s == pytest.approx(0.2)


def test_usage_is_left_in_for_who_asked() -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM_WITH_USAGE)
    bench.last.stream(ROLE, HELLO, STOP + USAGE + DONE)
    bench.last.receiver.response_end()
    assert client.got == ROLE + HELLO + STOP + USAGE + DONE


@pytest.mark.parametrize("cut_at", range(1, len(ROLE + HELLO + STOP + USAGE + DONE), 7))
def test_events_may_come_in_any_pieces(cut_at: int) -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    whole = ROLE + HELLO + STOP + USAGE + DONE
    bench.last.stream(whole[:cut_at], whole[cut_at:])
    bench.last.receiver.response_end()
    assert client.got == ROLE + HELLO + STOP + DONE
    assert bench.sink.records[0].completion_tokens == 3


def test_done_is_added_after_a_finish_reason_but_never_after_a_cut() -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, HELLO, STOP)
    bench.last.receiver.response_end()
    assert client.got.endswith(STOP + DONE)
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, HELLO)
    bench.last.receiver.response_end()
    assert DONE not in client.got
    assert client.cuts == [Outcome.CUT]
    assert bench.sink.records[-1].outcome is Outcome.CUT
    assert bench.sink.records[-1].estimated


@pytest.mark.parametrize(
    "pieces",
    [
        (HELLO, BROKEN, HELLO, STOP, DONE),
        (HELLO + BROKEN + HELLO + STOP + DONE,),
        (BROKEN, HELLO, HELLO, STOP + DONE),
        (b": hi\n\n", HELLO + BROKEN, HELLO + b": hi\n\n", STOP, DONE),
    ],
)
def test_one_event_that_is_no_json_is_left_out(pieces: tuple[bytes, ...]) -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, *pieces)
    bench.last.receiver.response_end()
    assert client.got.replace(b": hi\n\n", b"") == ROLE + HELLO + HELLO + STOP + DONE
    assert bench.sink.records[0].completion_tokens == 2


LATE_ERROR = b'data: {"id":"x","error":{"message":"sk-secret"},"choices":[{"delta":{},"finish_reason":"error"}]}\n\n'


def test_an_error_behind_other_fields_is_an_error() -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, LATE_ERROR)
    assert bench.last.pool == WEST  # nothing had been sent: another one serves
    bench.last.stream(ROLE, HELLO, HELLO + LATE_ERROR)
    assert client.got == ROLE + HELLO + HELLO
    assert client.cuts == [Outcome.CUT]
    assert bench.sink.records[0].completion_tokens == 2
    client, _ = bench.ask(WHOLE)
    bench.last.answer(200, b'{"id":"x","choices":[],"error":{"message":"sk-secret"}}')
    bench.last.answer(200, ANSWER)
    assert client.got == ANSWER


def test_two_events_that_are_no_json_end_the_stream() -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, HELLO, BROKEN, HELLO + BROKEN + HELLO)
    assert client.got == ROLE + HELLO + HELLO
    assert client.cuts == [Outcome.CUT]
    assert bench.last.cancelled


@pytest.mark.parametrize("fault", [ConnectionFault.CONNECT, ConnectionFault.LOST, ConnectionFault.MALFORMED])
def test_another_endpoint_takes_over_while_nothing_was_sent(fault: ConnectionFault) -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE)
    bench.last.receiver.response_failed(fault, "gone")
    assert [attempt.pool for attempt in bench.backends.attempts] == [EAST, WEST]
    bench.last.stream(ROLE, HELLO, STOP + DONE)
    bench.last.receiver.response_end()
    assert client.got == ROLE + HELLO + STOP + DONE
    assert client.served is not None
    assert (client.served.pool, client.served.attempts, client.served.spill) == (WEST, 2, "failed")
    assert len(bench.sink.records) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 401, 404])
def test_error_statuses_that_are_not_the_clients_move_on(status: int) -> None:
    bench = Bench()
    client, _ = bench.ask(WHOLE)
    bench.last.answer(status, b'{"error":{"message":"secret place","type":"x","code":null}}')
    bench.last.answer(200, ANSWER)
    assert client.status == 200
    assert bench.sink.records[0].attempts == 2


def test_the_requests_own_mistake_is_told_in_clean_words_and_not_retried() -> None:
    bench = Bench()
    client, _ = bench.ask(WHOLE)
    message = "bad temperature, see https://internal.example/x with sk-abcdef"
    bench.last.answer(400, json.dumps({"error": {"message": message, "type": "x", "code": None}}).encode())
    assert client.refusal == (Outcome.UPSTREAM_REJECTED, "bad temperature, see … with …")
    assert len(bench.backends.attempts) == 1
    assert bench.sink.records[0].outcome is Outcome.UPSTREAM_REJECTED


def test_an_error_in_band_before_content_moves_on_and_after_content_cuts() -> None:
    error = b'data: {"error":{"message":"CUDA out of memory at 10.0.0.7"}}\n\n'
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, error)
    assert bench.backends.attempts[0].cancelled
    bench.last.stream(ROLE, HELLO, error)
    assert client.cuts == [Outcome.CUT]
    assert b"CUDA" not in client.got
    assert bench.backends.attempts[1].cancelled


def test_content_that_comes_together_with_an_error_is_not_lost() -> None:
    bench = Bench()
    client, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, HELLO, HELLO + b'data: {"object":"error","message":"CUDA out of memory"}\n\n')
    assert client.got == ROLE + HELLO + HELLO
    assert client.cuts == [Outcome.CUT]
    [record] = bench.sink.records
    assert (record.completion_tokens, record.estimated) == (2, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"<html>no</html>",
        b'"text"',
        b"[{}]",
        ANSWER[:40],
        b'{"error": {"message": "CUDA"}}',
        b'{"object":"error"}',
    ],
)
def test_a_whole_answer_that_is_no_json_object_or_an_error_moves_on(body: bytes) -> None:
    bench = Bench()
    client, _ = bench.ask(WHOLE)
    bench.last.answer(200, body)
    bench.last.answer(200, b"\n" + ANSWER + b"\n")
    assert (client.status, client.got) == (200, b"\n" + ANSWER + b"\n")
    assert bench.sink.records[0].attempts == 2


def test_a_client_that_leaves_cancels_the_upstream_and_what_came_is_billed() -> None:
    bench = Bench()
    _, call = bench.ask(STREAM)
    assert call is not None
    bench.last.stream(ROLE, HELLO, HELLO)
    call.client_left()
    assert bench.last.cancelled
    [record] = bench.sink.records
    assert (record.outcome, record.completion_tokens, record.estimated) == (Outcome.CLIENT_LEFT, 2, True)
    call.client_left()
    assert len(bench.sink.records) == 1


def test_a_full_home_spills_and_a_waiting_client_that_leaves_frees_its_place() -> None:
    bench = Bench(limit=1)
    clients = [bench.ask(WHOLE) for _ in range(3)]
    assert [attempt.pool for attempt in bench.backends.attempts] == [EAST, WEST]
    waiting = clients[2][1]
    assert waiting is not None
    waiting.client_left()
    assert bench.sink.records[-1].outcome is Outcome.CLIENT_LEFT
    _, call = bench.ask(WHOLE)
    bench.clock.advance(0.25)
    bench.backends.attempts[0].answer(200, ANSWER)
    assert len(bench.backends.attempts) == 3
    assert call is not None
    assert call.waited_s == pytest.approx(0.25)


def test_backpressure_reaches_the_upstream() -> None:
    bench = Bench()
    _, call = bench.ask(STREAM)
    assert call is not None
    bench.last.stream(ROLE, HELLO)
    call.client_slow()
    assert bench.last.paused
    call.client_ready()
    assert not bench.last.paused


def test_what_a_client_that_left_had_waited_is_no_overhead() -> None:
    bench = Bench(limit=1)
    calls = [bench.ask(STREAM)[1] for _ in range(3)]  # two run, the third waits
    bench.clock.advance(7.0)
    for call in calls:
        assert call is not None
        call.client_left()
    assert [overhead_s for _, overhead_s in bench.observer.ends] == pytest.approx([0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("body", "secret", "outcome"),
    [
        (WHOLE, b"sk-other", Outcome.UNAUTHENTICATED),
        (b"{", b"sk-key", Outcome.INVALID_REQUEST),
        (b'{"model":"nope","messages":[]}', b"sk-key", Outcome.MODEL_NOT_FOUND),
    ],
)
def test_who_may_not_enter(body: bytes, secret: bytes, outcome: Outcome) -> None:
    bench = Bench()
    client, call = bench.ask(body, secret)
    assert call is None
    assert client.refusal is not None
    assert client.refusal[0] is outcome
    assert not bench.backends.attempts


def test_nothing_is_admitted_while_usage_has_nowhere_to_go() -> None:
    bench = Bench()
    bench.sink.full = True
    client, _ = bench.ask(WHOLE)
    assert client.refusal is not None
    assert client.refusal[0] is Outcome.UNAVAILABLE


def test_a_very_large_answer_is_passed_on_as_it_comes() -> None:
    bench = Bench(settings=GatewaySettings(max_held_bytes=100))
    client, _ = bench.ask(WHOLE)
    head, tail = b'{"data":"' + b"x" * 200, b'","usage":{"prompt_tokens":7,"completion_tokens":0}}'
    bench.last.receiver.response_head(200, EVENT_STREAM)
    bench.last.receiver.response_body(b"", [head])
    assert client.got == head
    bench.last.receiver.response_body(b"", [tail])
    bench.last.receiver.response_end()
    assert client.got == head + tail
    assert bench.sink.records[0].prompt_tokens == 7


def test_what_still_runs_when_the_process_ends_is_told_cancelled_and_settled() -> None:
    bench = Bench(limit=1)
    streaming, _ = bench.ask(STREAM)
    bench.last.stream(ROLE, HELLO)
    silent, _ = bench.ask(WHOLE)
    waiting, _ = bench.ask(WHOLE)
    bench.driver.give_up()
    assert streaming.cuts == [Outcome.CUT]
    assert silent.refusal == waiting.refusal == (Outcome.UNAVAILABLE, "")
    assert len(bench.backends.attempts) == 2
    assert all(attempt.cancelled for attempt in bench.backends.attempts)
    assert sorted(record.outcome for record in bench.sink.records) == [
        Outcome.CUT,
        Outcome.UNAVAILABLE,
        Outcome.UNAVAILABLE,
    ]
    assert bench.driver.in_flight == 0


def test_a_mistake_of_ours_ends_one_request_and_frees_its_slot() -> None:
    bench = Bench(limit=1)
    bench.backends.broken = True
    client, call = bench.ask(WHOLE)
    assert call is None
    assert client.refusal == (Outcome.INTERNAL, "")
    assert bench.sink.records[0].outcome is Outcome.INTERNAL
    bench.backends.broken = False
    client, _ = bench.ask(WHOLE)
    assert bench.last.pool == EAST
    bench.last.answer(200, ANSWER)
    assert client.status == 200
