"""The rules of micro-batches, one by one, and all of them under whatever happens."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from spillway.engine.micro.batcher import Batcher, Item
from spillway.engine.micro.settings import BatchRules

RULES = BatchRules(max_batch=4, max_batch_cost=400, max_delay_s=0.01, max_waiting=10, max_waiting_cost=1000)


def item(cost: int = 10, rank: int = 1, deadline: float = inf) -> Item:
    return Item("", rank, cost, deadline)


def filled(*items: Item, rules: BatchRules = RULES, now: float = 0.0) -> Batcher:
    batcher = Batcher(rules)
    for one in items:
        assert batcher.offer(one, now)
    return batcher


def test_nobody_waits_while_nothing_is_computed() -> None:
    one = item()
    assert filled(one).take(0.0) == ([one], [])


def test_beside_a_batch_the_next_one_waits_until_it_is_full_or_its_time_is_over() -> None:
    batcher = filled(item())
    batcher.take(0.0)
    late = [item() for _ in range(3)]
    for one in late:
        batcher.offer(one, 1.0)
    assert batcher.take(1.005) == ([], [])
    assert batcher.wake_at() == 1.01
    assert batcher.take(1.01)[0] == late
    batcher.ended(0.02)
    batcher.ended(0.02)
    batcher.take(2.0)
    batcher = filled(item())
    batcher.take(0.0)
    for one in (full := [item() for _ in range(4)]):
        batcher.offer(one, 0.0)
    assert batcher.take(0.0)[0] == full


def test_no_third_batch_begins() -> None:
    batcher = filled(*(item() for _ in range(10)))
    assert [len(batcher.take(5.0)[0]) for _ in range(3)] == [4, 4, 0]
    assert batcher.wake_at() == inf
    batcher.ended(0.01)
    assert len(batcher.take(5.0)[0]) == 2


def test_the_more_urgent_go_first_and_the_overdue_before_them() -> None:
    low, high = item(rank=2), item(rank=0)
    rules = BatchRules(max_batch=1, overdue_s=1.0)
    assert filled(low, high, rules=rules).take(0.5)[0] == [high]
    assert filled(low, high, rules=rules).take(1.0)[0] == [low]


def test_what_is_computed_together_is_of_like_length_and_the_others_keep_their_places() -> None:
    short, long, short2, long2 = item(10), item(100), item(15), item(90)
    batcher = filled(short, long, short2, long2)
    assert batcher.take(0.0)[0] == [short, short2]
    batcher.ended(0.01)
    assert batcher.take(0.0)[0] == [long, long2]


def test_a_batch_costs_its_longest_times_its_number() -> None:
    items = [item(150), item(150), item(150)]
    assert filled(*items).take(0.0)[0] == items[:2]
    alone = item(900)  # larger than a batch may be: alone rather than never
    assert filled(alone).take(0.0)[0] == [alone]


def test_what_would_be_done_too_late_is_dropped_before_it_is_computed() -> None:
    batcher = filled(item())
    batcher.take(0.0)
    batcher.ended(0.5)
    late, soon = item(deadline=1.4), item(deadline=1.6)
    batcher.offer(late, 1.0)
    batcher.offer(soon, 1.0)
    assert batcher.take(1.0) == ([soon], [late])
    batcher.ended(0.5)
    batcher.offer(item(deadline=1.0), 1.0)
    assert [len(part) for part in batcher.take(1.0)] == [0, 1]
    assert (batcher.waiting, batcher.waiting_cost, batcher.running) == (0, 0, 0)


def test_what_waits_is_bounded_in_number_and_in_cost() -> None:
    batcher = filled(*(item(1) for _ in range(10)))
    assert not batcher.offer(item(1), 0.0)
    batcher = filled(item(600), item(399))
    assert not batcher.offer(item(2), 0.0)
    assert batcher.offer(item(1), 0.0)


def test_who_leaves_gives_room() -> None:
    one = item(1000)
    batcher = filled(one)
    assert batcher.cancel(one)
    assert not batcher.cancel(one)
    assert batcher.offer(other := item(1000), 0.0)
    batcher.take(0.0)
    assert not batcher.cancel(other)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.integers(1, 300), st.integers(0, 2), st.floats(0.0, 3.0)),
            st.tuples(st.just("cancel"), st.integers(0, 100)),
            st.tuples(st.just("end"), st.floats(0.0, 0.2)),
            st.tuples(st.just("pass"), st.floats(0.0, 0.05)),
        ),
        max_size=120,
    )
)
def test_every_item_leaves_once_and_nothing_is_beyond_its_bounds(steps: list[tuple[object, ...]]) -> None:
    batcher, now = Batcher(RULES), 0.0
    inside: list[Item] = []
    running: list[list[Item]] = []
    for step in steps:
        match step:
            case ("offer", int(cost), int(rank), float(left_s)):
                one = item(cost, rank, now + left_s)
                fits = len(inside) < 10 and sum(x.cost for x in inside) + cost <= 1000
                assert batcher.offer(one, now) == fits
                if fits:
                    inside.append(one)
            case ("cancel", int(which)) if inside:
                one = inside.pop(which % len(inside))
                assert batcher.cancel(one)
            case ("end", float(took_s)) if running:
                running.pop(0)
                batcher.ended(took_s)
            case ("pass", float(seconds)):
                now += seconds
            case _:
                pass
        batch, late = batcher.take(now)
        for one in (*batch, *late):
            inside.remove(one)  # ValueError: it left twice
        if batch:
            running.append(batch)
            assert len(batch) <= RULES.max_batch
            assert len(batch) == 1 or max(x.cost for x in batch) * len(batch) <= RULES.max_batch_cost
            assert len(batch) == 1 or max(x.cost for x in batch) <= 4 * min(x.cost for x in batch)
            assert all(one.deadline > now for one in batch)
        assert len(running) == batcher.running <= RULES.in_flight
        assert (batcher.waiting, batcher.waiting_cost) == (len(inside), sum(x.cost for x in inside))
        if inside and len(running) < RULES.in_flight:
            assert running, "somebody waits while nothing is computed"
            assert batcher.wake_at() <= now + RULES.max_delay_s
