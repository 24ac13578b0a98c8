"""What an engine says of load that others sent there: a slow correction of our own books."""

from math import inf, isfinite

from spillway.core.clock import Seconds
from spillway.traffic.events import Scraped

SLOWNESS = 0.5  # how much of the difference a new gauge moves the estimate


class Foreign:
    """Of one endpoint. A gauge that is too old is forgotten, and one that makes no sense is passed over: our own books are what is
    left."""

    __slots__ = ("_held", "kv_usage", "stale_at")

    def __init__(self) -> None:
        self._held = 0.0
        self.kv_usage = 0.0
        self.stale_at: Seconds = -inf

    def scraped(self, event: Scraped, now: Seconds, stale_s: Seconds) -> None:
        foreign = event.foreign
        if not (0.0 <= foreign < inf and isfinite(event.age_s)):
            return
        self._held = foreign if not self.is_fresh(now) else self._held + SLOWNESS * (foreign - self._held)
        if event.kv_usage is not None and isfinite(event.kv_usage):
            self.kv_usage = min(1.0, max(0.0, event.kv_usage))
        self.stale_at = now + stale_s - max(0.0, event.age_s)

    def is_fresh(self, now: Seconds) -> bool:
        return now < self.stale_at

    def held(self, now: Seconds) -> float:
        """Requests of others, ≥ 0; 0 when nothing fresh is known."""
        return self._held if self.is_fresh(now) else 0.0
