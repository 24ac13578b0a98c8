"""What can happen to the brain. The driver makes these; the journal stores them; replaying them gives the same effects.

Times are the driver's monotonic seconds, given to `handle` beside the event.
"""

import enum

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, ModelName, OrganizationId, PolicyName, PoolName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.traffic.fleet import Fleet


class Fault(enum.StrEnum):
    """How an attempt failed while nothing had been sent to the client."""

    OVERLOADED = "overloaded"  # 429 or 503: load, not a defect
    CONNECT = "connect"  # no connection could be made
    RESET = "reset"  # the connection was lost
    TIMEOUT = "timeout"  # no first content in time
    SERVER_ERROR = "server_error"  # another 5xx
    MALFORMED = "malformed"  # what came was not HTTP, or not what the API promises

    @property
    def is_load(self) -> bool:
        """Load moves traffic; only the other kinds count against an endpoint's health."""
        return self is Fault.OVERLOADED


class Configured(msgspec.Struct, frozen=True, tag=True):
    """A (new) configuration. What runs keeps running; limits may shrink below what is in flight."""

    fleet: Fleet


class Arrived(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A request was identified and resolved, and asks to be admitted."""

    request: RequestId
    model: ModelName
    tenant: TenantId
    priority: Priority
    input_tokens: int = 0  # estimate
    output_tokens: int = 0  # estimate
    body_bytes: int = 0  # held in memory while it waits
    session: str = ""  # a digest of what keeps a conversation together; empty: nothing known
    organization: OrganizationId = OrganizationId("")  # who the tenant belongs to; empty: it stands for itself
    user: str = ""  # a digest of the end user; empty: not told
    policy: PolicyName = PolicyName(
        ""
    )  # where it may be served, one of `Fleet.policies`; empty: wherever the model may
    deadline_s: Seconds | None = None  # from the arrival: an answer that ends later is of no use
    prefix: tuple[int, ...] = ()  # chained hashes of the prompt's leading blocks, shortest prefix first
    hops: int = 0  # gateways that it was spilled from: one that was spilled here is not spilled on
    block_tokens: int = 512  # input tokens that each hash of `prefix` adds


class FirstToken(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The first content of the running attempt came; from here on it can't be retried."""

    request: RequestId


class AttemptFailed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The running attempt failed and nothing has been sent to the client. The brain says what now: Dispatch, Queued or Refuse
    (or Queued and at once Dispatch, when the slot that it gave back is its own again)."""

    request: RequestId
    fault: Fault
    retry_after_s: Seconds | None = None  # what the upstream asked for


class Ended(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The request is over at the gateway: its slot, or its place in the waiting room, is free. Not sent after a Refuse.

    OK and answers that blame the request (CONTEXT_LENGTH_EXCEEDED, CONTENT_FILTERED, UPSTREAM_REJECTED) count as a success of its
    endpoint, CUT, UPSTREAM_ERROR and UPSTREAM_TIMEOUT as a fault, all else (CLIENT_LEFT, our own mistakes) as nothing.
    """

    request: RequestId
    outcome: Outcome
    input_tokens: int = 0
    output_tokens: int = 0


class Woke(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A time asked for with `WakeAt` has come."""


class Probed(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A health probe of an endpoint returned."""

    endpoint: EndpointUrl
    healthy: bool


class Scraped(msgspec.Struct, frozen=True, tag=True, gc=False):
    """What an engine says of itself, without what this gateway's members sent it: a slow correction of our own books.

    `foreign`: requests running and waiting there that others sent, this member's share of them. `kv_usage`: 0–1, None where the
    engine does not say. `age_s`: how old the figures were when they came."""

    endpoint: EndpointUrl
    foreign: float
    kv_usage: float | None = None
    age_s: Seconds = 0.0


class QuotaSeen(msgspec.Struct, frozen=True, tag=True, gc=False):
    """What a hosted provider said is left of its limits (`x-ratelimit-remaining-*`), and when the quota is full again."""

    pool: PoolName
    remaining_requests: int | None = None
    remaining_tokens: int | None = None
    reset_s: Seconds | None = None


class LimitSet(msgspec.Struct, frozen=True, tag=True, gc=False):
    """An operator (or a drill) overrides a pool's limit; None gives it back to the configuration."""

    pool: PoolName
    limit: int | None


class Sliced(msgspec.Struct, frozen=True, tag=True, gc=False):
    """How many of a pool's slots this gateway may use now, of those that it shares with others; None: it shares none."""

    pool: PoolName
    slots: int | None


class DrainSet(msgspec.Struct, frozen=True, tag=True, gc=False):
    """An operator takes an endpoint out of use, or gives it back. What runs there ends by itself."""

    endpoint: EndpointUrl
    draining: bool


Event = (
    Configured
    | Arrived
    | FirstToken
    | AttemptFailed
    | Ended
    | Woke
    | Probed
    | Scraped
    | QuotaSeen
    | LimitSet
    | Sliced
    | DrainSet
)
