"""The member's side: requests pass the gate when every meter of theirs has enough lease. Pure.

A request that lacks lease waits at most `wait_s` for what the ledger says, and is refused then; only one report is under way at a time,
and what waiting requests lack makes the next one due at once. What a request reserved is settled by what it used when it ends.

**Cut off** (no answer for `grace_s`): buckets give out the member's floor, budgets what is left of their lease, slots their floor; after
`stop_s` nothing, for then the ledger counts on it no more, and the member begins anew under another name. Where nobody can ask the
ledger, because it is `gone`, floors hold without an end.
"""

import math

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import RequestId
from spillway.quota.charges import Answer, Charge, Refusal
from spillway.quota.ledger import Ask, Failed, LedgerTimes, MemberId, Reply, Report
from spillway.quota.meters import Floor, Lease, Meter, PoolSlots, Slots
from spillway.quota.open_meters import Claim, OpenMeters, Period
from spillway.quota.rules import Span

MOST_ASKS = 1000  # in a report; the rest goes with the next
MOST_WAITING = 4096  # requests
AGAIN_S = 0.01  # until the next report where the last one could not hold everything, or failed
FIRST_AGAIN_S, MOST_AGAIN_S = 0.001, 0.016  # where a budget is being seeded; doubled each time
EARLY_S = 1e-6  # sums of times are not exact, and who is called at a time must find that it has come
LOST_AFTER = 3.0  # times `timeout_s`: a report that is neither answered nor said to have failed

_Floors = list[Floor | None]
_Taken = tuple[tuple[Meter, ...], Charge, _Floors | None]


class _Waiting(msgspec.Struct):
    request: RequestId
    claim: Claim
    charge: Charge
    answer: Answer
    since: Seconds
    turn: int  # the first report that tells of it


