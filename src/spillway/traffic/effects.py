"""What the brain wants done. The driver acts on these, in order."""

import enum

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.outcome import Outcome


class SpillReason(enum.StrEnum):
    """Why a request is served by a tier after its first."""

    SATURATED = "saturated"  # the earlier tiers are at their ceiling for this priority
    UNHEALTHY = "unhealthy"  # no endpoint of the earlier tiers may be used
    FAILED = "failed"  # an attempt in an earlier tier failed
    POLICY = "policy"  # its policy leaves none of the earlier tiers
    IDLE = "idle"  # batch, which goes where idle work is cheapest


class BreakerState(enum.StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Dispatch(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Send the request to this endpoint now. Its slot is taken until `Ended` or `AttemptFailed`."""

    request: RequestId
    pool: PoolName
    endpoint: EndpointUrl
    attempt: int  # 1 for the first
    spill: SpillReason | None = None
    spilled_from: PoolName | None = None  # the first pool of the first tier, where it spilled


class Queued(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The request waits at the gateway until a slot frees up, its time is over, or it ends."""

    request: RequestId


class Refuse(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The request ends here: REFUSED, EVICTED, UNAVAILABLE, UPSTREAM_ERROR or UPSTREAM_TIMEOUT. It holds nothing any more.

    `retry_after_s` is when coming back makes sense; None where it does not (the attempts are used up).
    """

    request: RequestId
    outcome: Outcome
    retry_after_s: Seconds | None


class Yielded(msgspec.Struct, frozen=True, tag=True, gc=False):
    """The running attempt of a batch request is given up for somebody more urgent: cancel it. It waits again, and counts as not sent."""

    request: RequestId


class WakeAt(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Send `Woke` at this time or soon after. Asking again replaces nothing: the earliest counts."""

    at: Seconds


class BreakerChanged(msgspec.Struct, frozen=True, tag=True, gc=False):
    endpoint: EndpointUrl
    pool: PoolName
    state: BreakerState


Effect = Dispatch | Queued | Refuse | Yielded | WakeAt | BreakerChanged
