"""A gateway on a table: the real brain, driver, relay and settlement between a client and upstreams that a test plays."""

from spillway.core.ids import ClusterName, EndpointUrl, ModelName, PoolName, RequestId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.usage import Price
from spillway.gateway.call import Ask, Call
from spillway.gateway.driver import Driver, Record
from spillway.gateway.pipeline import Pipeline, Unidentified
from spillway.gateway.ports import PoolBinding, Served
from spillway.gateway.quotas import Quotas
from spillway.gateway.settings import GatewaySettings
from spillway.gateway.settle import Settlement
from spillway.net.ports import ConnectionFault, Receiver
from spillway.quota.book import Book
from spillway.quota.calendar import Calendar
from spillway.quota.gate import Gate
from spillway.quota.ledger import LedgerTimes, Report
from spillway.testing.clock import ManualClock, ManualTimers
from spillway.testing.memory import MemoryKeyring, MemoryUsageSink, RecordingObserver
from spillway.traffic.controller import Controller
from spillway.traffic.events import Configured
from spillway.traffic.fleet import Fleet, ModelSpec, PoolSpec
from spillway.wire.envelope import Kind

NPC = ModelName("npc")
EAST, WEST = PoolName("npc@east"), PoolName("npc@west")
EVENT_STREAM = [(b"content-type", b"text/event-stream")]
JSON = [(b"content-type", b"application/json")]


class Unwatched:
    def checked(self, model: ModelName, stage: str, verdict: str, took_s: float) -> None: ...


