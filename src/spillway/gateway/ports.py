"""What the gateway needs from the floors above it. Relay meets both of its sides here."""

import enum
from collections.abc import Callable
from typing import Protocol

import msgspec

from spillway.core.ids import (
    EndpointUrl,
    KeyId,
    ModelName,
    OrganizationId,
    PolicyName,
    PoolName,
    RequestId,
    TenantId,
    VersionName,
)
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.usage import Price, UsageRecord
from spillway.net.ports import Receiver, Ticket
from spillway.quota.rules import Owner
from spillway.traffic.events import Fault


class Principal(msgspec.Struct, frozen=True):
    """Who calls: what a key stands for, with all that holds for its tenant. `models` None means all."""

    key: KeyId
    tenant: TenantId
    models: frozenset[ModelName] | None
    highest_priority: Priority
    organization: OrganizationId = OrganizationId("")
    policy: PolicyName = PolicyName("")
    networks: tuple[str, ...] = ()  # CIDR blocks; none: from anywhere
    owner: Owner | None = None  # whose quotas count; None: there are none
    suspended: bool = False
    safety: str = "block"  # what is done about what a safety check finds: off, flag or block


class Unknown(enum.Enum):
    """Why a key has no principal here."""

    REFUSED = "refused"  # not a key, or one that has ended
    UNSEEN = "unseen"  # nobody here has seen it lately: `seek` it
    UNAVAILABLE = "unavailable"  # unseen, and whoever knows does not answer in time


class Keyring(Protocol):
    """Keys in memory. `find` never waits."""

    def find(self, secret: bytes) -> Principal | Unknown: ...

    def seek(self, secret: bytes, found: Callable[[Principal | Unknown], None]) -> None:
        """After UNSEEN: joins a batched look-up; `found` is called once, within LOOK_UP_S or so, never before this returns."""
        ...


class Served(msgspec.Struct, frozen=True, gc=False):
    """What the response headers tell the client about how it was served."""

    request: RequestId
    pool: PoolName | None = None
    version: VersionName | None = None
    attempts: int = 0
    spill: str | None = None
    overhead_ms: float = 0.0
    limits: bytes = b""  # header lines that say what the caller's limits have left, and what a safety check found
    cost_usd: float | None = None  # of an item of a batch, whose worker adds it up


class ClientPort(Protocol):
    """The client's side of a relay, in the dialect that the client speaks."""

    def reply(self, status: int, content_type: bytes, body: bytes, served: Served) -> None:
        """A complete answer of the upstream."""
        ...

    def open(self, status: int, content_type: bytes, served: Served) -> None:
        """Begin to stream."""
        ...

    def send(self, data: bytes, pieces: list[bytes]) -> None:
        """As `Receiver.response_body`: `data` is used when the client takes it as framed, else `pieces`."""
        ...

    def close(self) -> None:
        """The stream is complete."""
        ...

    def cut(self, outcome: Outcome, message: str) -> None:
        """The stream cannot be completed: say so in band, then end it visibly."""
        ...

    def refuse(
        self,
        outcome: Outcome,
        message: str,
        served: Served,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """No answer: an error instead."""
        ...


class PoolBinding(msgspec.Struct, frozen=True):
    """What the gateway must know of a pool to send to it and to account for it."""

    name: PoolName
    upstream_model: str  # the name that the engine or provider knows
    version: VersionName
    price: Price
    hosted: bool = False  # its answers tell what is left of its limits


class Backends(Protocol):
    """Sends requests to endpoints. `path` is one of the OpenAI paths, e.g. b"/v1/chat/completions"."""

    def binding(self, pool: PoolName) -> PoolBinding: ...

    def send(
        self, pool: PoolName, endpoint: EndpointUrl, path: bytes, extra_headers: bytes, body: bytes, receiver: Receiver
    ) -> Ticket:
        """`extra_headers`: whole header lines (x-request-id, traceparent), each ended by CRLF. The receiver is never
        called before this returns."""
        ...


class UsageSink(Protocol):
    """Where usage records go. `put` never waits and never fails; while `full`, no request may be admitted."""

    full: bool

    def put(self, record: UsageRecord) -> None: ...


class Observer(Protocol):
    """Told what happened, for metrics, logs and traces. Never decides anything."""

    def ended(self, record: UsageRecord, overhead_s: float) -> None: ...

    def refused(self, outcome: Outcome) -> None:
        """An answer that leaves no record: nobody is known to have asked."""
        ...

    def spilled(self, model: ModelName, origin: PoolName, target: PoolName, reason: str) -> None: ...

    def attempt_failed(
        self, request: RequestId, pool: PoolName, endpoint: EndpointUrl, fault: Fault, detail: str
    ) -> None: ...

    def breaker_changed(self, pool: PoolName, endpoint: EndpointUrl, state: str) -> None: ...
