"""What a member knows of one meter: its lease, what is reserved of it, what was used. Pure; the gate moves them.

`free` is what the lease has left, `reserved` what running requests will use at most as far as one can say. A request that used more than it
reserved makes `free` negative: a debt that is paid first.
"""

from spillway.core.clock import Seconds
from spillway.quota.book import burst
from spillway.quota.charges import INDEX
from spillway.quota.ledger import Ask, Grant, Kind
from spillway.quota.rules import MINUTE_S, MeterSpec, Span

PREFETCH_S = 1.5  # a bucket's lease is for so long at the pace of late
KEPT_REQUESTS = 4  # a bucket's lease is for so many of the usual size at least, where there is enough for everybody
IDLE_S = 20.0  # a meter of which nothing was used for so long is closed
LAZY_S = 10.0  # what was used is told at least so often, also where nothing is needed
REFRESH_S = 60.0  # and everything else so often: what nobody speaks of is forgotten in the end
BLOCKED_S = 0.25  # a budget that had too little is not asked of again for so long
DRY_AFTER = 3.0  # times `report_s`: a budget that had too little for so long, while nothing runs here, is used up
_PACE_WEIGHT = 0.5  # of the latest second
_SIZE_KEPT = 0.9  # of the size of usual requests, from one look to the next


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
        "_retry_s",
        "at",
        "blocked_until",
        "dry_at",
        "floor",
        "free",
        "index",
        "level",
        "most",
        "pace",
        "paced_at",
        "paced_used",
        "period",
        "reserved",
        "said",
        "said_at",
        "size",
        "spec",
        "told_at",
        "touched",
        "unseeded",
        "used",
    )  # fmt: skip

    def __init__(self, spec: MeterSpec, period: str, now: Seconds) -> None:
        self.spec = spec
        self.most = int(burst(spec.amount))  # that a bucket holds
        self.index = INDEX[spec.unit]
        self.period = period
        self.touched = False  # since it was last looked at
        self.free = 0
        self.reserved = 0
        self.used = 0
        self.level = 0  # what the ledger has left for anybody, as it said last
        self.floor: Floor | None = None
        self.size = 0.0  # of the larger requests of late
        self.pace = 0.0  # used a second
        self.paced_at = now
        self.paced_used = 0
        self.at = now  # when something was last taken of it
        self.told_at = now  # when it was last looked at for a report
        self._retry_s: Seconds = 0.0
        self.blocked_until = now
        self.dry_at: Seconds | None = None  # since when the ledger has too little
        self.unseeded = False  # nobody knows yet what was used of its period
        self.said: tuple[int, int] | None = None  # used and kept of the last report that was answered
        self.said_at = now

    def bounded_by(self, spec: MeterSpec) -> None:
        """The limit is another one now."""
        self.spec = spec
        self.most = int(burst(spec.amount))
        self.said = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.spec.key, self.period)

    @property
    def running(self) -> bool:
        return self.reserved > 0

    @property
    def restless(self) -> bool:
        """Its lease is for a pace that may be over."""
        return self.pace * PREFETCH_S > KEPT_REQUESTS * self.size

    @property
    def kind(self) -> Kind:
        return Kind.BUCKET if self.spec.span is Span.MINUTE else Kind.BUDGET

    def left(self) -> int:
        """What can be used at once, as far as is known here. Of a bucket."""
        free, level = self.free, self.level
        left = free + level if level > 0 else free
        most = self.most
        return 0 if left < 0 else most if left > most else left

    def full_s(self, left: int) -> Seconds:
        """Until all that the bucket holds is there again."""
        return (self.most - left) * MINUTE_S / self.spec.amount if self.spec.amount else 0.0

    def retry_s(self, now: Seconds, report_s: Seconds) -> Seconds:
        """0: nobody can say. What is reserved of a budget may come back."""
        if self.kind is Kind.BUCKET:
            return max(0.0, self._retry_s)
        dry = self.dry_at is not None and now - self.dry_at > DRY_AFTER * report_s and self.reserved == 0
        return 0.0 if dry or self.spec.amount == 0 else report_s

    def ask(self, need: int, largest: int, share: float, now: Seconds) -> Ask | None:
        """What to report; None: nothing that the ledger must know now. Debts go over to it. `largest`: of the requests that wait."""
        self.size = max(self.size, largest)
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
        urgent = closing or lacking > 0 or spare > 0 or 2 * want > wanted or self.said is None
        quiet_s = REFRESH_S if self.said == (self.used, kept) else LAZY_S
        if not urgent and now - self.said_at < quiet_s:
            return None
        return Ask(
            self.spec.key, self.kind, self.spec.amount, self.period, self.used, kept, lacking, want, largest, closing=closing
        )  # fmt: skip

    def begin_anew(self) -> None:
        """The ledger knows nothing of it any more."""
        self.said = None
        self.free, self.used, self.paced_used, self.floor = -self.reserved, 0, 0, None

    def reopen(self) -> None:
        """The ledger has closed it; what is kept now is told as kept from the beginning."""
        self.said = None
        self.used = self.paced_used = 0

    def _wanted(self, share: float, now: Seconds) -> int:
        """How much lease is good to have: of a bucket what is used in PREFETCH_S, of a budget half the member's share of what is left."""
        if self.kind is Kind.BUDGET:
            return int((share * self.level + max(0, self.free)) / 2)
        passed_s = now - self.paced_at
        if passed_s >= 0.5:
            pace = (self.used - self.paced_used) / passed_s
            self.pace += _PACE_WEIGHT * (pace - self.pace)
            self.paced_at, self.paced_used = now, self.used
            self.size *= _SIZE_KEPT
        return int(max(self.pace * PREFETCH_S, min(KEPT_REQUESTS * self.size, burst(self.spec.amount) / 8)))

    def heard(self, ask: Ask, grant: Grant, now: Seconds, at_most_s: Seconds) -> None:
        self.floor = None
        self.free += grant.granted
        self.level = grant.level
        self.said, self.said_at = (ask.used, ask.kept + grant.granted), now
        self.unseeded = grant.unseeded
        if grant.granted >= ask.need:
            self._retry_s, self.blocked_until = 0.0, now
            self.dry_at = None if ask.need or grant.level else self.dry_at
            return
        self._retry_s = grant.retry_s
        self.blocked_until = now + min(at_most_s, grant.retry_s) if self.kind is Kind.BUCKET else now + BLOCKED_S
        if grant.unseeded:
            self.blocked_until = now
        elif self.dry_at is None:
            self.dry_at = now