class Gate:
    def __init__(self, name: str, times: LedgerTimes, period: Period, now: Seconds) -> None:
        """`name` is this process's alone."""
        self._name = name
        self._times = times
        self._life = 1
        self._turn = 0
        self._share = 0.0
        self._open = OpenMeters(period)
        self._taken: dict[RequestId, _Taken] = {}
        self._waiting: dict[RequestId, _Waiting] = {}
        self._pools: dict[tuple[str, str], PoolSlots] = {}
        self._sent: dict[tuple[str, str], Ask] | None = None  # the report under way
        self._sent_at = now
        self._due_at = now  # when the next report is
        self._round_at = now  # when all that was touched is told of next
        self._acked_at = now  # when the last report was sent that was answered
        self._counted_at = now  # since when the ledger cannot have seen another report
        self._gone = False
        self._again_s = FIRST_AGAIN_S
        self.members = 1
        self.learning = False

    # Requests

    def reserve(
        self, request: RequestId, claim: Claim, charge: Charge, now: Seconds, answer: Answer
    ) -> Refusal | bool | None:
        """None: it passes. False: it waits, and `answer` is called later. Else why it is refused."""
        if self._open.full:
            return Refusal(claim.specs[0], self._times.report_s, cut_off=True)
        lacking = self._take(request, claim, charge, now)
        if lacking is None:
            return None
        if self._hopeless(lacking, now) or len(self._waiting) >= MOST_WAITING:
            return self._refusal(lacking, now)
        self._waiting[request] = _Waiting(request, claim, charge, answer, now, self._turn + 1)
        self._due_at = min(self._due_at, now)
        return False

    def settle(self, request: RequestId, used: Charge, now: Seconds) -> None:
        """It ended, or left while it waited. What never ran used nothing, not even a request."""
        taken = self._taken.pop(request, None)
        if taken is None:
            self._waiting.pop(request, None)
            return
        meters, charge, floors = taken
        for at, meter in enumerate(meters):
            amount, actual = charge[meter.index], used[meter.index]
            floor = None if floors is None else floors[at]
            if floor is not None:
                floor.level += amount - actual
                continue
            meter.reserved -= amount
            meter.free += amount - actual
            meter.used += actual
            if not meter.touched:
                self._open.touch(meter)

    def buckets(self, claim: Claim, now: Seconds) -> tuple[tuple[Lease, ...], tuple[Lease, ...]]:
        """Its minute's meters of requests, and those of tokens."""
        if not claim.found:
            self._open.of(claim, now)
        return claim.buckets

    @property
    def waiting(self) -> int:
        """Requests."""
        return len(self._waiting)

    def __len__(self) -> int:
        """Meters that are open."""
        return len(self._open)

    def _take(self, request: RequestId, claim: Claim, charge: Charge, now: Seconds) -> Meter | None:
        """All or nothing. Returns the first meter that has not enough."""
        meters = claim.found
        floors: _Floors | None = None
        lacking = self._lacking(meters, charge) if now < claim.until else None
        if lacking is not None or now >= claim.until:
            meters = self._open.of(claim, now)
            lacking = self._lacking(meters, charge)
        if self.cut_off(now):
            found = self._on_floors(meters, charge, now)
            floors, lacking = (found, None) if isinstance(found, list) else (None, found)
        if lacking is not None:
            lacking.at = now
            return lacking
        for at, meter in enumerate(meters):
            meter.at = now
            if floors is None or floors[at] is None:
                amount = charge[meter.index]
                meter.free -= amount
                meter.reserved += amount
                if amount > meter.size:
                    meter.size = amount
            if not meter.touched:
                self._open.touch(meter)
        self._taken[request] = (meters, charge, floors)
        return None

    def _lacking(self, meters: tuple[Meter, ...], charge: Charge) -> Meter | None:
        for meter in meters:
            if charge[meter.index] > meter.free:
                return meter
        return None

    def _on_floors(self, meters: tuple[Meter, ...], charge: Charge, now: Seconds) -> "_Floors | Meter":
        """What lacks lease is taken from floors, all or nothing: a floor for each meter that needs one, or the first that has not enough."""
        floors: _Floors = []
        for meter in meters:
            floor, amount = None, charge[meter.index]
            if isinstance(meter, Slots):
                short = self._no_slot(meter, now)
            elif short := amount > meter.free:
                floor = self._floor(meter, now)
                short = floor is None or not floor.take(amount, now)
            if short:
                for given, one in zip(floors, meters, strict=False):
                    if given is not None:
                        given.level += charge[one.index]
                return meter
            floors.append(floor)
        return floors

    def _no_slot(self, meter: Slots, now: Seconds) -> bool:
        return meter.reserved >= min(self._slots(meter, now), meter.spec.amount)

    def _hopeless(self, meter: Meter, now: Seconds) -> bool:
        blocked = isinstance(meter, Lease) and now < meter.blocked_until
        return blocked or meter.spec.amount == 0 or self.cut_off(now)

    def _refusal(self, meter: Meter, now: Seconds) -> Refusal:
        if not isinstance(meter, Lease):
            return Refusal(meter.spec, self._times.report_s, self.cut_off(now))
        return Refusal(meter.spec, meter.retry_s(now, self._times.report_s), self.cut_off(now) or meter.unseeded)

    # Cut off

    def cut_off(self, now: Seconds) -> bool:
        return now >= self._cut_at()

    def _cut_at(self) -> Seconds:
        """The ledger keeps the floor free from `grace_s` after the last report that it saw."""
        return max(self._acked_at, self._counted_at) + self._times.grace_s

    def _stopped(self, now: Seconds) -> bool:
        return not self._gone and now >= self._acked_at + self._times.stop_s

    def _floor(self, meter: Lease, now: Seconds) -> Floor | None:
        if meter.spec.span is not Span.MINUTE or self._stopped(now):
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
        for meter in self._open:
            meter.begin_anew()
            self._open.touch(meter)
        for pool in self._pools.values():
            pool.granted = pool.floor = 0

    # Pools

    def share_pool(self, name: str, amount: int, in_use: int, wants: tuple[int, ...], now: Seconds) -> int:
        """How many of a pool's `amount` slots this member may use. `wants`: those that run and wait here, by priority."""
        pool = self._pools.get((name, ""))
        if pool is None:
            pool = self._pools[name, ""] = PoolSlots(name)
            self._due_at = min(self._due_at, now)
        pool.amount, pool.in_use, pool.wants = amount, in_use, wants
        if pool.short:
            self._due_at = min(self._due_at, max(now, self._sent_at + AGAIN_S))
        if now < self._acked_at + self._times.lease_s:
            return min(pool.granted, amount)
        return 0 if self._stopped(now) else min(pool.floor, amount)

    # Reports

    @property
    def due_at(self) -> Seconds:
        """When to call `report` and `tick` next, at the latest."""
        at = self._due_at if self._sent is None else self._lost_at()
        oldest = next(iter(self._waiting.values()), None)
        return at if oldest is None else min(at, oldest.since + self._times.wait_s)

    def report(self, now: Seconds) -> Report | None:
        """What to say now; None: nothing is due, or a report is under way. Whoever sends it calls `heard` with the answer."""
        if self._sent is not None and now >= self._lost_at() - EARLY_S:
            self._sent, self._counted_at = None, now
        if self._sent is not None or now < self._due_at - EARLY_S:
            return None
        if self._stopped(now) and self._turn > 0:
            self._begin_anew()
        self._turn += 1
        self._sent_at, self._due_at = now, now + self._times.report_s
        self._sent = {}
        for meter, (need, largest) in self._needs(now).items():
            self._look_at(meter, need, largest, now)
        pools_lack = any(pool.short for pool in self._pools.values())
        if pools_lack or now >= self._round_at - EARLY_S:
            self._sent |= {pool.key: pool.ask() for pool in self._pools.values()}
        if now >= self._round_at - EARLY_S:
            self._go_round(self._sent, now)
        self._due_at = min(self._due_at, max(now + AGAIN_S, self._round_at))
        return Report(self._name_now(), self._turn, self._share, tuple(self._sent.values()))

    def leave(self, now: Seconds) -> Report:
        """The last one: everything that nothing runs on goes back."""
        for one in list(self._waiting.values()):
            del self._waiting[one.request]
            one.answer(self._refusal(self._open.of(one.claim, now)[0], now))
        self._turn += 1
        asks: list[Ask] = []
        for meter in self._open:
            if not meter.running:
                meter.at = -math.inf
                ask = meter.ask(0, 0, self._share, now)
                asks += [] if ask is None else [ask]
        asks += [pool.ask(closing=True) for pool in self._pools.values() if not pool.in_use]
        return Report(self._name_now(), self._turn, self._share, tuple(asks), leaving=True)

    def _name_now(self) -> MemberId:
        return MemberId(f"{self._name}/{self._life}")

    def _lost_at(self) -> Seconds:
        return self._sent_at + LOST_AFTER * self._times.timeout_s

    def _go_round(self, sent: dict[tuple[str, str], Ask], now: Seconds) -> None:
        """All that something happened to; where that is too much, the next report goes on."""
        restless: list[Meter] = []
        while len(sent) < MOST_ASKS and (meter := self._open.next_touched()) is not None:
            if meter.key not in sent:
                self._look_at(meter, 0, 0, now)
            if meter.restless:
                restless.append(meter)
        for meter in self._open.unseen(now, MOST_ASKS - len(sent)):
            self._look_at(meter, 0, 0, now)
        if not self._open.any_touched:
            self._round_at = now + self._times.report_s
        for meter in restless:
            self._open.touch(meter)

    def _look_at(self, meter: Meter, need: int, largest: int, now: Seconds) -> None:
        assert self._sent is not None
        ask = meter.ask(need, largest, self._share, now)
        self._open.looked_at(meter, now)
        if ask is not None:
            self._sent[meter.key] = ask

    def _needs(self, now: Seconds) -> dict[Meter, tuple[int, int]]:
        """Of those who wait, from each meter: all together, and the largest."""
        needs: dict[Meter, tuple[int, int]] = {}
        for one in self._waiting.values():
            for meter in self._open.of(one.claim, now):
                amount = one.charge[meter.index]
                need, largest = needs.get(meter, (0, 0))
                needs[meter] = (need + amount, max(largest, amount))
        return needs

    def heard(self, answer: Reply | Failed, now: Seconds) -> None:
        if self._sent is None or answer.turn != self._turn:
            return
        sent, self._sent = self._sent, None
        if isinstance(answer, Failed):
            self._gone = answer.gone
            if answer.may_count:
                self._counted_at = now
            if self._waiting:
                self._due_at = min(self._due_at, now + AGAIN_S)
            return
        self._acked_at, self._counted_at = self._sent_at, now
        self._gone = False
        self._share, self.members, self.learning = answer.share, answer.members, answer.learning
        grants = {(grant.key, grant.period): grant for grant in answer.grants}
        for key, ask in sent.items():
            meter, grant, pool = self._open.get(key), grants.get(key), self._pools.get(key)
            if pool is not None and grant is not None:
                pool.heard(grant)
            if meter is None:
                continue
            if ask.closing and not (meter.running or meter.at > self._sent_at):
                self._open.close(meter)
            elif ask.closing:  # it is wanted again: as a new one
                meter.reopen()
            elif grant is not None:
                meter.heard(ask, grant, now, self._times.report_s)
        self._retry(now)

    def _retry(self, now: Seconds) -> None:
        """Those that the answered report told of are served or refused; later ones wait for the next, and so do those that nobody
        could say anything of."""
        unseeded = False
        for one in list(self._waiting.values()):
            lacking = self._take(one.request, one.claim, one.charge, now)
            if lacking is not None and one.turn > self._turn:
                self._due_at = min(self._due_at, now)
            elif isinstance(lacking, Lease) and lacking.unseeded:
                self._due_at, unseeded = min(self._due_at, now + self._again_s), True
            else:
                del self._waiting[one.request]
                one.answer(None if lacking is None else self._refusal(lacking, now))
        self._again_s = min(2 * self._again_s, MOST_AGAIN_S) if unseeded else FIRST_AGAIN_S

    def tick(self, now: Seconds) -> None:
        """Refuses those that waited for too long: not for a limit, but for want of an answer. Called often enough for `wait_s`."""
        for one in list(self._waiting.values()):
            if now < one.since + self._times.wait_s - EARLY_S:
                break
            lacking = self._take(one.request, one.claim, one.charge, now)
            del self._waiting[one.request]
            one.answer(None if lacking is None else Refusal(lacking.spec, self._times.report_s, cut_off=True))
