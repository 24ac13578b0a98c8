"""The waiting room of a model.

Rules
- One lane for each priority; in a lane the tenants take turns, and a tenant's requests wait in order of arrival.
- A request whose attempt failed waits in front of its lane: it has been admitted before, and it is older.
- The room is bounded by requests and by bytes of their bodies. A flow (tenant, priority) that waits already may hold at
  most FLOW_SHARE times what is still free: one flow alone fills 4/5 of the room, two fill 4/9 each, and k of them leave
  1/(1 + 4k) free, so a flood never shuts the door on a tenant that has nothing waiting (dynamic thresholds, Choudhury and
  Hahne 1998).
- Those who come back after a failed attempt always find room: their bodies were in memory before, and there are at most as
  many of them as the pools have slots, because a lane sends nobody else while they wait.
- Everything here is O(1): ordered dicts, no lazy deletion.
"""

from collections import OrderedDict

from spillway.core.ids import RequestId, TenantId
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import WaitingRoom
from spillway.traffic.pools import RANKS
from spillway.traffic.requests import RequestState

FLOW_SHARE = 4


class Flow:
    """What waits of one tenant at one priority, oldest first."""

    __slots__ = ("body_bytes", "requests")

    def __init__(self) -> None:
        self.requests: OrderedDict[RequestId, RequestState] = OrderedDict()
        self.body_bytes = 0


class Lane:
    """What waits at one priority: `front` first, then the flows in turn."""

    __slots__ = ("flows", "front", "waiting")

    def __init__(self) -> None:
        self.front: OrderedDict[RequestId, RequestState] = OrderedDict()
        self.flows: OrderedDict[TenantId, Flow] = OrderedDict()
        self.waiting = 0

    def join(self, request: RequestState) -> None:
        arrived = request.arrived
        flow = self.flows.get(arrived.tenant)
        if flow is None:
            flow = self.flows[arrived.tenant] = Flow()
        flow.requests[arrived.request] = request
        flow.body_bytes += arrived.body_bytes
        self.waiting += 1

    def join_front(self, request: RequestState) -> None:
        self.front[request.arrived.request] = request
        self.waiting += 1

    def leave(self, arrived: Arrived) -> None:
        self.waiting -= 1
        if self.front.pop(arrived.request, None) is not None:
            return
        flow = self.flows[arrived.tenant]
        del flow.requests[arrived.request]
        flow.body_bytes -= arrived.body_bytes
        if not flow.requests:
            del self.flows[arrived.tenant]

    def pop(self) -> RequestState:
        """The next in turn. There must be one."""
        self.waiting -= 1
        if self.front:
            return self.front.popitem(last=False)[1]
        tenant, flow = next(iter(self.flows.items()))
        request = flow.requests.popitem(last=False)[1]
        flow.body_bytes -= request.arrived.body_bytes
        if flow.requests:
            self.flows.move_to_end(tenant)
        else:
            del self.flows[tenant]
        return request


class Room:
    """All lanes of one model, most urgent first."""

    __slots__ = ("body_bytes", "lanes", "rules", "waiting")

    def __init__(self, rules: WaitingRoom) -> None:
        self.rules = rules
        self.lanes = tuple(Lane() for _ in RANKS)
        self.waiting = 0
        self.body_bytes = 0

    def has_room_for(self, arrived: Arrived, rank: int) -> bool:
        free = self.rules.max_requests - self.waiting
        free_bytes = self.rules.max_bytes - self.body_bytes - arrived.body_bytes
        if free < 1 or free_bytes < 0:
            return False
        flow = self.lanes[rank].flows.get(arrived.tenant)
        if flow is None:
            return True
        return len(flow.requests) < FLOW_SHARE * free and flow.body_bytes <= FLOW_SHARE * free_bytes

    def waits_before(self, rank: int) -> bool:
        """Whether anybody waits whom a newcomer of this rank must not overtake."""
        return any(lane.waiting for lane in self.lanes[: rank + 1])

    def waits_before_retry(self, rank: int) -> bool:
        """The same for a request whose attempt failed: it stands before the flows of its own rank."""
        return bool(self.lanes[rank].front) or any(lane.waiting for lane in self.lanes[:rank])

    def ahead_of(self, arrived: Arrived, rank: int) -> int:
        """About how many go before a newcomer: everybody more urgent and, as tenants take turns, of every tenant of its
        own lane at most one more than its own tenant has waiting. Minimum shares of the less urgent are left out."""
        lane = self.lanes[rank]
        flow = lane.flows.get(arrived.tenant)
        turns = 1 + (0 if flow is None else len(flow.requests))
        in_lane = min(lane.waiting, len(lane.front) + turns * len(lane.flows))
        return in_lane + sum(above.waiting for above in self.lanes[:rank])

    def join(self, request: RequestState) -> None:
        self._count(request.arrived, 1)
        self.lanes[request.rank].join(request)

    def join_front(self, request: RequestState) -> None:
        self._count(request.arrived, 1)
        self.lanes[request.rank].join_front(request)

    def leave(self, request: RequestState) -> None:
        self._count(request.arrived, -1)
        self.lanes[request.rank].leave(request.arrived)

    def pop(self, rank: int) -> RequestState:
        request = self.lanes[rank].pop()
        self._count(request.arrived, -1)
        return request

    def requests(self) -> list[RequestState]:
        """Everybody, in the order in which lanes would send them if no tenant had a second request."""
        return [
            request
            for lane in self.lanes
            for queue in (lane.front, *(flow.requests for flow in lane.flows.values()))
            for request in queue.values()
        ]

    def _count(self, arrived: Arrived, sign: int) -> None:
        self.waiting += sign
        self.body_bytes += sign * arrived.body_bytes