class Slots:
    """Of a meter in flight. `granted` holds while the lease does, `floor` also when the member is cut off. A slot is `reserved` while
    its request runs, and nothing is ever `used` of it."""

    __slots__ = (
        "at",
        "floor",
        "free",
        "granted",
        "index",
        "reserved",
        "said",
        "said_at",
        "size",
        "spec",
        "told_at",
        "touched",
        "used",
    )

    restless = False
    period = ""

    def __init__(self, spec: MeterSpec, now: Seconds) -> None:
        self.spec = spec
        self.index = INDEX[spec.unit]
        self.touched = False
        self.free = 0
        self.reserved = 0
        self.used = 0
        self.size = 1.0
        self.granted = 0
        self.floor = 0
        self.at = now
        self.told_at = now
        self.said: tuple[int, int] | None = None  # in use and granted; None: the ledger must hear what is granted
        self.said_at = now

    def bounded_by(self, spec: MeterSpec) -> None:
        self.spec = spec
        self.said = None
        self._count()

    @property
    def key(self) -> tuple[str, str]:
        return (self.spec.key, "")

    @property
    def running(self) -> bool:
        return self.reserved > 0

    def ask(self, need: int, largest: int, share: float, now: Seconds) -> Ask | None:
        del largest, share
        closing = self.reserved == 0 and need == 0 and now - self.at >= IDLE_S
        same = self.said is not None and abs(self.reserved - self.said[0]) <= self.granted // 4 + 1
        if same and not closing and need == 0 and now - self.said_at < REFRESH_S:
            return None
        return Ask(
            self.spec.key, Kind.SLOTS, self.spec.amount, used=self.reserved, kept=self.granted, floor=self.floor,
            wants=(self.reserved + need,), closing=closing,
        )  # fmt: skip

    def heard(self, ask: Ask, grant: Grant, now: Seconds, at_most_s: Seconds) -> None:
        del at_most_s
        self.said_at = now
        self.granted, self.floor = grant.granted, grant.floor
        self.said = (ask.used, grant.granted) if ask.kept == grant.granted else None
        self._count()

    def begin_anew(self) -> None:
        self.said = None
        self.granted = self.floor = 0
        self._count()

    reopen = begin_anew

    def _count(self) -> None:
        self.free = min(self.granted, self.spec.amount) - self.reserved


class PoolSlots:
    """Slots of a pool, of which all members together have `amount`. The brain holds them; `in_use` and `wants` are its word. Told of with
    each round, for they are few."""

    __slots__ = ("amount", "floor", "granted", "in_use", "key", "wants")

    def __init__(self, name: str) -> None:
        self.key = (name, "")
        self.amount = 0
        self.in_use = 0
        self.wants: tuple[int, ...] = (0,)
        self.granted = 0
        self.floor = 0

    @property
    def short(self) -> bool:
        """A quarter or less of what it has is left, and more is wanted."""
        return sum(self.wants) > self.granted and 4 * (self.granted - self.in_use) <= self.granted

    def ask(self, *, closing: bool = False) -> Ask:
        return Ask(
            self.key[0], Kind.SLOTS, self.amount, used=self.in_use, kept=self.granted, floor=self.floor, wants=self.wants,
            closing=closing,
        )  # fmt: skip

    def heard(self, grant: Grant) -> None:
        self.granted, self.floor = grant.granted, grant.floor


Meter = Lease | Slots
