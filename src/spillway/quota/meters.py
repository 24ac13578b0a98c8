"""What a member knows of one meter: its lease, what is reserved of it, what was used. Pure; the gate moves them.

`free` is what the lease has left, `reserved` what running requests will use at most as far as one can say. A request that used more than it
reserved makes `free` negative: a debt that is paid first.
"""

from spillway.core.clock import Seconds
from spillway.quota.book import burst
from spillway.quota.ledger import Ask, Grant, Kind
from spillway.quota.rules import MINUTE_S, MeterSpec, Span

PREFETCH_S = 1.5  # a bucket's lease is for so long at the pace of late
IDLE_S = 3.0  # a meter of which nothing was used for so long is closed
_PACE_WEIGHT = 0.5  # of the latest second


class Floor:
    """What a member that is cut off may give out of a bucket: its share of the rate, from nothing on. It is not part of `used`:
    the ledger has kept it free."""

    __slots__ = ("at", "level", "most", "rate")

    def __init__(self, amount: int, share: float, at: Seconds) -> None:
        self.rate = amount * share / MINUTE_S
        self.most = max(1.0, burst(amount) * share) if self.rate > 0 else 0.0
        self.level = 0.0
        self.at = at

    def take(self, amount: int, now: Seconds) -> bool:
        if now > self.at:
            self.level = min(self.most, self.level + self.rate * (now - self.at))
            self.at = now
        if self.level < amount:
            return False
        self.level -= amount
        return True


class Lease:
    """Of a BUCKET or a BUDGET."""

    __slots__ = (
        "at", "blocked_until", "floor", "free", "largest", "level", "pace", "paced_at", "paced_used", "period", "reserved", "retry_s",
        "said", "spec", "used",
    )  # fmt: skip

    def __init__(self, spec: MeterSpec, period: str, now: Seconds) -> None:
        self.spec = spec
        self.period = period
        self.free = 0
        self.reserved = 0
        self.used = 0
        self.level = 0  # what the ledger has left for anybody, as it said last
        self.floor: Floor | None = None
        self.largest = 0  # of the requests since the last report
        self.pace = 0.0  # used a second
        self.paced_at = now
        self.paced_used = 0
        self.at = now  # when something was last asked of it
        self.retry_s: Seconds = 0.0
        self.blocked_until = now
        self.said: tuple[int, int] | None = None  # used and kept of the last report that was answered

    @property
    def kind(self) -> Kind:
        return Kind.BUCKET if self.spec.span is Span.MINUTE else Kind.BUDGET

    def ask(self, need: int, share: float, now: Seconds) -> Ask | None:
        """What to report; None: nothing that the ledger does not know. Debts go over to it."""
        closing = self.reserved == 0 and need == 0 and now - self.at >= IDLE_S
        wanted = 0 if closing else self._wanted(share, now)
        spare = self.free - max(2 * wanted, need)
        if spare > 0:
            self.free -= spare
        if self.free + self.reserved < 0:
            self.free = -self.reserved
        kept = self.free + self.reserved
        lacking = max(0, need - max(0, self.free))
        want = max(0, wanted - max(0, self.free - need))
        if not closing and lacking == 0 and want == 0 and self.said == (self.used, kept):
            return None
        largest, self.largest = self.largest, 0
        return Ask(
            self.spec.key, self.kind, self.spec.amount, self.period, self.used, kept, lacking, want, largest, closing=closing
        )  # fmt: skip

    def _wanted(self, share: float, now: Seconds) -> int:
        """How much lease is good to have: of a bucket what is used in PREFETCH_S, of a budget half the member's share of what is left."""
        if self.kind is Kind.BUDGET:
            return int((share * self.level + max(0, self.free)) / 2)
        passed_s = now - self.paced_at
        if passed_s >= 0.5:
            pace = (self.used - self.paced_used) / passed_s
            self.pace += _PACE_WEIGHT * (pace - self.pace)
            self.paced_at, self.paced_used = now, self.used
        return int(max(self.pace * PREFETCH_S, min(self.largest, burst(self.spec.amount))))

    def heard(self, ask: Ask, grant: Grant, now: Seconds, at_most_s: Seconds) -> None:
        self.free += grant.granted
        self.level = grant.level
        self.said = (ask.used, ask.kept + grant.granted)
        lacks = grant.granted < ask.need
        self.retry_s = grant.retry_s if lacks else 0.0
        self.blocked_until = now + min(at_most_s, grant.retry_s) if lacks else now


class Slots:
    """Of a meter in flight. `granted` holds while the lease does, `floor` also when the member is cut off."""

    __slots__ = ("at", "floor", "granted", "in_use", "said", "spec")

    def __init__(self, spec: MeterSpec, now: Seconds) -> None:
        self.spec = spec
        self.in_use = 0
        self.granted = 0
        self.floor = 0
        self.at = now
        self.said: tuple[int, int] | None = None

    def ask(self, need: int, now: Seconds) -> Ask | None:
        closing = self.in_use == 0 and need == 0 and now - self.at >= IDLE_S
        if not closing and need == 0 and self.said == (self.in_use, self.granted):
            return None
        return Ask(
            self.spec.key, Kind.SLOTS, self.spec.amount, used=self.in_use, kept=self.granted, floor=self.floor,
            wants=(self.in_use + need,), closing=closing,
        )  # fmt: skip

    def heard(self, ask: Ask, grant: Grant) -> None:
        self.granted, self.floor = grant.granted, grant.floor
        self.said = (ask.used, grant.granted) if ask.kept == grant.granted else None
