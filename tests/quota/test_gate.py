"""The gate: what passes, what waits, what is refused; and that all members together keep to the limit."""

import random
from functools import partial

import pytest

from spillway.core.ids import RequestId
from spillway.quota.book import Book
from spillway.quota.charges import Charge, Refusal
from spillway.quota.gate import Gate
from spillway.quota.ledger import Failed, LedgerTimes
from spillway.quota.open_meters import Claim
from spillway.quota.rules import MeterSpec, Span, Unit

TIMES = LedgerTimes()
TOKENS = MeterSpec("t/x/tokens_per_minute", Unit.TOKENS, Span.MINUTE, 600)
RUNNING = MeterSpec("t/x/in_flight", Unit.IN_FLIGHT, Span.NOW, 3)


def gate(name: str = "a") -> Gate:
    return Gate(name, TIMES, lambda span: "" if span in (Span.MINUTE, Span.NOW) else span.value, 0.0)


def exchange(one: Gate, book: Book, now: float) -> None:
    report = one.report(now)
    if report is not None:
        one.heard(book.report(report, now), now)


def tokens(amount: int) -> Charge:
    return Charge(1, amount, 0)


def spent(amount: int) -> Charge:
    return Charge(1, amount, 0, 0)


@pytest.mark.parametrize(("amount", "refused"), [(60, False), (101, True)])
def test_a_request_waits_for_its_first_lease(amount: int, refused: bool) -> None:
    one, book, said = gate(), Book(TIMES, 0.0), list[Refusal | None]()
    for number in range(2):  # 60 fits once; one of 101 goes on credit, and then nothing does
        assert one.reserve(RequestId(f"r{number}"), Claim((TOKENS,)), tokens(amount), 0.0, said.append) is False
    exchange(one, book, 0.0)
    assert said[0] is None
    assert isinstance(said[1], Refusal)
    assert said[1].spec is TOKENS
    assert said[1].retry_s > 0
    assert not refused or said[1].retry_s > 10


def test_what_was_not_used_comes_back() -> None:
    one, book, said = gate(), Book(TIMES, 0.0), list[Refusal | None]()
    one.reserve(RequestId("r1"), Claim((TOKENS,)), tokens(90), 0.0, said.append)
    exchange(one, book, 0.0)
    one.settle(RequestId("r1"), spent(10), 0.1)
    assert one.reserve(RequestId("r2"), Claim((TOKENS,)), tokens(80), 0.1, said.append) is None


def test_slots_are_counted_and_given_back() -> None:
    one, book, said = gate(), Book(TIMES, 0.0), list[Refusal | None]()
    for number in range(4):
        one.reserve(RequestId(f"r{number}"), Claim((RUNNING,)), tokens(1), 0.0, said.append)
    exchange(one, book, 0.0)
    assert [answer is None for answer in said] == [True, True, True, False]
    one.settle(RequestId("r0"), spent(1), 0.1)
    assert one.reserve(RequestId("r9"), Claim((RUNNING,)), tokens(1), 0.1, said.append) is None


def test_nobody_waits_longer_than_the_wait_and_nobody_waits_while_cut_off() -> None:
    one, said = gate(), list[Refusal | None]()
    assert one.reserve(RequestId("r"), Claim((TOKENS,)), tokens(9), 0.0, said.append) is False
    one.tick(TIMES.wait_s / 2)
    assert said == []
    one.tick(TIMES.wait_s + 0.01)
    assert isinstance(said[0], Refusal)
    assert said[0].cut_off  # nobody said that the limit is reached
    assert isinstance(one.reserve(RequestId("s"), Claim((TOKENS,)), tokens(9), 3.0, said.append), Refusal)


@pytest.mark.parametrize("seed", range(12))
def test_members_together_keep_to_a_minute_s_limit(seed: int) -> None:
    """Reports and replies are lost, members are cut off and come back; nobody uses more than it reserved."""
    rng = random.Random(seed)
    book, gates = Book(TIMES, 0.0), {name: gate(name) for name in "abc"}
    cut_until = dict.fromkeys("abc", 0.0)
    served: list[tuple[float, int]] = []
    number, now = 0, 0.0
    while now < 180.0:
        now += 0.05
        for name, one in gates.items():
            if rng.random() < 0.002:
                cut_until[name] = now + rng.choice([1.0, 4.0, 30.0, 80.0])
            amount, request = rng.randint(1, 30), RequestId(f"r{number}")
            number += 1

            answered = partial(_answered, served, gates[name], request, amount, now)
            if rng.random() < 0.6:
                found = one.reserve(request, Claim((TOKENS,)), tokens(amount), now, answered)
                if found is None:
                    answered(None)
            one.tick(now)
            report = one.report(now)
            if report is not None and (now < cut_until[name] or rng.random() < 0.05):
                one.heard(Failed(report.turn, gone=False, may_count=False), now)
            elif report is not None:
                reply = book.report(report, now)
                one.heard(Failed(report.turn, gone=False) if rng.random() < 0.05 else reply, now)
    moments = [0.0, *(at for at, _ in served)]
    for first in moments[:: max(1, len(moments) // 60)]:
        total = 0
        for at, amount in served:
            if at >= first:
                total += amount
                assert total <= 10 * (at - first) + 100 + 30
    assert sum(amount for _, amount in served) > 600


def _answered(
    served: list[tuple[float, int]], one: Gate, request: RequestId, amount: int, now: float, refusal: Refusal | None
) -> None:
    if refusal is None:
        served.append((now, amount))
        one.settle(request, spent(amount), now)
