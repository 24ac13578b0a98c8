"""A call: one admitted request and everything the gateway remembers of it until it is settled.

State only. The pipeline makes it, the driver moves it, the relay fills in what came back, settlement reads it.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName, PoolName, RequestId, VersionName
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Price, Usage
from spillway.gateway.ports import ClientPort, Principal, Served
from spillway.gateway.quotas import Reservation
from spillway.net.ports import Ticket
from spillway.wire.envelope import Envelope, Kind
from spillway.wire.tokens import TokenRatio

FREE = Price()


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What a client asks for, before anything of it is understood."""

    request: RequestId
    kind: Kind
    path: bytes
    secret: bytes  # the key as it came; b"" where there is none
    body: bytes
    extra_headers: bytes  # for the upstream
    session: str = ""
    priority: str = ""  # what a header asks for; it goes before `service_tier`
    deadline_s: Seconds | None = None  # from now; an answer that ends later is of no use
    hops: int = 0  # from a gateway that is a peer
    peer: str = ""  # the address that the connection comes from
    forwarded: str = ""  # what proxies before it said of who came to them
    item: str = ""  # of a batch, as its worker says


class Progress(Protocol):
    """What the time-outs look at: how many reads the running attempt has brought."""

    reads: int
    seen_reads: int
    seen_at: Seconds

    def timed_out(self, message: str) -> None: ...
    def spent(self) -> Usage: ...


class Guarding(Protocol):
    """What the relay asks of a safety check. Either `passed` or `stopped` is called, unless the call ends first."""

    @property
    def flagged(self) -> tuple[str, ...]:
        """What was found so far, and let pass."""
        ...

    def check_answer(
        self, body: bytes, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]
    ) -> None: ...
    def finish(self, done: Callable[[], None]) -> None:
        """Of a stream."""
        ...


class ClientEvents(Protocol):
    """Who must know that the client of a call left."""

    def client_left(self, call: "Call") -> None: ...


class Call:
    """Listens to its exchange (`net.ports.ExchangeListener`): leaving goes to the driver, slowness to the upstream."""

    __slots__ = (
        "admitted", "arrived_at", "ask", "attempt", "client", "content_at", "dispatched_at", "ended", "endpoint", "envelope", "events", "guard",
        "hosted", "input_tokens", "model", "paused", "pool", "price", "principal", "priority", "queued_at", "ratio", "relay", "request",
        "reservation", "spill", "ticket", "upstream_s", "version", "waited_s",
    )  # fmt: skip

    def __init__(
        self,
        ask: Ask,
        principal: Principal,
        model: ModelName,
        priority: Priority,
        envelope: Envelope,
        ratio: TokenRatio,
        client: ClientPort,
        events: ClientEvents,
        arrived_at: Seconds,
    ) -> None:
        self.ask = ask
        self.request = ask.request
        self.principal = principal
        self.model = model
        self.priority = priority
        self.envelope = envelope
        self.ratio = ratio
        self.client = client
        self.events = events
        self.arrived_at = arrived_at
        self.input_tokens = ratio.tokens(envelope.input_bytes)  # estimate
        self.reservation: Reservation | None = None  # None: nothing limits it
        self.admitted = False  # the brain knows of it
        self.attempt = 0
        self.pool: PoolName | None = None
        self.endpoint: EndpointUrl | None = None
        self.spill: str | None = None
        self.price = FREE
        self.hosted = False  # served by a provider
        self.paused = False  # the client reads too slowly
        self.version: VersionName | None = None
        self.ticket: Ticket | None = None
        self.relay: Progress | None = None
        self.queued_at: Seconds | None = None  # since when it waits
        self.waited_s: Seconds = 0.0  # in the waiting room, in all
        self.dispatched_at: Seconds = 0.0  # of the latest attempt
        self.upstream_s: Seconds = 0.0  # from dispatch to the first content or the fault, over all attempts
        self.content_at: Seconds | None = None  # when the first content came
        self.ended = False
        self.guard: Guarding | None = None  # whose words are checked before they are passed on

    def client_left(self) -> None:
        self.events.client_left(self)

    def client_slow(self) -> None:
        self.paused = True
        if self.ticket is not None:
            self.ticket.pause()

    def client_ready(self) -> None:
        self.paused = False
        if self.ticket is not None:
            self.ticket.resume()

    @property
    def item(self) -> str:
        """Of a batch: the name under which it is billed once. Empty: it is no batch's."""
        return self.ask.item

    def billable(self, usage: Usage) -> Usage:
        """Of an item that comes in slices the prompt is billed with the first."""
        return replace(usage, prompt_tokens=0, cached_tokens=None) if "#" in self.ask.item else usage

    def overhead_s(self, now: Seconds) -> Seconds:
        """The time spent here: not in the waiting room and not at an upstream."""
        return now - self.arrived_at - self.waited_s - self.upstream_s

    def served(self, now: Seconds) -> Served:
        """What the response headers say."""
        limits = b"" if self.reservation is None else self.reservation.headers()
        if self.guard is not None and self.guard.flagged:
            limits += b"x-spillway-safety: %b\r\n" % ",".join(self.guard.flagged).encode("ascii", "replace")[:200]
        return Served(
            self.request, self.pool, self.version, self.attempt, self.spill, self.overhead_s(now) * 1000.0, limits
        )
