"""The ledger's accounts: nothing is given out twice, whatever is lost on the way."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.quota.book import Book, burst
from spillway.quota.fair import max_min
from spillway.quota.ledger import Ask, Grant, Kind, LedgerTimes, MemberId, Reply, Report, Seed

TIMES = LedgerTimes()
A, B = MemberId("a"), MemberId("b")


class Talk:
    """One member's reports, numbered."""

    def __init__(self, book: Book, member: MemberId = A) -> None:
        self._book = book
        self._member = member
        self.turn = 0
        self.share = 0.0

    def say(self, *asks: Ask, now: float = 0.0, leaving: bool = False) -> Reply:
        self.turn += 1
        reply = self._book.report(Report(self._member, self.turn, self.share, asks, leaving), now)
        self.share = reply.share
        return reply


def bucket(amount: int = 600, **changes: object) -> Ask:
    return msgspec.structs.replace(Ask("t/x/tokens_per_minute", Kind.BUCKET, amount), **changes)


def budget(amount: int = 100, **changes: object) -> Ask:
    return msgspec.structs.replace(Ask("t/x/usd_per_day", Kind.BUDGET, amount, "2026-11-26"), **changes)


def slots(used: int, wanted: int, kept: int = 0, floor: int = 0, amount: int = 12) -> Ask:
    return Ask("p/east", Kind.SLOTS, amount, used=used, kept=kept, floor=floor, wants=(wanted,))


def only(reply: Reply) -> Grant:
    (grant,) = reply.grants
    return grant


def test_a_bucket_is_full_at_first_and_refills_with_time() -> None:
    talk = Talk(Book(TIMES, 0.0))
    assert only(talk.say(bucket(need=70), now=0.0)).granted == 70
    short = only(talk.say(bucket(kept=70, need=50), now=0.0))
    assert (short.granted, short.level, short.retry_s) == (30, 0, pytest.approx(2.0))
    assert only(talk.say(bucket(used=100, need=500), now=2.0)).granted == 20  # 10 a second
    assert only(talk.say(bucket(used=120, need=500), now=2.5)).granted == 5


def test_what_was_granted_and_not_heard_comes_back() -> None:
    talk = Talk(Book(TIMES, 0.0))
    talk.say(bucket(need=100))  # the reply is lost
    assert only(talk.say(bucket(need=100))).granted == 100


def test_a_report_that_comes_twice_or_late_changes_nothing() -> None:
    book = Book(TIMES, 0.0)
    talk = Talk(book)
    talk.say(bucket(need=100))
    talk.say(bucket(used=40, kept=60))
    again = book.report(Report(A, 1, 0.0, (bucket(need=100),)), 0.0)
    assert again.grants == ()
    assert only(talk.say(bucket(used=40, kept=60, need=1))).granted == 0


def test_what_exceeds_the_burst_goes_on_credit_when_the_bucket_is_full() -> None:
    talk = Talk(Book(TIMES, 0.0))
    assert only(talk.say(bucket(need=250, largest=90))).granted == 100  # several small ones do not
    assert only(talk.say(bucket(need=250, largest=250))).granted == 250
    for second in range(1, 16):
        assert only(talk.say(bucket(used=250, need=1), now=float(second))).granted == 0
    assert only(talk.say(bucket(used=250, need=1), now=15.2)).granted == 1


def test_more_used_than_was_held_is_a_debt() -> None:
    talk = Talk(Book(TIMES, 0.0))
    talk.say(bucket(need=100))
    assert only(talk.say(bucket(used=150, need=1))).retry_s == pytest.approx(5.1)


def test_an_amount_of_nothing_gives_nothing() -> None:
    assert only(Talk(Book(TIMES, 0.0)).say(bucket(0, need=1), now=9.0)).granted == 0
    assert burst(0) == 0
    assert burst(1) == 1


def test_an_absent_member_s_share_is_its_own() -> None:
    book = Book(TIMES, 0.0)
    a, b = Talk(book, A), Talk(book, B)
    for _ in range(3):
        a.say(now=0.0)
        b.say(now=0.0)
    assert (a.share, b.share) == (0.5, 0.5)
    a.say(bucket(need=100), now=0.0)
    for second in range(1, 11):
        a.say(bucket(used=100), now=float(second))
    # b is absent from 2.5 s on: from there on half the rate is its own
    assert only(a.say(bucket(used=100, need=500), now=10.0)).granted == int(10 * 2.5 + 5 * 7.5)
    assert a.say(now=59.0).members == 2
    assert a.say(now=60.0).members == 1


def test_a_ledger_that_forgot_everything_gives_those_who_are_there_their_shares_only() -> None:
    book = Book(TIMES, 100.0, learning=True)
    a = Talk(book, A)
    a.share = 0.25  # of four
    assert only(a.say(bucket(used=7_000, need=50), now=100.0)).granted == 0
    assert a.say(now=100.0).learning
    for second in range(101, 105):
        a.share = 0.25
        a.say(now=float(second))
    a.share = 0.25
    # the first report gave it everything that nobody else claims: a share counts as the larger of both
    assert only(a.say(bucket(used=7_000, need=500), now=104.0)).granted <= 40


