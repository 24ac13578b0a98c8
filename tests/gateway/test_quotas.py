"""Limits at the gateway: what passes, what waits for its lease, what is refused, and what the client is told."""

import math

import pytest

from spillway.core.ids import ModelName, TenantId
from spillway.core.outcome import Outcome
from spillway.net.ports import ConnectionFault
from spillway.quota.ledger import Seed
from spillway.quota.rules import Bounds, Owner, Quota
from tests.gateway.bench import Bench, PlayedClient

BODY = b'{"model":"npc","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}'
ANSWER = b'{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'


def bench(quota: Quota, **organization: float) -> Bench:
    made = Bench()
    theirs = Quota(**organization) if organization else None  # pyright: ignore[reportArgumentType]
    made.keyring.add(
        b"sk-key", tenant="studio", owner=Owner(TenantId("studio"), tenant_quota=quota, organization_quota=theirs)
    )
    made.exchange()
    return made


def served(made: Bench) -> PlayedClient:
    client, _ = made.ask(BODY)
    made.exchange()
    made.last.answer(200, ANSWER)
    return client


def lines(client: PlayedClient) -> dict[str, str]:
    assert client.served is not None
    return dict(line.split(": ", 1) for line in client.served.limits.decode().split("\r\n") if line)


def test_the_first_request_waits_for_its_lease_and_later_ones_do_not() -> None:
    made = bench(Quota(requests_per_minute=60))
    _, call = made.ask(BODY)
    assert call is not None
    assert made.backends.attempts == []
    made.exchange()
    made.last.answer(200, ANSWER)
    made.ask(BODY)
    assert len(made.running) == 1


def test_over_the_limit_is_429_with_when_to_come_back_and_what_is_left() -> None:
    made = bench(Quota(requests_per_minute=12))  # two at once
    for _ in range(2):
        assert served(made).status == 200
    client, _ = made.ask(BODY)
    made.exchange()
    assert client.refusal is not None
    assert client.refusal[0] is Outcome.RATE_LIMITED
    assert client.refusal[1] == "Your limit of 12 requests per minute is reached"
    assert client.retry_after_s == pytest.approx(5.0)
    assert lines(client) == {
        "x-ratelimit-limit-requests": "12",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "10s",
    }
    assert [record.outcome for record in made.sink.records] == [Outcome.OK, Outcome.OK, Outcome.RATE_LIMITED]
    assert made.quotas.refusals == {("requests", "minute", "used"): 1}
    for _ in range(6):
        made.advance(1.0)
        made.exchange()
    assert served(made).status == 200


@pytest.mark.parametrize("end", ["client_left", "refused_upstream"])
def test_what_was_reserved_and_not_used_comes_back(end: str) -> None:
    made = bench(Quota(tokens_per_minute=600))  # a hundred at once
    body = BODY.replace(b"3", b"80", 1)
    _, call = made.ask(body)
    made.exchange()
    assert call is not None
    if end == "client_left":
        call.client_left()
    else:
        made.last.fail(ConnectionFault.CONNECT)
        made.last.answer(400, b'{"error":{"message":"no","type":"x","param":null,"code":null}}')
    client, _ = made.ask(body)
    made.exchange()
    assert client.refusal is None
    assert made.running


def test_who_leaves_while_the_request_waits_for_its_lease_leaves_nothing_behind() -> None:
    made = bench(Quota(in_flight=1))
    _, call = made.ask(BODY)
    assert call is not None
    call.client_left()
    assert made.driver.in_flight == 0
    made.exchange()
    assert made.backends.attempts == []
    assert [record.outcome for record in made.sink.records] == [Outcome.CLIENT_LEFT]
    assert served(made).status == 200


def test_requests_at_once() -> None:
    made = bench(Quota(in_flight=2))
    for _ in range(2):
        made.ask(BODY)
        made.exchange()
    client, _ = made.ask(BODY)
    made.exchange()
    assert client.refusal == (Outcome.RATE_LIMITED, "Your limit of 2 requests at once is reached")
    made.last.answer(200, ANSWER)
    assert served(made).status == 200


