"""Whose turn it is in a lane: organizations by what they were served, in one its tenants, in a tenant its end users, and an end
user's requests in order of arrival.

A lane has a tree of lines beside the tree of accounts: a line is an account as it waits in this lane. The lines of a group are
in a heap of (virtual time, entry number, line). What an account was served may grow by other lanes and settlements: its entry is
put right when it comes to the top. It may fall when a charge is corrected: then a new entry is made and the old one is void.
Void entries are swept before they outnumber the others, so a join, a pop and a leave cost O(log n) and memory is O(what waits).

Several lanes of the same counters (the routes of a model)
- What is sent from any of them counts in all of them. But lanes have unequal pools, and who is served well in one must not
  starve in another: a line is put off behind its siblings in its lane by at most `Counters.lead`.
- `first_of` says which of the lanes that wait for the same pool goes first.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace

from spillway.core.ids import RequestId
from spillway.traffic.events import Arrived
from spillway.traffic.fairness import Account, Charge, Counters, Name, path_of
from spillway.traffic.requests import RequestState

FAR = 1 << 200  # no virtual time is later
FEW_VOID = 8


class Line:
    """An account that waits in a lane. `entry`: the number of its one valid entry in its group's heap."""

    __slots__ = ("account", "entry", "fresh", "group", "latest", "waiting", "weight", "work")

    def __init__(self, account: Account, group: "Group | None") -> None:
        self.account = account
        self.group = group
        self.weight = account.weight
        self.waiting = 0
        self.work = 0  # of those that wait
        self.entry = 0
        self.latest = FAR  # its entry is never put off beyond this
        self.fresh = True  # had no turn since it began to wait

    def moved_up(self, entry: int) -> None:
        group = self.group
        assert group is not None  # the root is never charged
        assert isinstance(self, Group | Queue)
        self.entry = entry
        heappush(group.heap, (min(self.account.served, self.latest), entry, self))
        group.sweep()


class Queue(Line):
    """An end user's requests, oldest first."""

    __slots__ = ("requests",)

    def __init__(self, account: Account, group: "Group") -> None:
        super().__init__(account, group)
        self.requests: OrderedDict[RequestId, RequestState] = OrderedDict()


class Group(Line):
    """A tenant, an organization, or all of them. `floor`: where newcomers begin; `shift`: see `first_of`."""

    __slots__ = ("floor", "fresh_lines", "heap", "lines", "shift", "weights")

    def __init__(self, account: Account, group: "Group | None") -> None:
        super().__init__(account, group)
        self.lines: dict[Name, Group | Queue] = {}
        self.heap: list[tuple[int, int, Group | Queue]] = []
        self.floor = account.floor
        self.shift = 0
        self.weights = 0.0  # of its lines
        self.fresh_lines = 0

    def least(self) -> "Group | Queue":
        """Whose turn it is; its entry is on top of the heap then. There must be somebody."""
        heap = self.heap
        while True:
            key, entry, line = heap[0]
            if line.entry != entry:
                heappop(heap)
                continue
            served = line.account.served
            if served > key and line.latest > key:
                heapreplace(heap, (min(served, line.latest), entry, line))
                continue
            return line

    def drop(self, line: "Group | Queue") -> None:
        """Nobody waits in it any more."""
        account = line.account
        del self.lines[account.name]
        account.places = tuple(place for place in account.places if place is not line)
        line.entry = 0
        self.weights = self.weights - line.weight if self.lines else 0.0  # rounding does not add up for ever
        self.fresh_lines -= line.fresh

    def sweep(self) -> None:
        heap = self.heap
        if len(heap) > 2 * len(self.lines) + FEW_VOID:
            heap[:] = [item for item in heap if item[2].entry == item[1]]
            heapify(heap)


