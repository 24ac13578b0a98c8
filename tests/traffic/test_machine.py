"""Any order of events a gateway can produce, searched by hypothesis; the audit judges every step."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from spillway.core.ids import EndpointUrl, PoolName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.testing.stage import Stage, fleet, model, pool
from spillway.traffic.events import Configured, DrainSet, Fault, LimitSet, Probed
from spillway.traffic.fleet import WaitingRoom

EAST, WEST = pool("east", 3, 2), pool("west", 2, 1)
FLEETS = [
    msgspec.structs.replace(one, waiting_room=WaitingRoom(max_requests=4, max_bytes=300))
    for one in (
        fleet(EAST, WEST, model("m", "east", "west"), model("n", "west")),
        fleet(EAST, model("m", "east")),
        fleet(msgspec.structs.replace(WEST, endpoints=EAST.endpoints), model("m", "west"), model("n", "west")),
        fleet(EAST, WEST, model("m", "west east"), model("n", "east", "west")),
    )
]
URLS = st.sampled_from([*EAST.endpoints, *WEST.endpoints, EndpointUrl("http://nowhere")])


class Brain(RuleBasedStateMachine):
    requests = Bundle("requests")

    @initialize()
    def start(self) -> None:
        self.stage = Stage(FLEETS[0])
        self.count = 0

    @rule(
        target=requests, priority=st.sampled_from(Priority), tenant=st.sampled_from("abc"), name=st.sampled_from("mmn")
    )
    def arrive(self, priority: Priority, tenant: str, name: str) -> str:
        self.count += 1
        self.stage.arrive(f"r{self.count}", priority, tenant, name)
        return f"r{self.count}"

    @rule(
        request=consumes(requests), outcome=st.sampled_from([Outcome.OK, Outcome.OK, Outcome.CUT, Outcome.CLIENT_LEFT])
    )
    def end(self, request: str, outcome: Outcome) -> None:
        self.stage.end(request, outcome)

    @rule(request=requests, fault=st.sampled_from(Fault), asked_s=st.none() | st.floats(0.0, 50.0))
    def fail(self, request: str, fault: Fault, asked_s: float | None) -> None:
        self.stage.fail(request, fault, asked_s)

    @rule(request=requests)
    def begin(self, request: str) -> None:
        self.stage.begin(request)

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.stage.advance(seconds)

    @rule(url=URLS, healthy=st.booleans())
    def probe(self, url: EndpointUrl, healthy: bool) -> None:
        self.stage.tell(Probed(url, healthy))

    @rule(url=URLS, draining=st.booleans())
    def drain(self, url: EndpointUrl, draining: bool) -> None:
        self.stage.tell(DrainSet(url, draining))

    @rule(name=st.sampled_from(["east", "west"]), limit=st.none() | st.integers(0, 4))
    def limit(self, name: str, limit: int | None) -> None:
        self.stage.tell(LimitSet(PoolName(name), limit))

    @rule(number=st.integers(0, len(FLEETS) - 1))
    def configure(self, number: int) -> None:
        self.stage.tell(Configured(FLEETS[number]))

    @invariant()
    def books_agree(self) -> None:
        if hasattr(self, "stage"):
            self.stage.audit.check(self.stage.brain.snapshot(), self.stage.now)


TestBrain = Brain.TestCase
TestBrain.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
