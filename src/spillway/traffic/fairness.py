"""Who has been served how much: virtual token counters (Sheng et al., OSDI 2024), nested and weighted.

Rules
- One tree of accounts for each (model, priority): organization → tenant → end user. A tenant without an organization stands
  beside the organizations. All routes of the model share it, so nobody gains a second share by a second policy.
- `served` grows by work / weight when a request is sent out of the waiting room, by the estimate, and is put right by what the
  request really took (`Charge.settle`). What is sent without waiting is not counted: it took from nobody.
- Whoever begins to wait is lifted to the floor of its siblings (`served` of the last one whose turn came, as it was before that
  turn), so having been away is no credit. What was overcharged before that is paid back down to the floor only.
- An account is idle when nothing of it waits or runs with a charge. It is forgotten once the floor has passed it; of those that
  owe more, as many are kept as are not idle and a few. So memory is O(what waits or runs with a charge).

Counters are whole numbers of 1/1024 work tokens: they add up exactly and never have to be rebased.

The bound. Let i and j wait all through an interval, c be their counters, F what of them runs (as charged), w one charge, all
divided by weights. i is sent only while c_i ≤ c_j, so c_i − c_j ≤ w_i at any time, and as what was really served is c − F,
|served_i − served_j| ≤ max(w_i + F_j, w_j + F_i): twice that for an interval, for it has two ends. Whatever is wrong with the
estimates is in F, and gone when the request ends. A newcomer is never sent past its own priority's lane, so what goes uncharged
is never work of a flow that waits.
"""

from typing import Protocol

from spillway.core.ids import OrganizationId, TenantId
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import FairnessRules

SCALE = 1 << 10  # parts of a work token
KEPT = 8  # idle accounts with a debt that a group remembers beside as many as are not idle
LEAD = 16  # times the largest charge: how far what happens in one lane may set back somebody in another

Name = str | tuple[str]  # of an account among its siblings; a tuple: a tenant beside organizations


class Place(Protocol):
    """Where an account waits in one lane."""

    def moved_up(self, entry: int) -> None:
        """The account has been served less than it was thought. `entry`: a fresh number."""
        ...


class Account:
    """What one organization, tenant or end user was served, among its siblings.

    `active`: its children that are not idle; of an end user, its requests that run with a charge.
    """

    __slots__ = ("active", "children", "floor", "name", "parent", "places", "served", "since", "weight")

    def __init__(self, name: Name, parent: "Account | None", weight: float) -> None:
        self.name = name
        self.parent = parent
        self.weight = weight
        self.served = 0
        self.floor = 0  # of its children
        self.active = 0
        self.since = 0  # the charge that was the last when it began to wait
        self.places: tuple[Place, ...] = ()
        self.children: dict[Name, Account] = {}

    def part(self, work: int) -> int:
        """Work in virtual time, of either sign."""
        return work if self.weight == 1.0 else int(work / self.weight)

    @property
    def idle(self) -> bool:
        return not self.active and not self.places

    def rest(self) -> None:
        """Something of it has ended: whoever is idle now may be forgotten."""
        account = self
        while (parent := account.parent) is not None and not account.active and not account.places:
            account.children.clear()
            parent.active -= 1
            if account.served <= parent.floor:
                del parent.children[account.name]
            elif len(parent.children) > 2 * parent.active + KEPT:
                parent.forget()
            account = parent

    def forget(self) -> None:
        """The half of its idle children that owe least."""
        idle = sorted((child for child in self.children.values() if child.idle), key=_served)
        for child in idle[: (len(idle) + 1) // 2]:
            del self.children[child.name]

    def __len__(self) -> int:
        """Accounts below this one. For tests and gauges: it walks all of them."""
        return len(self.children) + sum(len(child) for child in self.children.values())


def _served(account: Account) -> int:
    return account.served


class Counters:
    """All accounts of a (model, priority). `lanes`: how many lanes share them; `count`: charges and entries made so far."""

    __slots__ = ("count", "lanes", "largest", "root", "rules")

    def __init__(self, rules: FairnessRules) -> None:
        self.rules = rules
        self.root = Account("", None, 1.0)
        self.count = 0
        self.lanes = 0
        self.largest = 0  # charge, in virtual time

    def configure(self, rules: FairnessRules) -> None:
        """New weights, for what is charged from now on."""
        self.rules = rules
        for account in self.root.children.values():
            account.weight = self._weight(account.name, account.parent)
            for child in account.children.values():
                child.weight = self._weight(child.name, account)

    def work(self, input_tokens: int, output_tokens: int) -> int:
        """In 1/1024 work tokens, at least one work token: a request without an estimate still is a turn."""
        rules = self.rules
        work = int(SCALE * (rules.input_weight * input_tokens + rules.output_weight * output_tokens))
        return work if work > SCALE else SCALE

    def account(self, parent: Account, name: Name) -> Account:
        """The child of this name, made if there is none, and counted among those that are not idle: the caller must give it a
        place or a charge."""
        account = parent.children.get(name)
        if account is None:
            account = parent.children[name] = Account(name, parent, self._weight(name, parent))
            parent.active += 1
        elif account.idle:
            parent.active += 1
        return account

    def number(self) -> int:
        self.count += 1
        return self.count

    @property
    def lead(self) -> int:
        return LEAD * self.largest

    def _weight(self, name: Name, parent: Account | None) -> float:
        rules = self.rules
        if isinstance(name, tuple):
            return rules.tenants.get(TenantId(name[0]), 1.0)
        if parent is self.root:
            return rules.organizations.get(OrganizationId(name), 1.0)
        if parent is not None and parent.parent is self.root and not isinstance(parent.name, tuple):
            return rules.tenants.get(TenantId(name), 1.0)
        return 1.0


def path_of(arrived: Arrived) -> tuple[Name, ...]:
    """The names of its accounts from the top: (organization, tenant, end user), or ((tenant,), end user)."""
    organization = arrived.organization
    return (organization, arrived.tenant, arrived.user) if organization else ((arrived.tenant,), arrived.user)


class Charge:
    """The work of one request in the books: estimated when it begins to wait, charged when it is sent, settled when it is over.

    `account`: the end user's, while it is charged.
    """

    __slots__ = ("account", "counters", "number", "work")

    def __init__(self, counters: Counters, work: int) -> None:
        self.counters = counters
        self.work = work
        self.account: Account | None = None
        self.number = 0

    def settle(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> None:
        """The request is over; all three as measured, the cached ones a part of the input. Nothing known (0 and 0): the
        estimate stands. Does nothing if there is no charge."""
        if not input_tokens and not output_tokens:
            self._correct(0)
        else:
            self._correct(self.counters.work(max(0, input_tokens - cached_tokens), output_tokens) - self.work)

    def cancel(self) -> None:
        """It never ran. Does nothing if there is no charge."""
        self._correct(-self.work)

    def _correct(self, work: int) -> None:
        user = account = self.account
        if user is None or account is None:
            return
        self.account = None
        if work:
            while (parent := account.parent) is not None:
                served = account.served + account.part(work)
                if work < 0 and self.number < account.since:
                    served = max(served, min(account.served, parent.floor))
                account.served = served
                if work < 0:
                    for place in account.places:
                        place.moved_up(self.counters.number())
                account = parent
        user.active -= 1
        user.rest()