def test_a_budget_reserves_the_worst_case_and_is_never_exceeded() -> None:
    made = bench(Quota(usd_per_day=0.000_040))  # four of 7 · 1 + 3 · 2 = 13 millionths of a cent each fit in 52
    made.book.seed(Seed("t/studio/usd_per_day", "2024-01-01", 0), made.clock.monotonic())
    clients = [made.ask(BODY)[0] for _ in range(20)]
    made.exchange()
    for attempt in made.running:
        attempt.answer(200, ANSWER)
    made.exchange()
    spent = sum(record.cost_usd for record in made.sink.records)
    assert 0.000_013 <= spent <= 0.000_040
    assert {client.refusal[0] for client in clients if client.refusal is not None} == {Outcome.RATE_LIMITED}


def test_a_budget_that_is_used_up_says_so_and_that_coming_back_changes_nothing() -> None:
    made = bench(Quota(usd_per_month=1.0))
    made.book.seed(Seed("t/studio/usd_per_month", "2024-01", 1_000_000_000), made.clock.monotonic())
    client = PlayedClient()
    for _ in range(6):
        client, _ = made.ask(BODY)
        made.exchange()
        made.advance(1.0)
        made.exchange()
    assert client.refusal == (Outcome.RATE_LIMITED, "Your budget of $1.00 per month is used up")
    assert client.code == "insufficient_quota"
    assert client.retry_after_s == math.inf


def test_a_budget_that_nobody_knows_the_state_of_is_503_and_not_429() -> None:
    made = bench(Quota(usd_per_day=1.0))
    client, _ = made.ask(BODY)
    for _ in range(30):
        made.exchange()
        made.advance(0.01)
    assert client.refusal is not None
    assert client.refusal[0] is Outcome.UNAVAILABLE
    assert made.quotas.refusals == {("nano_usd", "day", "cut_off"): 1}


def test_it_passes_as_soon_as_the_budget_is_seeded() -> None:
    made = bench(Quota(usd_per_day=1.0))
    client, _ = made.ask(BODY)
    made.exchange()
    assert client.refusal is None
    made.book.seed(Seed("t/studio/usd_per_day", "2024-01-01", 0), made.clock.monotonic())
    made.advance(0.011)
    made.exchange()
    assert len(made.running) == 1


def test_the_narrowest_of_several_levels_holds() -> None:
    made = bench(
        Quota(requests_per_minute=600, models={ModelName("npc"): Bounds(requests_per_minute=6)}), requests_per_minute=60
    )
    assert served(made).status == 200
    client, _ = made.ask(BODY)
    made.exchange()
    assert client.refusal == (Outcome.RATE_LIMITED, "Your limit of 6 requests per minute for this model is reached")


def test_a_ledger_that_does_not_answer_is_503_once_the_floor_is_used_up() -> None:
    made = bench(Quota(requests_per_minute=60))
    made.advance(10.0)
    made.reports.clear()
    refused = 0
    for _ in range(100):
        client, _ = made.ask(BODY)
        made.advance(0.1)
        refused += client.refusal is not None and client.refusal[0] is Outcome.UNAVAILABLE
    assert refused > 0
    assert made.backends.attempts  # alone, a member's share is all of the rate


def test_header_lines_are_on_refusals_before_the_model_is_known() -> None:
    made = bench(Quota(requests_per_minute=60))
    client, _ = made.ask(b'{"model":"nobody","messages":[]}')
    assert lines(client)["x-ratelimit-limit-requests"] == "60"


def test_each_end_user_has_limits_of_their_own_and_one_who_is_not_named_has_none() -> None:
    made = bench(Quota(each_user=Bounds(requests_per_minute=6)))

    def asked(user: bytes) -> bool:
        client, _ = made.ask(BODY.replace(b'"max_tokens"', b'"user":"%b","max_tokens"' % user))
        made.exchange()
        if client.refusal is None:
            made.last.answer(200, ANSWER)
        return client.refusal is None

    assert [asked(b"ada"), asked(b"ada"), asked(b"bob"), asked(b"bob")] == [True, False, True, False]
    assert [served(made).status for _ in range(3)] == [200, 200, 200]
    assert made.reports == []
