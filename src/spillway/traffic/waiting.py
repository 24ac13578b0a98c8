"""The waiting room of a model, and the lanes of its routes.

Rules
- One lane for each priority of a route; in a lane the flows take turns by what they were served (`turns`, `fairness`).
- A request whose attempt failed waits in front of its lane: it has been admitted before, and it is older.
- The room is shared by the routes of a model, and bounded by requests and by bytes of their bodies. A flow (tenant, priority)
  that waits already may hold at most FLOW_SHARE times what is still free: one flow alone fills 4/5 of the room, two fill 4/9
  each, and k of them leave 1/(1 + 4k) free, so a flood never shuts the door on a tenant that has nothing waiting (dynamic
  thresholds, Choudhury and Hahne 1998).
- What is less urgent counts as free: when the room is full, a newcomer pushes out who waits at the least urgent priority below
  its own (`make_way_for`). Of the flows there that have waited longest and the latest one, FEW in all, the one that holds the
  most loses its youngest.
- Those who come back after a failed attempt always find room and are never pushed out: their bodies were in memory before, and
  there are at most as many of them as the pools have slots, because a lane sends nobody else while they wait.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from spillway.core.ids import RequestId, TenantId
from spillway.traffic.events import Arrived
from spillway.traffic.fairness import Counters
from spillway.traffic.fleet import FairnessRules, WaitingRoom
from spillway.traffic.parties import RANKS
from spillway.traffic.requests import RequestState
from spillway.traffic.turns import Turns, first_of

FLOW_SHARE = 4
FEW = 8


class Flow:
    """What waits of one tenant at one priority, in order of arrival, over all routes."""

    __slots__ = ("body_bytes", "requests")

    def __init__(self) -> None:
        self.requests: dict[RequestId, RequestState] = {}
        self.body_bytes = 0


class Room:
    """The bounds of a model's waiting and what counts against them; and the counters that its routes' lanes share."""

    __slots__ = ("body_bytes", "counters", "flow_bytes", "flow_requests", "flows", "rules", "waiting")

    def __init__(self, rules: WaitingRoom, fairness: FairnessRules) -> None:
        self.rules = rules
        self.counters = tuple(Counters(fairness) for _ in RANKS)
        self.waiting = 0
        self.body_bytes = 0
        self.flows: tuple[OrderedDict[TenantId, Flow], ...] = tuple(OrderedDict[TenantId, Flow]() for _ in RANKS)
        self.flow_requests = [0 for _ in RANKS]  # by rank, without those who came back
        self.flow_bytes = [0 for _ in RANKS]

    def configure(self, rules: WaitingRoom, fairness: FairnessRules) -> None:
        """Who waits keeps waiting, and new weights hold from here on."""
        self.rules = rules
        for counters in self.counters:
            counters.configure(fairness)

    def has_room_for(self, arrived: Arrived, rank: int) -> bool:
        """Whether it may join now."""
        rules = self.rules
        if self.waiting >= rules.max_requests or self.body_bytes + arrived.body_bytes > rules.max_bytes:
            return False
        return self._has_share_for(arrived, rank)

    def make_way_for(self, arrived: Arrived, rank: int) -> RequestState | None:
        """Whom to evict for a newcomer that finds no room; None: it is refused.

        Somebody is named only if the newcomer gets in by it, or by asking again once that one has left: one large body may
        need several places.
        """
        if not self._has_share_for(arrived, rank):
            return None
        for below in reversed(range(rank + 1, len(RANKS))):
            if flows := self.flows[below]:
                few = (*islice(flows.values(), FEW - 1), next(reversed(flows.values())))
                most = max(reversed(few), key=_length)
                return next(reversed(most.requests.values()))
        return None

    def _has_share_for(self, arrived: Arrived, rank: int) -> bool:
        rules = self.rules
        free = rules.max_requests - self.waiting + sum(self.flow_requests[rank + 1 :])
        free_bytes = rules.max_bytes - self.body_bytes - arrived.body_bytes + sum(self.flow_bytes[rank + 1 :])
        if free < 1 or free_bytes < 0:
            return False
        flow = self.flows[rank].get(arrived.tenant)
        return flow is None or (len(flow.requests) < FLOW_SHARE * free and flow.body_bytes <= FLOW_SHARE * free_bytes)

    # Books, kept by the lanes

    def add(self, request: RequestState) -> None:
        arrived, rank = request.arrived, request.rank
        flows = self.flows[rank]
        flow = flows.get(arrived.tenant)
        if flow is None:
            flow = flows[arrived.tenant] = Flow()
        flow.requests[arrived.request] = request
        flow.body_bytes += arrived.body_bytes
        self.flow_requests[rank] += 1
        self.flow_bytes[rank] += arrived.body_bytes
        self.waiting += 1
        self.body_bytes += arrived.body_bytes

    def remove(self, request: RequestState) -> None:
        arrived, rank = request.arrived, request.rank
        flow = self.flows[rank][arrived.tenant]
        del flow.requests[arrived.request]
        flow.body_bytes -= arrived.body_bytes
        if not flow.requests:
            del self.flows[rank][arrived.tenant]
        self.flow_requests[rank] -= 1
        self.flow_bytes[rank] -= arrived.body_bytes
        self.waiting -= 1
        self.body_bytes -= arrived.body_bytes

    def add_front(self, request: RequestState) -> None:
        self.waiting += 1
        self.body_bytes += request.arrived.body_bytes

    def remove_front(self, request: RequestState) -> None:
        self.waiting -= 1
        self.body_bytes -= request.arrived.body_bytes


class Lane:
    """What waits at one priority of a route: `front` first, then the flows in turn."""

    __slots__ = ("front", "room", "turns", "waiting")

    def __init__(self, room: Room, rank: int) -> None:
        self.room = room
        self.front: OrderedDict[RequestId, RequestState] = OrderedDict()
        self.turns = Turns(room.counters[rank])
        self.waiting = 0

    def join(self, request: RequestState) -> None:
        self.waiting += 1
        self.turns.join(request)
        self.room.add(request)

    def join_front(self, request: RequestState) -> None:
        self.waiting += 1
        self.front[request.arrived.request] = request
        self.room.add_front(request)

    def leave(self, request: RequestState) -> None:
        self.waiting -= 1
        if self.front.pop(request.arrived.request, None) is not None:
            self.room.remove_front(request)
            return
        self.turns.leave(request)
        self.room.remove(request)

    def pop(self) -> RequestState:
        """The next in turn, charged. There must be one."""
        self.waiting -= 1
        if self.front:
            request = self.front.popitem(last=False)[1]
            self.room.remove_front(request)
            if request.charge is None:
                self.turns.charge(request)
            return request
        request = self.turns.pop()
        self.room.remove(request)
        return request

    def ahead_of(self, arrived: Arrived) -> int:
        return len(self.front) + round(self.turns.ahead(arrived))

    def requests(self) -> Iterator[RequestState]:
        yield from self.front.values()
        yield from self.turns.requests()


class Lanes:
    """All lanes of one route, most urgent first."""

    __slots__ = ("lanes", "room", "waiting")

    def __init__(self, room: Room) -> None:
        self.room = room
        self.lanes = tuple(Lane(room, rank) for rank in RANKS)
        self.waiting = 0

    def has_room_for(self, arrived: Arrived, rank: int) -> bool:
        return self.room.has_room_for(arrived, rank)

    def waits_before(self, rank: int) -> bool:
        """Whether anybody waits whom a newcomer of this rank must not overtake."""
        if not self.waiting:
            return False
        return any(lane.waiting for lane in self.lanes[: rank + 1])

    def waits_before_retry(self, rank: int) -> bool:
        """The same for a request whose attempt failed: it stands before the flows of its own rank."""
        return bool(self.lanes[rank].front) or any(lane.waiting for lane in self.lanes[:rank])

    def ahead_of(self, arrived: Arrived, rank: int) -> int:
        """About how many of this route go before a newcomer: everybody more urgent, and of its own lane those whose turn comes
        first (`Turns.ahead`). Minimum shares of the less urgent are left out."""
        return self.lanes[rank].ahead_of(arrived) + sum(above.waiting for above in self.lanes[:rank])

    def up_to(self, rank: int) -> int:
        """How many of this route are as urgent or more: never fewer than `ahead_of` says, and cheaper."""
        return sum(lane.waiting for lane in self.lanes[: rank + 1])

    def join(self, request: RequestState) -> None:
        self.waiting += 1
        self.lanes[request.rank].join(request)

    def join_front(self, request: RequestState) -> None:
        self.waiting += 1
        self.lanes[request.rank].join_front(request)

    def leave(self, request: RequestState) -> None:
        self.waiting -= 1
        self.lanes[request.rank].leave(request)

    def pop(self, rank: int) -> RequestState:
        self.waiting -= 1
        return self.lanes[rank].pop()

    def requests(self) -> list[RequestState]:
        """Everybody, most urgent first."""
        return [request for lane in self.lanes for request in lane.requests()]


def first_lane(lanes: Iterable[Lane]) -> Lane:
    """Of lanes of one model and priority that wait for the same pool, all with somebody waiting: whose turn it is. Those who
    came back go first."""
    waiting = list(lanes)
    if len(waiting) == 1:
        return waiting[0]
    for lane in waiting:
        if lane.front:
            return lane
    turns = first_of(lane.turns for lane in waiting)
    return next(lane for lane in waiting if lane.turns is turns)


def settle(request: RequestState, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> None:
    """The request is over, and this is what it took (`Charge.settle`). Nothing if it was never charged: it did not wait."""
    if request.charge is not None:
        request.charge.settle(input_tokens, output_tokens, cached_tokens)


def cancel(request: RequestState) -> None:
    """The request is over and ran nowhere: what it was charged is given back."""
    if request.charge is not None:
        request.charge.cancel()


def _length(flow: Flow) -> int:
    return len(flow.requests)
