"""The breaker of one endpoint in one pool.

Rules
- CLOSED passes. It trips after `failures` faults in a row, or when at least `failure_share` of at least `min_samples`
  results were faults within `window_s` of the first fault (the window starts with a fault, so that a success costs
  two stores and no look at the time).
- OPEN passes nothing for `open_s`, doubled each time a trial fails, at most `max_open_s`. The doubling is forgotten
  when a request is served, not when a probe is answered: an endpoint whose health page is well and whose answers
  are not stays out longer each time.
- HALF_OPEN passes one trial request at a time. The trial's first token, or a healthy probe, closes the breaker.
- The last usable endpoint of a model never opens: it goes HALF_OPEN instead, and a failed trial leaves it there for
  `trial_gap_s` before the next one. Under load this means that everything else waits (and is refused when the predicted
  wait is too long) while one request at a time finds out; a sick endpoint costs one attempt per `trial_gap_s`, not
  the whole waiting room within milliseconds, and a well one is back in use with its first token.
- Only the trial speaks in HALF_OPEN, and nobody in OPEN: what was sent before the breaker opened proves nothing new,
  and the thirty other streams that die with a server must not double `open_s` thirty times.
- Load (429, 503) is not a fault: see `EndpointState.penalty_until`.
"""

import enum

from spillway.core.clock import Seconds
from spillway.core.ids import RequestId
from spillway.traffic.effects import BreakerState
from spillway.traffic.fleet import BreakerRules


class Turn(enum.Enum):
    """What moves a breaker. `_LAST`: the endpoint is the last usable one of some model."""

    TRIPPED = enum.auto()
    TRIPPED_LAST = enum.auto()
    TIME_OVER = enum.auto()
    PASSED = enum.auto()
    TRIAL_FAILED = enum.auto()
    TRIAL_FAILED_LAST = enum.auto()


NEXT: dict[tuple[BreakerState, Turn], BreakerState] = {
    (BreakerState.CLOSED, Turn.TRIPPED): BreakerState.OPEN,
    (BreakerState.CLOSED, Turn.TRIPPED_LAST): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Turn.TIME_OVER): BreakerState.HALF_OPEN,
    (BreakerState.HALF_OPEN, Turn.PASSED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Turn.TRIAL_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Turn.TRIAL_FAILED_LAST): BreakerState.HALF_OPEN,
}


class Breaker:
    """`served` and `in_a_row` are written by the controller's path of an ordinary ending; the rest only here."""

    __slots__ = ("_open_s", "_window_faults", "_window_served", "_window_start", "in_a_row", "rules", "served", "state",
                 "trial", "until")  # fmt: skip

    def __init__(self, rules: BreakerRules) -> None:
        self.rules = rules
        self.state = BreakerState.CLOSED
        self.served = 0  # answers of this endpoint that were no faults, ever
        self.in_a_row = 0  # faults since the last of those
        self.until: Seconds = 0.0  # OPEN: when it is over; HALF_OPEN: no trial before
        self.trial: RequestId | None = None  # HALF_OPEN: the request that finds out
        self._open_s = rules.open_s
        self._window_start: Seconds | None = None
        self._window_faults = 0
        self._window_served = 0  # `served` when the window started

    def passed(self) -> None:
        """An answer while CLOSED."""
        self.served += 1
        self.in_a_row = 0
        self._open_s = self.rules.open_s

    def trips_on_fault(self, now: Seconds) -> bool:
        """Counts a fault while CLOSED; True: `trip` must follow."""
        rules = self.rules
        self.in_a_row += 1
        if self._window_start is None or now - self._window_start >= rules.window_s:
            self._window_start, self._window_faults, self._window_served = now, 0, self.served
        self._window_faults += 1
        if self.in_a_row >= rules.failures:
            return True
        samples = self._window_faults + self.served - self._window_served
        return samples >= rules.min_samples and self._window_faults >= rules.failure_share * samples

    def trip(self, now: Seconds, *, last: bool) -> None:
        """CLOSED to OPEN, or to HALF_OPEN for the last usable endpoint."""
        self._turn(Turn.TRIPPED_LAST if last else Turn.TRIPPED)
        self.until = now + (self.rules.trial_gap_s if last else self._open_s)

    def time_over(self) -> None:
        self._turn(Turn.TIME_OVER)

    def close(self) -> None:
        """HALF_OPEN to CLOSED: the trial gave its first token, or a probe came back healthy."""
        self._turn(Turn.PASSED)

    def trial_failed(self, now: Seconds, *, last: bool) -> None:
        """Also for an unhealthy probe while HALF_OPEN."""
        self._turn(Turn.TRIAL_FAILED_LAST if last else Turn.TRIAL_FAILED)
        self._open_s = min(2.0 * self._open_s, self.rules.max_open_s)
        self.until = now + (self.rules.trial_gap_s if last else self._open_s)

    def spares_realtime(self, now: Seconds) -> bool:
        """For its first `open_s` a HALF_OPEN endpoint takes its trial from another priority, where there is one."""
        return now < self.until + self.rules.open_s

    def _turn(self, turn: Turn) -> None:
        self.state = NEXT[self.state, turn]
        self.trial = None
        self.in_a_row = 0
        self._window_start = None
