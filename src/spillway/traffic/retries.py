"""How often an attempt may be followed by another: the budget of a pool, and how a request ends that gets none."""

from spillway.core.clock import Seconds
from spillway.core.outcome import Outcome
from spillway.traffic.effects import BreakerState
from spillway.traffic.events import Fault
from spillway.traffic.fleet import RetryRules


class RetryBudget:
    """Retries that a pool's failures may cause: at most `budget_share` of its requests within the last `window_s`, plus `budget_floor`.

    The window slides in two halves, so it covers between half and all of `window_s`. A retry is charged to the pool that
    failed, wherever it goes: a sick pool must not turn into a storm at its neighbours.
    """

    __slots__ = ("_half_over", "_requests", "_requests_before", "_retries", "_retries_before", "rules")

    def __init__(self, rules: RetryRules) -> None:
        self.rules = rules
        self._half_over: Seconds = 0.0
        self._requests = 0  # in this half
        self._requests_before = 0
        self._retries = 0
        self._retries_before = 0

    def count(self, now: Seconds) -> None:
        """A request's first attempt."""
        if now >= self._half_over:
            self._roll(now)
        self._requests += 1

    def take(self, now: Seconds) -> bool:
        """One retry, if the budget has it."""
        if now >= self._half_over:
            self._roll(now)
        allowed = self.rules.budget_floor + self.rules.budget_share * (self._requests + self._requests_before)
        if self._retries + self._retries_before + 1 > allowed:
            return False
        self._retries += 1
        return True

    def _roll(self, now: Seconds) -> None:
        half_s = self.rules.window_s / 2
        recent = now < self._half_over + half_s
        self._requests_before = self._requests if recent else 0
        self._retries_before = self._retries if recent else 0
        self._requests = self._retries = 0
        self._half_over = now + half_s


def is_free(fault: Fault, breaker: BreakerState) -> bool:
    """Whether a retry is charged to nobody, after a fault at an endpoint with such a breaker: what dies with an endpoint is no more than what was in flight there.

    A connection that could not be made cost the endpoint nothing, and one whose breaker is not CLOSED gets nothing more to
    fail with; without this a cluster that dies under load would lose what its budget does not carry.
    """
    return fault is Fault.CONNECT or breaker is not BreakerState.CLOSED


def outcome_of(fault: Fault) -> Outcome:
    """How a request ends whose last attempt failed this way."""
    match fault:
        case Fault.OVERLOADED:
            return Outcome.REFUSED
        case Fault.TIMEOUT:
            return Outcome.UPSTREAM_TIMEOUT
        case Fault.CONNECT | Fault.RESET | Fault.SERVER_ERROR | Fault.MALFORMED:
            return Outcome.UPSTREAM_ERROR
