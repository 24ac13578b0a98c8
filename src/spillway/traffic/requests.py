"""What the brain keeps of one request from its arrival to its end."""

from math import inf

import msgspec

from spillway.core.clock import Seconds
from spillway.core.priority import Priority
from spillway.traffic.events import Arrived
from spillway.traffic.fairness import Charge
from spillway.traffic.fleet import FairnessRules
from spillway.traffic.parties import RouteKey
from spillway.traffic.pools import EndpointState
from spillway.traffic.rates import DrainRate

RANK_OF = {priority: priority.rank for priority in Priority}


class RequestState(msgspec.Struct, eq=False, gc=False):
    """Running while `endpoint` is set, else waiting. Nothing points back here but the tables of the controller and the
    waiting room, so it needs no garbage collection."""

    arrived: Arrived
    rank: int
    rate: DrainRate  # of its model, also when the model is gone from the configuration
    kv_tokens: int  # what it holds of a pool's KV tokens while it runs
    work: float  # estimated: input_weight · input tokens + output_weight · output tokens
    arrived_at: Seconds
    route: RouteKey | None = None  # where it waits
    endpoint: EndpointState | None = None
    attempt: int = 0
    owed: bool = False  # its attempt runs on its minimum share: it does not yield
    sent_at: Seconds = 0.0
    answered_at: Seconds | None = None  # the first token came: no other attempt may follow
    sent_beside: int = 0  # in flight in the pool when it was sent
    warm_tokens: int = 0  # of its input, at the endpoint that it was sent to
    tried: tuple[EndpointState, ...] = ()
    queued_at: Seconds = 0.0
    deadline: Seconds = 0.0  # of the present wait
    promote_at: Seconds = inf  # batch near its deadline waits on as interactive
    charge: Charge | None = None  # its work, once it has waited
    waited_s: Seconds = 0.0  # in earlier waits: all of them together last at most the priority's max_wait_s


def request_of(arrived: Arrived, rank: int, rate: DrainRate, rules: FairnessRules, now: Seconds) -> RequestState:
    """A request that has just arrived."""
    input_tokens, output_tokens = arrived.input_tokens, arrived.output_tokens
    work = rules.input_weight * input_tokens + rules.output_weight * output_tokens
    return RequestState(arrived, rank, rate, kv_tokens_of(input_tokens, output_tokens), work, now)


def kv_tokens_of(input_tokens: int, output_tokens: int) -> int:
    """n_in + n_out / 2, the mean over its life: it begins with its input and ends with all of its output."""
    return input_tokens + ((output_tokens + 1) >> 1)
