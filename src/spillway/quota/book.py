"""The ledger of one host, kept by its parent; and the twin that the shared ledger's script is held to. Pure.

**Members.** Each has a share of every limit for its floor, the sum of shares is at most 1. A newcomer's share is what the others
have given up: a share counts as the larger of what was given and what its member last said it takes.

**Buckets** refill in *refill time*, which runs slower than the clock while a member is absent (no report for `grace_s`): its share
of the rate is its floor then, and not given to others until `forget_s`. What is held in leases counts against the burst.

**Budgets** give out what is left of their period. What a forgotten member held stays counted as used until usage records say what it
was (`mark`). A budget that was never seeded gives nothing: nobody knows what was used before.

**Slots**: half of each share is a floor that is never given to others; the rest goes by priority, max-min fair among those
who want it, and half of what nobody wants in equal parts. A slot counts as taken until its member says that it is not.

**Learning**: a ledger that has lost its memory gives floors only, and nothing to newcomers until those who were there have had
`grace_s` to say what they have.
"""

from spillway.core.clock import Seconds
from spillway.quota.fair import max_min
from spillway.quota.ledger import Ask, Grant, Kind, LedgerTimes, MemberId, Reply, Report, Seed
from spillway.quota.rules import BURST_S, MINUTE_S

IDLE_S = 120.0  # an account that nobody holds anything of is forgotten
LONGEST_WAIT_S = 3600.0  # of `retry_s`


class _Member:
    __slots__ = ("seen_at", "share", "turn")

    def __init__(self, now: Seconds) -> None:
        self.turn = 0
        self.share = 0.0  # the larger of what was given and what it says it takes
        self.seen_at = now


class _Hold:
    """What one member has of one account: `used` so far (SLOTS: in use), `held` beyond that (SLOTS: takes for granted, in all)."""

    __slots__ = ("amount", "floor", "held", "marked", "used", "wants")

    def __init__(self, ask: Ask) -> None:
        self.amount = ask.amount
        self.used = ask.used  # of an account that is new to the ledger, but not to the member
        self.held = ask.kept
        self.floor = ask.floor
        self.wants = ask.wants
        self.marked = ask.used  # what it had used when records were last waited for

    def taken(self) -> int:
        """SLOTS: no other may have them."""
        return max(self.used, self.held, self.floor)


class _Account:
    """`level`: what is free, of a BUCKET; `used`: of a BUDGET, by those who hold nothing any more; `left`: SLOTS of forgotten
    members, and until when they count as taken."""

    __slots__ = ("at", "holds", "left", "level", "mark", "refilled", "seeded", "used")

    def __init__(self, level: float, refilled: Seconds, now: Seconds) -> None:
        self.holds: dict[MemberId, _Hold] = {}
        self.left: list[tuple[Seconds, int]] = []
        self.level = level
        self.refilled = refilled  # refill time of `level`
        self.used = 0
        self.seeded = False
        self.mark = 0  # grows with each member that ended without settling; below 0: settled since
        self.at = now

    def idle(self, now: Seconds) -> bool:
        """Nobody holds anything of it, and nobody has asked of it for long."""
        self.left = [one for one in self.left if now < one[0]]
        return not self.holds and not self.left and now - self.at >= IDLE_S

    def amount(self) -> int:
        """The least that any member takes for the limit: a change of it reaches them one after the other."""
        return min(hold.amount for hold in self.holds.values())

    def held(self) -> int:
        return sum(hold.held for hold in self.holds.values())


