"""The meters that a member has open: found once for requests of one kind, looked at when something happened to them. Pure.

A request of a usual tenant passes several meters, and a worker has a hundred thousand of them open: so nothing here walks over all.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from spillway.core.clock import Seconds
from spillway.quota.meters import Lease, Meter, Slots
from spillway.quota.rules import MeterSpec, Span, Unit

MOST_METERS = 200_000  # what needs more is refused: end users are named by clients
LOOK_S = 10.0  # a budget may be of yesterday for so long
CLOSED = -(1 << 62)  # free of a meter that is closed: less than any debt
SWEEP_S = 10.0  # how often a meter is looked at that nothing happens to

Period = Callable[[Span], str]
"""Of a day or a month: such as 2026-11-26, or 2026-11; empty of the other spans."""


class Claim:
    """Requests that must pass the same meters: those of one tenant for one model by one end user."""

    __slots__ = ("buckets", "dollars", "found", "specs", "until")

    def __init__(self, specs: Sequence[MeterSpec]) -> None:
        """At least one."""
        self.specs = specs
        self.found: tuple[Meter, ...] = ()
        self.buckets: tuple[tuple[Lease, ...], tuple[Lease, ...]] = ((), ())  # of requests, of tokens
        self.until: Seconds = -math.inf  # when to look whether another day has begun
        self.dollars = any(spec.unit is Unit.NANO_USD for spec in specs)


class OpenMeters:
    def __init__(self, period: Period) -> None:
        self._period = period
        self._meters: dict[tuple[str, str], Meter] = {}  # those first that were looked at the longest ago
        self._touched: deque[Meter] = deque()

    def __len__(self) -> int:
        return len(self._meters)

    def __iter__(self) -> Iterator[Meter]:
        return iter(self._meters.values())

    @property
    def full(self) -> bool:
        return len(self._meters) >= MOST_METERS

    def of(self, claim: Claim, now: Seconds) -> tuple[Meter, ...]:
        """Looked for where one of them may be closed, or of another day. Of a closed one nothing is free."""
        claim.found = tuple(self._meter(spec, now) for spec in claim.specs)
        claim.until = now + LOOK_S
        buckets = [one for one in claim.found if isinstance(one, Lease) and one.spec.span is Span.MINUTE]
        claim.buckets = (
            tuple(one for one in buckets if one.spec.unit is Unit.REQUESTS),
            tuple(one for one in buckets if one.spec.unit is Unit.TOKENS),
        )
        return claim.found

    def get(self, key: tuple[str, str]) -> Meter | None:
        return self._meters.get(key)

    def touch(self, meter: Meter) -> None:
        """It will be looked at with the next report that has room."""
        if not meter.touched:
            meter.touched = True
            self._touched.append(meter)

    def close(self, meter: Meter) -> None:
        meter.free = CLOSED
        del self._meters[meter.key]

    def looked_at(self, meter: Meter, now: Seconds) -> None:
        meter.told_at = now
        self._meters[meter.key] = self._meters.pop(meter.key)

    def next_touched(self) -> Meter | None:
        """Those that are still open, each once."""
        while self._touched:
            meter = self._touched.popleft()
            meter.touched = False
            if meter.free != CLOSED:
                return meter
        return None

    @property
    def any_touched(self) -> bool:
        return bool(self._touched)

    def unseen(self, now: Seconds, most: int) -> list[Meter]:
        """Nothing happened to them, and they were not looked at for SWEEP_S."""
        found: list[Meter] = []
        for meter in self._meters.values():
            if now - meter.told_at < SWEEP_S or len(found) >= most:
                break
            found.append(meter)
        return found

    def _meter(self, spec: MeterSpec, now: Seconds) -> Meter:
        key = (spec.key, self._period(spec.span))
        meter = self._meters.get(key)
        if meter is None:
            made = Slots(spec, now) if spec.unit is Unit.IN_FLIGHT else Lease(spec, key[1], now)
            meter = self._meters[key] = made
        elif meter.spec.amount != spec.amount:
            meter.bounded_by(spec)
        return meter