class Turns:
    __slots__ = ("counters", "root")

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.root = Group(counters.root, None)
        counters.lanes += 1

    def join(self, request: RequestState) -> None:
        arrived, counters, group = request.arrived, self.counters, self.root
        work = counters.work(arrived.input_tokens, arrived.output_tokens)
        request.charge = Charge(counters, work)
        if not group.waiting:
            group.floor, group.shift = counters.root.floor, 0
        group.waiting += 1
        group.work += work
        path = path_of(arrived)
        for name in path[:-1]:
            line = group.lines.get(name)
            if line is None:
                line = self._begin(group, Group(counters.account(group.account, name), group))
            assert isinstance(line, Group)
            line.waiting += 1
            line.work += work
            group = line
        line = group.lines.get(path[-1])
        if line is None:
            line = self._begin(group, Queue(counters.account(group.account, path[-1]), group))
        assert isinstance(line, Queue)
        line.waiting += 1
        line.work += work
        line.requests[arrived.request] = request

    def leave(self, request: RequestState) -> None:
        """It must have joined and still wait."""
        path, charge = self._lines(request.arrived), request.charge
        queue = path[-1]
        assert isinstance(queue, Queue)
        assert charge is not None
        assert len(path) == len(path_of(request.arrived))
        del queue.requests[request.arrived.request]
        self.root.waiting -= 1
        self.root.work -= charge.work
        for line in path:
            line.waiting -= 1
            line.work -= charge.work
        for line in reversed(path):
            if not line.waiting and line.group is not None:
                line.group.drop(line)
                line.group.sweep()
        queue.account.rest()

    def pop(self) -> RequestState:
        """The next in turn, charged. There must be one."""
        line = self.root.least()
        path = [line]
        while isinstance(line, Group):
            line = line.least()
            path.append(line)
        request = line.requests.popitem(last=False)[1]
        charge, counters, user = request.charge, self.counters, line.account
        assert charge is not None
        work = charge.work
        number = counters.count
        shared = counters.lanes > 1
        group = self.root
        for line in path:
            account, heap = line.account, group.heap
            served, key = account.served, heap[0][0]
            if key > group.floor:
                group.floor = key
            if served > group.account.floor:
                group.account.floor = served
            part = work if account.weight == 1.0 else int(work / account.weight)
            account.served = served = served + part
            group.waiting -= 1
            group.work -= work
            if line.fresh:
                line.fresh = False
                group.fresh_lines -= 1
            if line.waiting > 1:
                number += 1
                line.entry = number
                if shared:
                    counters.largest = max(counters.largest, part)
                    line.latest = group.floor + counters.lead
                    served = min(served, line.latest)
                heapreplace(heap, (served, number, line))
            else:
                heappop(heap)
                group.drop(line)
            if isinstance(line, Group):
                group = line
        line.waiting -= 1
        line.work -= work
        counters.count = charge.number = number + 1
        charge.account = user
        user.active += 1
        return request

    def charge(self, request: RequestState) -> None:
        """What is sent out of the waiting room without having been in a queue: it was sent at once, and failed."""
        arrived, counters = request.arrived, self.counters
        charge = request.charge = Charge(counters, counters.work(arrived.input_tokens, arrived.output_tokens))
        account = counters.root
        for name in path_of(arrived):
            floor, account = account.floor, counters.account(account, name)
            if not account.places:
                account.served = max(account.served, floor)
            account.served += account.part(charge.work)
        charge.number = counters.number()
        charge.account = account
        account.active += 1

    def ahead(self, arrived: Arrived) -> float:
        """About how many of this lane go before a newcomer of this end user, if nobody else came.

        From the bottom up: what waits of its own line goes before it, and until that is done each sibling is served as much by
        weight, or all it has; siblings that wait for their first turn have one. Debts of who was served lately count.
        """
        root = self.root
        if not root.waiting:
            return 0.0
        own = 0.0
        for group, line, account in reversed(self._levels(arrived)):
            if isinstance(line, Queue):
                own = float(line.work)
            begins = max(group.floor, account.served) if account is not None else group.floor
            ends = begins - group.floor
            weights, others, fresh = group.weights, group.work, group.fresh_lines
            if line is not None:
                ends += own / line.weight
                weights -= line.weight
                others -= line.work
                fresh -= line.fresh
            own += min(others, ends * weights + fresh * group.work / group.waiting)
        return own * root.waiting / root.work

    def requests(self) -> Iterator[RequestState]:
        """All of them, an end user's in order."""
        groups = [self.root]
        for group in groups:
            for line in group.lines.values():
                if isinstance(line, Queue):
                    yield from line.requests.values()
                else:
                    groups.append(line)

    def _begin(self, group: Group, line: "Group | Queue") -> "Group | Queue":
        """An account begins to wait here: lifted to the floor."""
        account, counters, floor = line.account, self.counters, group.floor
        number = counters.count = counters.count + 1
        if counters.lanes > 1:
            line.latest = floor + counters.lead
            if account.places:
                floor -= counters.lead  # it waits elsewhere, and what it is owed there is owed here only so far
        if account.served < floor:
            account.served = floor
        if not account.places:
            account.since = number
        account.places += (line,)
        group.lines[account.name] = line
        group.weights += line.weight
        group.fresh_lines += 1
        line.entry = number
        heappush(group.heap, (min(account.served, line.latest), number, line))
        return line

    def _lines(self, arrived: Arrived) -> "list[Group | Queue]":
        """Its lines below the root, as far down as there are any."""
        return [line for _, line, _ in self._levels(arrived) if line is not None]

    def _levels(self, arrived: Arrived) -> "list[tuple[Group, Group | Queue | None, Account | None]]":
        """From the top: the group, its own line and its own account in it; as far down as the group waits."""
        levels: list[tuple[Group, Group | Queue | None, Account | None]] = []
        group = self.root
        for name in path_of(arrived):
            line = group.lines.get(name)
            levels.append((group, line, group.account.children.get(name)))
            if not isinstance(line, Group):
                break
            group = line
        return levels


def first_of(lanes: Iterable[Turns]) -> Turns:
    """Of lanes of the same counters that wait for the same pool, all with somebody waiting: the one whose next was served less.
    Where both are the same account, the next level decides, and in the end who came first.

    A lane that fell behind another by more than the lead is owed the lead and no more: its `shift` makes up for the rest.
    """
    first, *others = lanes
    for other in others:
        if _goes_before(other, first):
            first = other
    return first


def _goes_before(one: Turns, other: Turns) -> bool:
    a, b, lead = one.root, other.root, one.counters.lead
    while True:
        mine, theirs = a.least(), b.least()
        if mine.account is not theirs.account:
            break
        if isinstance(mine, Queue) or isinstance(theirs, Queue):
            assert isinstance(mine, Queue)
            assert isinstance(theirs, Queue)
            return _arrival(mine) < _arrival(theirs)
        a, b = mine, theirs
    apart = (mine.account.served + a.shift) - (theirs.account.served + b.shift)
    if apart < -lead:
        a.shift += -lead - apart
    elif apart > lead:
        b.shift += apart - lead
    return (apart, mine.entry) < (0, theirs.entry)


def _arrival(queue: Queue) -> float:
    return next(iter(queue.requests.values())).queued_at