class Book:
    def __init__(self, times: LedgerTimes, now: Seconds, *, learning: bool = False) -> None:
        """`learning`: members may be there that this book has forgotten; those of a parent's own workers are not."""
        self._times = times
        self._members: dict[MemberId, _Member] = {}
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._learned_at = now + times.learn_s if learning else now
        self._told_at = (
            min(self._learned_at, now + times.grace_s) if learning else now
        )  # when those who were there have spoken
        self._refilled: Seconds = 0.0
        self._now = now
        self._swept_at = now

    def report(self, report: Report, now: Seconds) -> Reply:
        now = self._advance(now)
        learning = now < self._learned_at
        member = self._members.get(report.member)
        if member is None:
            member = self._members[report.member] = _Member(now)
        if report.turn <= member.turn:
            return Reply(report.turn, member.share, len(self._members), learning)
        member.turn, member.seen_at = report.turn, now
        share = self._share(report, member)
        grants = [self._answer(report.member, share, ask, now) for ask in report.asks]
        if report.leaving:
            self._forget(report.member)
        return Reply(report.turn, share, len(self._members), learning, tuple(one for one in grants if one is not None))

    def seed(self, seed: Seed, now: Seconds) -> None:
        now = self._advance(now)
        account = self._known((seed.key, seed.period), now)
        if account is None:
            account = self._accounts[seed.key, seed.period] = _Account(0.0, self._refilled, now)
        others = max(0, seed.used - sum(hold.marked for hold in account.holds.values()))
        if not account.seeded:
            account.used = max(account.used, others)
        elif seed.mark > 0 and seed.mark == account.mark:
            account.used = others
            account.mark = -account.mark
        account.seeded, account.at = True, now

    def unsettled(self) -> int:
        """Budgets of which a member that ended may have used less than it held."""
        return sum(account.mark > 0 for account in self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    # Members and time

    def _share(self, report: Report, member: _Member) -> float:
        others = sum(one.share for one in self._members.values() if one is not member)
        given = min(1.0 / len(self._members), max(0.0, 1.0 - others))
        if self._now < self._told_at and report.share == 0.0:
            given = 0.0  # a newcomer, while it is not known what others have
        member.share = max(report.share, given)
        return given

    def _advance(self, now: Seconds) -> Seconds:
        """Refill time runs on; members that were silent for too long are forgotten."""
        now = max(now, self._now)
        before, times = self._now, self._times
        learned = min(max(self._learned_at, before), now)
        for member in self._members.values():
            absent_at = member.seen_at + times.grace_s
            self._refilled += member.share * max(0.0, min(learned, absent_at) - before)
            self._refilled -= member.share * max(
                0.0, min(now, member.seen_at + times.forget_s) - max(learned, absent_at)
            )
        self._refilled += now - learned
        self._now = now
        for name in [name for name, one in self._members.items() if now - one.seen_at >= times.forget_s]:
            self._forget(name)
        if now - self._swept_at >= IDLE_S:
            self._swept_at = now
            for key in [key for key, one in self._accounts.items() if one.idle(now)]:
                del self._accounts[key]
        return now

    def _forget(self, name: MemberId) -> None:
        left_until = self._members.pop(name).seen_at + self._times.lease_s + self._times.longest_s
        for account in self._accounts.values():
            hold = account.holds.pop(name, None)
            if hold is None:
                continue
            account.left.append((left_until, hold.taken()))
            account.used += hold.used + hold.held
            if hold.held > 0:
                account.mark = abs(account.mark) + 1
                for other in account.holds.values():
                    other.marked = other.used

    # Accounts

    def _answer(self, name: MemberId, share: float, ask: Ask, now: Seconds) -> Grant | None:
        account = self._known((ask.key, ask.period), now)
        if account is None:
            if ask.closing:
                return None
            account = self._accounts[ask.key, ask.period] = self._opened(ask, now)
        account.at = now
        hold = account.holds.get(name)
        if hold is None:
            if ask.closing:
                return None
            hold = account.holds[name] = _Hold(ask)
        if ask.kind is Kind.SLOTS:
            return self._slots(account, name, hold, share, ask, now)
        back = hold.held - max(0, ask.used - hold.used) - ask.kept
        account.level += back
        hold.used, hold.held, hold.amount = max(hold.used, ask.used), ask.kept, ask.amount
        grant = (
            self._bucket(account, hold, ask)
            if ask.kind is Kind.BUCKET
            else self._budget(account, hold, share, ask, now)
        )
        if ask.closing:
            account.used += hold.used + hold.held
            del account.holds[name]
        return grant

    def _known(self, key: tuple[str, str], now: Seconds) -> _Account | None:
        account = self._accounts.get(key)
        if account is not None and account.idle(now):
            del self._accounts[key]
            return None
        return account

    def _opened(self, ask: Ask, now: Seconds) -> _Account:
        full = now >= self._learned_at and ask.kind is Kind.BUCKET
        return _Account(burst(ask.amount) if full else 0.0, self._refilled, now)

    def _bucket(self, account: _Account, hold: _Hold, ask: Ask) -> Grant:
        amount = account.amount()
        rate, most = amount / MINUTE_S, burst(amount)
        level = account.level + rate * max(0.0, self._refilled - account.refilled)
        held = account.held()
        account.refilled = max(account.refilled, self._refilled)
        account.level = min(level, most - held)
        free = max(0, int(account.level))
        granted = min(ask.need, free)
        if amount > 0 and ask.largest > most and account.level >= most - held:
            granted = max(
                granted, min(ask.need, ask.largest - hold.held)
            )  # the bucket cannot hold it: on credit, when it is full
        elif ask.need <= free:
            granted += min(ask.want, (free - granted) // (2 * len(self._members)))
        account.level -= granted
        hold.held += granted
        lacking = ask.need - granted
        retry_s = 0.0 if lacking <= 0 else _wait_s(lacking - min(0.0, account.level), rate)
        return Grant(ask.key, granted=granted, level=int(account.level), retry_s=retry_s)

    def _budget(self, account: _Account, hold: _Hold, share: float, ask: Ask, now: Seconds) -> Grant:
        if not account.seeded:
            return Grant(ask.key, ask.period, unseeded=now >= self._learned_at)
        used = account.used + sum(one.used + one.held for one in account.holds.values())
        free = max(0, account.amount() - used)
        granted = min(ask.need, free)
        if ask.need <= free:
            granted += min(ask.want, int((free - granted) * share / 2))
        hold.held += granted
        return Grant(ask.key, ask.period, granted, free - granted, mark=max(0, account.mark))

    def _slots(
        self, account: _Account, name: MemberId, hold: _Hold, share: float, ask: Ask, now: Seconds
    ) -> Grant | None:
        hold.used, hold.held, hold.floor, hold.wants, hold.amount = ask.used, ask.kept, ask.floor, ask.wants, ask.amount
        if ask.closing:
            del account.holds[name]
            return None
        amount = account.amount()
        left = sum(taken for _, taken in account.left)
        room = amount - left - sum(one.taken() for other, one in account.holds.items() if other != name)
        floor = max(0, min(int(amount * share / 2), room))
        most = ask.kept if now < self._learned_at else room
        granted = max(floor, min(self._target(account, amount - left, name), room, most))
        hold.held, hold.floor = max(ask.kept, granted), max(ask.floor, floor)
        return Grant(ask.key, granted=granted, level=max(0, room - granted), floor=floor)

    def _target(self, account: _Account, room: int, name: MemberId) -> int:
        """What the member would have if everybody gave back at once what others should have."""
        floors = {
            one: min(int(hold.amount * self._members[one].share / 2), room) for one, hold in account.holds.items()
        }
        spare = max(0, room - sum(floors.values()))
        targets = dict(floors)
        for rank in range(max(len(hold.wants) for hold in account.holds.values())):
            wanted = {one: sum(hold.wants[: rank + 1]) - targets[one] for one, hold in account.holds.items()}
            for one, extra in max_min(spare, wanted).items():
                targets[one] += extra
                spare -= extra
        return targets[name] + spare // (2 * len(account.holds))


def burst(amount: int) -> float:
    """What a minute's meter holds at most; at least 1, else nothing would ever pass."""
    return max(1.0, amount * BURST_S / MINUTE_S) if amount > 0 else 0.0


def _wait_s(lacking: float, rate: float) -> Seconds:
    return LONGEST_WAIT_S if rate <= 0 else min(LONGEST_WAIT_S, lacking / rate)