def test_a_budget_gives_nothing_before_somebody_says_what_was_used() -> None:
    book = Book(TIMES, 0.0)
    talk = Talk(book)
    assert only(talk.say(budget(need=10))) == Grant("t/x/usd_per_day", "2026-11-26", unseeded=True)
    book.seed(Seed("t/x/usd_per_day", "2026-11-26", 70), 0.0)
    assert only(talk.say(budget(need=10))).granted == 10
    assert only(talk.say(budget(used=10, need=50))).granted == 20
    assert only(talk.say(budget(used=30, need=1))).granted == 0


def test_what_a_dead_member_held_counts_until_records_say_what_it_was() -> None:
    book = Book(TIMES, 0.0)
    a, b = Talk(book, A), Talk(book, B)
    a.say(budget())
    book.seed(Seed("t/x/usd_per_day", "2026-11-26", 0), 0.0)
    a.say(budget(need=60))
    b.say(budget(need=10))
    a.say(leaving=True)  # it died: nothing is closed
    grant = only(b.say(budget(used=5, kept=5, need=90)))
    assert (grant.granted, grant.mark, book.unsettled()) == (30, 1, 1)
    book.seed(Seed("t/x/usd_per_day", "2026-11-26", 25, mark=grant.mark), 6.0)  # 20 of a's, 5 of b's
    assert book.unsettled() == 0
    assert only(b.say(budget(used=5, kept=35, need=90), now=6.0)).granted == 100 - 25 - 40


def test_a_closed_account_keeps_what_was_used_and_is_closed_once() -> None:
    book = Book(TIMES, 0.0)
    talk = Talk(book)
    talk.say(budget())
    book.seed(Seed("t/x/usd_per_day", "2026-11-26", 0), 0.0)
    talk.say(budget(need=60))
    talk.say(budget(used=20, closing=True))
    talk.say(budget(used=20, closing=True))  # the reply was lost, it says so again
    assert only(talk.say(budget(need=100))).granted == 80


def test_slots_are_taken_until_their_member_says_that_they_are_not() -> None:
    book = Book(TIMES, 0.0)
    a, b = Talk(book, A), Talk(book, B)
    first = only(a.say(slots(0, 12)))
    assert (first.granted, first.floor) == (12, 6)
    assert only(b.say(slots(0, 6))).granted == 0
    lowered = only(a.say(slots(9, 12, kept=12, floor=6)))
    assert lowered.granted < 12
    assert only(b.say(slots(0, 6))).granted == 0  # a has not said yet that it knows
    a.say(slots(9, 12, kept=lowered.granted, floor=lowered.floor))
    assert only(b.say(slots(0, 6))).granted == 12 - 9


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 20),
            st.integers(0, 20),
            st.booleans(),
            st.sampled_from([0.0, 0.3, 1.0, 4.0]),
        ),
        max_size=60,
    )
)
@settings(max_examples=300, deadline=None)
def test_slots_never_exceed_the_limit(steps: list[tuple[str, int, int, bool, float]]) -> None:
    """Members use as many as they believe to have; any reply may be lost."""
    book, now = Book(TIMES, 0.0), 0.0
    talks = {name: Talk(book, MemberId(name)) for name in "abc"}
    believed: dict[str, tuple[int, int]] = dict.fromkeys("abc", (0, 0))
    in_use = dict.fromkeys("abc", 0)
    for name, use, want, lost, passing in steps:
        now += passing
        granted, floor = believed[name]
        in_use[name] = min(use, max(granted, in_use[name]))
        share = talks[name].share
        grant = only(talks[name].say(slots(in_use[name], want, granted, floor), now=now))
        if lost:
            talks[name].share = share
        else:
            believed[name] = (grant.granted, grant.floor)
        assert grant.floor <= grant.granted
        assert sum(max(in_use[one], *believed[one]) for one in "abc") <= 12


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 80), st.booleans(), st.floats(0, 2)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_bucket_never_gives_more_than_its_rate_and_its_burst(steps: list[tuple[str, int, bool, float]]) -> None:
    book, now = Book(TIMES, 0.0), 0.0
    talks = {name: Talk(book, MemberId(name)) for name in "abc"}
    free, used = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)
    for name, spend, lost, passing in steps:
        now += passing
        spent = min(spend, free[name])
        used[name] += spent
        free[name] -= spent
        grant = only(talks[name].say(bucket(used=used[name], kept=free[name], need=20, want=20), now=now))
        if not lost:
            free[name] += grant.granted
        assert sum(used.values()) + sum(free.values()) <= 100 + 10 * now + 1e-6


@given(st.integers(0, 100), st.dictionaries(st.integers(), st.integers(-5, 60), max_size=8))
def test_max_min(room: int, demands: dict[int, int]) -> None:
    given = max_min(room, demands)
    assert given.keys() == demands.keys()
    assert all(0 <= given[name] <= max(0, demands[name]) for name in demands)
    assert sum(given.values()) == min(room, sum(max(0, one) for one in demands.values()))
    short = [given[name] for name in demands if given[name] < demands[name]]
    assert not short or max(given.values()) - min(short) <= 1
