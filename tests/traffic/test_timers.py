"""One heap of what falls due."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from spillway.traffic.timers import Timers


@given(st.lists(st.floats(0.0, 100.0)))
def test_they_fall_due_in_order_and_equal_ones_as_they_came(dues: list[float]) -> None:
    timers = Timers[int](lambda _: True)
    for number, due in enumerate(dues):
        timers.add(due, number)
    order: list[int] = []
    while timers.next_due < inf:
        assert timers.next_due == min(due for number, due in enumerate(dues) if number not in order)
        order.append(timers.pop())
    assert order == sorted(range(len(dues)), key=lambda number: dues[number])


def test_memory_is_bounded_by_what_still_matters() -> None:
    alive = set[int]()
    timers = Timers[int](alive.__contains__)
    for number in range(100_000):
        alive.add(number)
        timers.add(float(number), number)
        alive.discard(number - 10)
    assert len(timers) <= Timers.SLACK + 2 * len(alive) + 1
