"""Which items are computed together, and when. Pure: time is told.

Rules
1. While nothing is computed an item does not wait: a batch begins with what is there.
2. While a batch is computed another one begins beside it (its preparation overlaps) as soon as it is full, or its oldest item has
   waited `max_delay_s`. Beyond `in_flight` batches nothing begins.
3. The first item of a batch is the oldest of the most urgent priority, or one that is overdue. It is joined by the next ones in that
   order whose cost is near its own; others keep their places.
4. An item whose deadline would be over before its batch is done is dropped before it is computed.
5. Everything that waits is bounded, in number and in cost.
"""

from collections import OrderedDict
from collections.abc import Iterator
from math import inf

from spillway.core.clock import Seconds
from spillway.core.priority import Priority
from spillway.engine.micro.settings import BatchRules

LOOK = 8
"""Times `max_batch`: so far behind the first item others are looked for."""
MEMORY = 8


class Item:
    """One text on its way. `number`: in the order of arrival."""

    __slots__ = ("arrived_at", "cost", "deadline", "number", "rank", "text")

    def __init__(
        self, text: str, rank: int = Priority.INTERACTIVE.rank, cost: int | None = None, deadline: Seconds = inf
    ) -> None:
        """`cost` ≥ 1; `deadline`: monotonic seconds."""
        self.text = text
        self.rank = rank
        self.cost = max(1, len(text) if cost is None else cost)
        self.deadline = deadline
        self.number = 0
        self.arrived_at: Seconds = 0.0


class Batcher:
    def __init__(self, rules: BatchRules) -> None:
        self._rules = rules
        self._lanes: tuple[OrderedDict[int, Item], ...] = tuple(OrderedDict[int, Item]() for _ in Priority)
        self._number = 0
        self._batch_s: Seconds = 0.0  # a batch takes about so long
        self.waiting = 0
        self.waiting_cost = 0
        self.running = 0  # batches

    def offer(self, item: Item, now: Seconds) -> bool:
        """False: there is no room."""
        rules = self._rules
        if self.waiting >= rules.max_waiting or self.waiting_cost + item.cost > rules.max_waiting_cost:
            return False
        self._number += 1
        item.number, item.arrived_at = self._number, now
        self._lanes[item.rank][item.number] = item
        self.waiting += 1
        self.waiting_cost += item.cost
        return True

    def cancel(self, item: Item) -> bool:
        """False: it is computed already, or was never here."""
        if self._lanes[item.rank].pop(item.number, None) is None:
            return False
        self.waiting -= 1
        self.waiting_cost -= item.cost
        return True

    def take(self, now: Seconds) -> tuple[list[Item], list[Item]]:
        """The batch that begins now, counted as running until `ended`, else none; and what is dropped because it is too late."""
        dropped: list[Item] = []
        while self._may_begin(now):
            first = self._first(now)
            batch, late = self._around(first, now)
            dropped += late
            for item in (*batch, *late):
                self.cancel(item)
            if batch:
                self.running += 1
                return batch, dropped
        return [], dropped

    def ended(self, took_s: Seconds) -> None:
        """A batch is done."""
        self.running -= 1
        self._batch_s += (took_s - self._batch_s) / (MEMORY if self._batch_s else 1)

    def wake_at(self) -> Seconds:
        """When `take` should be asked again if nothing else happens; `inf`: it need not."""
        oldest = self._oldest()
        if oldest is None or self.running >= self._rules.in_flight:
            return inf
        return oldest.arrived_at + self._rules.max_delay_s

    def _may_begin(self, now: Seconds) -> bool:
        oldest = self._oldest()
        if oldest is None or self.running >= self._rules.in_flight:
            return False
        return (
            not self.running
            or self.waiting >= self._rules.max_batch
            or now >= oldest.arrived_at + self._rules.max_delay_s
        )

    def _oldest(self) -> Item | None:
        heads = [next(iter(lane.values())) for lane in self._lanes if lane]
        return min(heads, key=lambda item: item.number) if heads else None

    def _first(self, now: Seconds) -> Item:
        oldest = self._oldest()
        assert oldest is not None  # one may begin
        if now - oldest.arrived_at >= self._rules.overdue_s:
            return oldest
        return next(next(iter(lane.values())) for lane in self._lanes if lane)

    def _around(self, first: Item, now: Seconds) -> tuple[list[Item], list[Item]]:
        rules = self._rules
        batch: list[Item] = []
        late: list[Item] = []
        longest = looked = 0
        for item in (first, *self._in_order(first)):
            looked += 1
            if len(batch) == rules.max_batch or looked > LOOK * rules.max_batch:
                break
            if now + self._batch_s >= item.deadline:
                late.append(item)
                continue
            near = first.cost / rules.spread <= item.cost <= first.cost * rules.spread
            grown = max(longest, item.cost)
            if batch and not (near and grown * (len(batch) + 1) <= rules.max_batch_cost):
                continue
            batch.append(item)
            longest = grown
        return batch, late

    def _in_order(self, first: Item) -> Iterator[Item]:
        for lane in self._lanes:
            for item in lane.values():
                if item is not first:
                    yield item