class PlayedClient:
    """A `ClientPort` that keeps what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.status: int | None = None
        self.served: Served | None = None
        self.refusal: tuple[Outcome, str] | None = None
        self.code: str | None = None
        self.retry_after_s: float | None = None
        self.closed = 0
        self.cuts: list[Outcome] = []

    def reply(self, status: int, content_type: bytes, body: bytes, served: Served) -> None:
        self.status, self.got, self.served = status, body, served
        self.closed += 1

    def open(self, status: int, content_type: bytes, served: Served) -> None:
        self.status, self.served = status, served

    def send(self, data: bytes, pieces: list[bytes]) -> None:
        self.got += b"".join(pieces)

    def close(self) -> None:
        self.closed += 1

    def cut(self, outcome: Outcome, message: str) -> None:
        self.cuts.append(outcome)

    def refuse(
        self,
        outcome: Outcome,
        message: str,
        served: Served,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        self.refusal, self.retry_after_s, self.served = (outcome, message), retry_after_s, served
        self.code = code
        self.closed += 1


class PlayedAttempt:
    """A request that the gateway sent, and the hand that answers it. Also its ticket."""

    def __init__(self, pool: PoolName, endpoint: EndpointUrl, body: bytes, receiver: Receiver) -> None:
        self.pool, self.endpoint, self.body, self.receiver = pool, endpoint, body, receiver
        self.cancelled = False
        self.paused = False
        self.over = False

    def fail(self, fault: ConnectionFault) -> None:
        self.over = True
        self.receiver.response_failed(fault, "gone")

    def cancel(self) -> None:
        self.cancelled = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def answer(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        self.receiver.response_head(status, JSON if headers is None else headers)
        self.receiver.response_body(b"", [body])
        self.over = True
        self.receiver.response_end()

    def stream(self, *events: bytes) -> None:
        self.receiver.response_head(200, EVENT_STREAM)
        for event in events:
            self.read(event)

    def read(self, body: bytes) -> None:
        self.receiver.response_body(b"%x\r\n%b\r\n" % (len(body), body), [body])


class PlayedBackends:
    def __init__(self) -> None:
        self.attempts: list[PlayedAttempt] = []
        self.broken = False  # sending raises
        self.hosted = False

    def binding(self, pool: PoolName) -> PoolBinding:
        return PoolBinding(pool, "upstream-name", VersionName("v1"), Price(1.0, 2.0), self.hosted)

    def send(
        self, pool: PoolName, endpoint: EndpointUrl, path: bytes, extra_headers: bytes, body: bytes, receiver: Receiver
    ) -> PlayedAttempt:
        if self.broken:
            raise RuntimeError("a mistake of ours")
        self.attempts.append(PlayedAttempt(pool, endpoint, body, receiver))
        return self.attempts[-1]


class Bench:
    """`ask` sends one request; `backends.attempts` are what the upstreams see; `sink.records` is the ledger."""

    def __init__(
        self,
        *,
        limit: int = 8,
        settings: GatewaySettings | None = None,
        brain: Controller | None = None,
        record: Record | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.backends = PlayedBackends()
        self.sink = MemoryUsageSink()
        self.observer = RecordingObserver()
        self.keyring = MemoryKeyring()
        self.keyring.add(b"sk-key", tenant="studio")
        self.controller = brain or Controller()
        settlement = Settlement(self.sink, self.observer, self.clock)
        self.timers = ManualTimers()
        self.reports: list[Report] = []
        self.book = Book(LedgerTimes(), self.clock.monotonic())
        calendar = Calendar(self.clock.wall)
        gate = Gate("w", LedgerTimes(), calendar, self.clock.monotonic())
        self.quotas = Quotas(gate, calendar, self.clock, self.timers, self.reports.append)
        self.quotas.configure({NPC: Price(1.0, 2.0)})
        self.quotas.start()
        self.driver = Driver(
            self.controller,
            self.backends,
            settlement,
            self.quotas,
            self.observer,
            self.clock,
            self.timers,
            settings or GatewaySettings(),
            record,
        )
        self.driver.tell(Configured(fleet(limit)))
        self.pipeline = Pipeline(
            self.keyring,
            {"npc": NPC},
            self.driver,
            settlement,
            self.quotas,
            self.observer,
            self.clock,
            self.timers,
            Unwatched(),
        )
        self._count = 0

    def advance(self, seconds: float) -> None:
        """Time passes, timers fire."""
        self.clock.advance(seconds)
        self.timers.advance(seconds)

    def exchange(self) -> None:
        """What is due goes to the ledger, and its answers come back, until there is no more."""
        self.timers.advance(0.0)
        while self.reports:
            self.quotas.heard(self.book.report(self.reports.pop(0), self.clock.monotonic()))
            self.timers.advance(0.0)

    def ask(
        self, body: bytes, secret: bytes = b"sk-key", *, peer: str = "", forwarded: str = ""
    ) -> tuple[PlayedClient, Call | None]:
        client, alive = self._taken(body, secret, peer, forwarded)
        assert not isinstance(alive, Unidentified)
        return client, alive

    def ask_unseen(self, body: bytes, secret: bytes = b"sk-key") -> tuple[PlayedClient, Unidentified]:
        """With a key that must be looked up: `keyring.answer` does that."""
        self.keyring.unseen.add(secret)
        client, alive = self._taken(body, secret, "", "")
        assert isinstance(alive, Unidentified)
        return client, alive

    def _taken(
        self, body: bytes, secret: bytes, peer: str, forwarded: str
    ) -> tuple[PlayedClient, Call | Unidentified | None]:
        self._count += 1
        client = PlayedClient()
        request, path = RequestId(f"r{self._count}"), b"/v1/chat/completions"
        ask = Ask(request, Kind.CHAT, path, secret, body, b"", peer=peer, forwarded=forwarded)
        return client, self.pipeline.take(ask, client)

    @property
    def running(self) -> list[PlayedAttempt]:
        return [attempt for attempt in self.backends.attempts if not (attempt.over or attempt.cancelled)]

    @property
    def last(self) -> PlayedAttempt:
        return self.backends.attempts[-1]


def fleet(limit: int) -> Fleet:
    def pool(name: PoolName, cluster: str) -> PoolSpec:
        return PoolSpec(name, ClusterName(cluster), (EndpointUrl(f"http://{cluster}:9101"),), limit)

    return Fleet(
        pools={EAST: pool(EAST, "east"), WEST: pool(WEST, "west")},
        models={NPC: ModelSpec(NPC, ((EAST,), (WEST,)))},
    )
