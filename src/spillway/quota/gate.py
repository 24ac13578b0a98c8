"""The member's side: requests pass the gate when every meter of theirs has enough lease. Pure.

A request that lacks lease waits at most `wait_s` for what the ledger says, and is refused then; only one report is under way at a time,
and what waiting requests lack makes the next one due at once. What a request reserved is settled by what it used when it ends.

**Cut off** (no answer for `grace_s`): buckets give out the member's floor, budgets what is left of their lease, slots their floor; after
`stop_s` nothing, for then the ledger counts on it no more, and the member begins anew under another name. Where nobody can ask the
ledger, because it is `gone`, floors hold without an end.
"""

from collections.abc import Callable, Sequence

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import RequestId
from spillway.quota.ledger import Ask, Failed, LedgerTimes, MemberId, Reply, Report
from spillway.quota.meters import Floor, Lease, Slots
from spillway.quota.rules import MeterSpec, Span, Unit

MOST_ASKS = 1000  # in a report; the rest goes with the next
MOST_WAITING = 4096  # requests


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What a request may use, or used."""

    requests: int
    tokens: int
    nano_usd: int

    def of(self, unit: Unit) -> int:
        match unit:
            case Unit.REQUESTS:
                return self.requests
            case Unit.TOKENS:
                return self.tokens
            case Unit.NANO_USD:
                return self.nano_usd
            case Unit.IN_FLIGHT:
                return 1


class Refusal(msgspec.Struct, frozen=True):
    """`spec`: the meter that has not enough. `retry_s` 0: nobody can say when it will. `cut_off`: the ledger did not answer."""

    spec: MeterSpec
    retry_s: Seconds
    cut_off: bool


Answer = Callable[[Refusal | None], None]
Period = Callable[[Span], str]
"""Of a day or a month: such as 2026-11-26, or 2026-11."""


class _Part(msgspec.Struct, frozen=True, gc=False):
    meter: Lease | Slots
    amount: int
    floor: Floor | None


class _Waiting(msgspec.Struct):
    request: RequestId
    specs: Sequence[MeterSpec]
    charge: Charge
    answer: Answer
    since: Seconds
    turn: int  # the first report that tells of it


class Gate:
    def __init__(self, name: str, times: LedgerTimes, period: Period, now: Seconds) -> None:
        """`name` is this process's alone."""
        self._name = name
        self._times = times
        self._period = period
        self._life = 1
        self._turn = 0
        self._share = 0.0
        self._meters: dict[tuple[str, str], Lease | Slots] = {}
        self._parts: dict[RequestId, list[_Part]] = {}
        self._waiting: dict[RequestId, _Waiting] = {}
        self._sent: dict[tuple[str, str], Ask] | None = None  # the report under way
        self._sent_at = now
        self._acked_at = now  # when the last report was sent that was answered
        self._counted_at = now  # when the last report was sent that the ledger may have seen
        self._gone = False
        self._lacks = False
        self.members = 1
        self.learning = False

    # Requests

    def reserve(
        self, request: RequestId, specs: Sequence[MeterSpec], charge: Charge, now: Seconds, answer: Answer
    ) -> Refusal | bool | None:
        """None: it passes. False: it waits, and `answer` is called later. Else why it is refused."""
        lacking = self._take(request, specs, charge, now)
        if lacking is None:
            return None
        refusal = self._hopeless(lacking, now)
        if refusal is not None or len(self._waiting) >= MOST_WAITING:
            return refusal or self._refusal(lacking, now)
        turn = self._turn + 1
        self._waiting[request] = _Waiting(request, specs, charge, answer, now, turn)
        self._lacks = True
        return False

    def settle(self, request: RequestId, used: Charge, now: Seconds) -> None:
        """It ended, or left while it waited. What never ran used nothing, not even a request."""
        self._waiting.pop(request, None)
        for part in self._parts.pop(request, ()):
            meter, actual = part.meter, 0
            if isinstance(meter, Slots):
                meter.in_use -= 1
                meter.at = now
                continue
            actual = used.of(meter.spec.unit)
            if part.floor is not None:
                part.floor.level += part.amount - actual
                continue
            meter.reserved -= part.amount
            meter.free += part.amount - actual
            meter.used += actual
            meter.at = now

    def left(self, key: str) -> int | None:
        """What can be used of a minute's meter at once, as far as is known here; None: nothing is known."""
        meter = self._meters.get((key, ""))
        return None if not isinstance(meter, Lease) else max(0, meter.free + max(0, meter.level))

    def _take(self, request: RequestId, specs: Sequence[MeterSpec], charge: Charge, now: Seconds) -> MeterSpec | None:
        """All or nothing. Returns the first meter that has not enough."""
        parts: list[_Part] = []
        lacking: MeterSpec | None = None
        for spec in specs:
            amount = charge.of(spec.unit)
            meter = self._meter(spec, now)
            meter.at = now
            if isinstance(meter, Slots):
                enough = meter.in_use < min(self._slots(meter, now), spec.amount)
                floor = None
            else:
                meter.largest = max(meter.largest, amount)
                enough, floor = amount <= meter.free, None
                if not enough and lacking is None:
                    floor = self._floor(meter, now)
                    enough = floor is not None and floor.take(amount, now)
            if enough:
                parts.append(_Part(meter, amount, floor))
            elif lacking is None:
                lacking = spec
        if lacking is not None:
            for part in parts:
                if part.floor is not None:
                    part.floor.level += part.amount
            return lacking
        for part in parts:
            if isinstance(part.meter, Slots):
                part.meter.in_use += 1
            elif part.floor is None:
                part.meter.free -= part.amount
                part.meter.reserved += part.amount
        self._parts[request] = parts
        return None

    def _meter(self, spec: MeterSpec, now: Seconds) -> Lease | Slots:
        key = (spec.key, self._period(spec.span) if spec.span in (Span.DAY, Span.MONTH) else "")
        meter = self._meters.get(key)
        if meter is None:
            made = Slots(spec, now) if spec.unit is Unit.IN_FLIGHT else Lease(spec, key[1], now)
            meter = self._meters[key] = made
        elif meter.spec.amount != spec.amount:
            meter.spec = spec
            meter.said = None
        return meter

    def _hopeless(self, spec: MeterSpec, now: Seconds) -> Refusal | None:
        meter = self._meter(spec, now)
        blocked = isinstance(meter, Lease) and now < meter.blocked_until
        if spec.amount == 0 or blocked or self.cut_off(now):
            return self._refusal(spec, now)
        return None

    def _refusal(self, spec: MeterSpec, now: Seconds) -> Refusal:
        meter = self._meter(spec, now)
        return Refusal(spec, meter.retry_s if isinstance(meter, Lease) else 0.0, self.cut_off(now))

    # Cut off

    def cut_off(self, now: Seconds) -> bool:
        return now >= self._cut_at()

    def _cut_at(self) -> Seconds:
        """The ledger keeps the floor free from `grace_s` after the last report that it saw."""
        return max(self._acked_at, self._counted_at) + self._times.grace_s

    def _stopped(self, now: Seconds) -> bool:
        return not self._gone and now >= self._acked_at + self._times.stop_s

    def _floor(self, meter: Lease, now: Seconds) -> Floor | None:
        if meter.spec.span is not Span.MINUTE or not self.cut_off(now) or self._stopped(now):
            return None
        if meter.floor is None:
            meter.floor = Floor(meter.spec.amount, self._share, self._cut_at())
        return meter.floor

    def _slots(self, meter: Slots, now: Seconds) -> int:
        if now < self._acked_at + self._times.lease_s:
            return meter.granted
        return 0 if self._stopped(now) else meter.floor

    def _begin_anew(self) -> None:
        """The ledger has forgotten this member by now, and counts what it held as used."""
        self._life += 1
        self._turn, self._share, self._sent = 0, 0.0, None
        for meter in self._meters.values():
            meter.said = None
            if isinstance(meter, Lease):
                meter.free, meter.used, meter.paced_used, meter.floor = -meter.reserved, 0, 0, None
            else:
                meter.granted = meter.floor = 0

    # Reports

    def report(self, now: Seconds) -> Report | None:
        """What to say now; None: nothing is due, or a report is under way. Whoever sends it calls `heard` with the answer."""
        if self._sent is not None or (not self._lacks and now < self._sent_at + self._times.report_s):
            return None
        if self._stopped(now) and self._turn > 0:
            self._begin_anew()
        self._turn += 1
        self._sent_at, self._lacks = now, False
        self._sent = {}
        needs = self._needs()
        for key, meter in self._meters.items():
            need = needs.get(key, 0)
            ask = meter.ask(need, now) if isinstance(meter, Slots) else meter.ask(need, self._share, now)
            if ask is not None:
                self._sent[key] = ask
                if len(self._sent) >= MOST_ASKS:
                    break
        for key in self._sent:  # so that those that were left out come first with the next
            self._meters[key] = self._meters.pop(key)
        return Report(MemberId(f"{self._name}/{self._life}"), self._turn, self._share, tuple(self._sent.values()))

    def _needs(self) -> dict[tuple[str, str], int]:
        needs: dict[tuple[str, str], int] = {}
        for one in self._waiting.values():
            for spec in one.specs:
                key = (spec.key, self._period(spec.span) if spec.span in (Span.DAY, Span.MONTH) else "")
                needs[key] = needs.get(key, 0) + one.charge.of(spec.unit)
        return needs

    def heard(self, answer: Reply | Failed, now: Seconds) -> None:
        if self._sent is None or answer.turn != self._turn:
            return
        sent, self._sent = self._sent, None
        if isinstance(answer, Failed):
            self._gone = answer.gone
            if answer.may_count:
                self._counted_at = self._sent_at
            return
        self._acked_at = self._counted_at = self._sent_at
        self._gone = False
        self._share, self.members, self.learning = answer.share, answer.members, answer.learning
        grants = {(grant.key, grant.period): grant for grant in answer.grants}
        for key, ask in sent.items():
            meter, grant = self._meters[key], grants.get(key)
            if ask.closing and not self._touched(meter):
                del self._meters[key]
            elif ask.closing:  # it is wanted again: as a new one
                self._reopen(meter)
            elif grant is not None and isinstance(meter, Lease):
                meter.floor = None
                meter.heard(ask, grant, now, self._times.report_s)
            elif grant is not None and isinstance(meter, Slots):
                meter.heard(ask, grant)
        self._retry(now)

    def _touched(self, meter: Lease | Slots) -> bool:
        running = meter.in_use if isinstance(meter, Slots) else meter.reserved
        return running > 0 or meter.at > self._sent_at

    def _reopen(self, meter: Lease | Slots) -> None:
        meter.said = None
        if isinstance(meter, Lease):
            meter.used = meter.paced_used = 0
        else:
            meter.granted = meter.floor = 0

    def _retry(self, now: Seconds) -> None:
        """Those that the answered report told of are served or refused; later ones wait for the next."""
        for one in list(self._waiting.values()):
            lacking = self._take(one.request, one.specs, one.charge, now)
            if lacking is None or one.turn <= self._turn:
                del self._waiting[one.request]
                one.answer(None if lacking is None else self._refusal(lacking, now))
            else:
                self._lacks = True

    def tick(self, now: Seconds) -> None:
        """Refuses those that waited for too long. Called often enough for `wait_s`."""
        for one in list(self._waiting.values()):
            if now - one.since < self._times.wait_s:
                break
            lacking = self._take(one.request, one.specs, one.charge, now)
            del self._waiting[one.request]
            one.answer(None if lacking is None else self._refusal(lacking, now))
