"""What members and the ledger say to each other. A **member** is a gateway worker; the **ledger** is what they share.

A report carries absolute counts, not differences: one that is lost, or that arrives twice, changes nothing that the next one does
not put right. `turn` grows with each report of a member; the ledger passes over one that is not newer than the last.

What a member was granted and has not used is its **lease**. An account of a BUCKET or BUDGET at the ledger, for one member:
`used` so far and `held` (its lease). A report says `used` and `kept`; whatever was held and was neither used since nor is kept
goes back: free += held − (used − used before) − kept. So a grant whose reply was lost goes back with the next report by itself.
"""

import enum
from collections.abc import Sequence
from typing import NewType, Protocol

import msgspec

from spillway.core.clock import Seconds
from spillway.core.errors import SpillwayError

MemberId = NewType("MemberId", str)


class LedgerError(SpillwayError):
    """The ledger cannot be asked now. `gone`: nobody can ask it (its host says that nothing listens); else it may be us who are cut
    off. `may_count`: the report may have reached it, or may yet."""

    def __init__(self, message: str, *, gone: bool = False, may_count: bool = True) -> None:
        super().__init__(message)
        self.gone = gone
        self.may_count = may_count


class Kind(enum.StrEnum):
    BUCKET = "bucket"  # a minute's meter: refills with time
    BUDGET = "budget"  # a day's or a month's: what is left of it is left until it ends
    SLOTS = "slots"  # requests at once: of a pool, or of a meter in flight


class LedgerTimes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member reports every `report_s`. Slots that it was granted are good for `lease_s`; from `grace_s` without a report the ledger
    keeps the member's floor free for it, until `forget_s`; by its own clock the member stops at `stop_s`. The slots that a forgotten member had come back
    `longest_s` (the longest request) after its lease ended. A ledger that has lost its memory gives out floors only for `learn_s`.
    A request waits at most `wait_s` for an answer of the ledger; records of usage are in the store within `settle_s`."""

    report_s: Seconds = 1.0
    lease_s: Seconds = 5.0
    grace_s: Seconds = 2.5
    stop_s: Seconds = 50.0
    forget_s: Seconds = 60.0
    learn_s: Seconds = 60.0
    longest_s: Seconds = 120.0
    settle_s: Seconds = 5.0
    timeout_s: Seconds = 1.0
    wait_s: Seconds = 0.25


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a member says of one meter or pool. `amount`: the whole limit (of a BUCKET: a minute's).

    BUCKET, BUDGET: `used` since the member opened this account, only grows; `kept` of the lease; `need`: what waiting requests lack
    beyond `kept`; `largest`: the largest one of these; `want`: what would be good to have beyond `need`. `period`: a BUDGET's, such as 2026-11-26 or 2026-11; else empty.
    SLOTS: `used`: in use now; `kept`: the slots that it takes for granted; `floor`: those that it takes for its floor; `wants`:
    wanted in all by priority, the most urgent first, what is in use included.
    `closing`: the member is done with it and gives everything back; if it opens it again, `used` begins at 0.
    """

    key: str
    kind: Kind
    amount: int
    period: str = ""
    used: int = 0
    kept: int = 0
    need: int = 0
    want: int = 0
    largest: int = 0
    floor: int = 0
    wants: tuple[int, ...] = ()
    closing: bool = False


class Report(msgspec.Struct, frozen=True, tag=True):
    """`share`: the part of every limit (0–1) that the member takes for its floor, by the last reply; 0: none yet. `leaving`: it
    ends; what it had of accounts that it does not close counts as used."""

    member: MemberId
    turn: int
    share: float
    asks: tuple[Ask, ...] = ()
    leaving: bool = False


class Grant(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """BUCKET, BUDGET: `granted` beyond what was kept; `level`: what is left for anybody after that; `retry_s`: when the rest of `need` will be
    there, as far as one can say (0: it was granted). SLOTS: `granted`: the slots that the member may use, in all; `floor`: of those,
    the ones that stay when it is cut off. `unseeded`: the ledger does not know what was used of this period: nothing is granted
    until somebody `seed`s it. `mark` above 0: somebody ended without settling: seed it with this mark, `settle_s` from now."""

    key: str
    period: str = ""
    granted: int = 0
    level: int = 0
    retry_s: Seconds = 0.0
    floor: int = 0
    unseeded: bool = False
    mark: int = 0


class Reply(msgspec.Struct, frozen=True, tag=True):
    """To the report of the same `turn`. `members`: how many share. A reply to an old report is passed over by the member."""

    turn: int
    share: float
    members: int
    learning: bool
    grants: tuple[Grant, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Instead of a reply: the ledger could not be asked. `may_count`: the report may have reached it, or may yet."""

    turn: int
    gone: bool
    may_count: bool = True


class Seed(msgspec.Struct, frozen=True, array_like=True):
    """What usage records say was used of a budget in this period. With the `mark` of a grant, read `settle_s` after it: settles
    what members held that ended. Never lowers what members that are there say themselves."""

    key: str
    period: str
    used: int
    mark: int = 0


class Ledger(Protocol):
    """What all members share: this host's parent alone, or a Valkey for many hosts. Either call may raise LedgerError."""

    async def report(self, report: Report) -> Reply: ...
    async def seed(self, seeds: Sequence[Seed]) -> None: ...
    async def close(self) -> None: ...
