"""The fairness bound, by the audit's own books: what two siblings were served while both waited differs by no more than twice one
request and what runs (Sheng et al., OSDI 2024).

Served: the work of what was sent from the waiting room, as estimated, and as it really was from its end on. For each pair of
siblings that wait, the range of the difference since both began to wait is kept: it bounds every interval within.
"""

from spillway.core.ids import RequestId
from spillway.traffic.events import Arrived
from spillway.traffic.fleet import FairnessRules


class _Account:
    __slots__ = ("paths", "running", "served", "waiting", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.served = 0.0  # work / weight
        self.running = 0.0  # of it: charged for what runs
        self.waiting = 0
        self.paths: dict[str, list[float]] = {}  # by sibling: least and most of the difference, and slack


class Evenness:
    """Of one group of siblings: the organizations of a model and priority, the tenants of one organization, its end users."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.accounts: dict[str, _Account] = {}
        self.largest = 0.0  # request / weight
        self.most_running = 0.0  # of one account
        self.widest = 0.0  # difference seen, as a part of the bound
        self.pairs = 0

    def waits(self, who: str, weight: float) -> None:
        account = self.accounts.get(who)
        if account is None:
            account = self.accounts[who] = _Account(weight)
        account.waiting += 1
        if account.waiting > 1:
            return
        for other_name, other in self.accounts.items():
            if other is not account and other.waiting:
                apart = account.served - other.served
                self.pairs += 1
                account.paths[other_name] = [apart, apart, 0.0]
                other.paths[who] = [-apart, -apart, 0.0]

    def waits_no_more(self, who: str) -> None:
        account = self.accounts[who]
        account.waiting -= 1
        if account.waiting:
            return
        for other in account.paths:
            self.accounts[other].paths.pop(who, None)
        account.paths.clear()
        self._forget(who, account)

    def interrupt(self) -> None:
        """Who waits is about to be told again: intervals end here, what was served and what runs stays."""
        for who, account in list(self.accounts.items()):
            account.waiting = 0
            account.paths.clear()
            self._forget(who, account)

    def sent(self, who: str, work: float, weight: float, *, in_turn: bool) -> None:
        """Before it stops waiting. Not `in_turn`: it came back after a failed attempt, and goes first."""
        account = self.accounts.get(who)
        if account is None:
            account = self.accounts[who] = _Account(weight)
        part = work / account.weight
        account.running += part
        self.largest = max(self.largest, part)
        self.most_running = max(self.most_running, account.running)
        self._moves(who, account, part, slack=0.0 if in_turn else part)

    def ended(self, who: str, charged: float, actual: float) -> None:
        account = self.accounts[who]
        account.running -= charged / account.weight
        took = actual / account.weight  # what ran was this much, though nobody knew
        self.largest = max(self.largest, took)
        self.most_running = max(self.most_running, account.running + took)
        self._moves(who, account, (actual - charged) / account.weight, slack=0.0)
        self._forget(who, account)

    def _moves(self, who: str, account: _Account, part: float, *, slack: float) -> None:
        account.served += part
        bound = 2.0 * (self.largest + self.most_running)
        for other_name, path in account.paths.items():
            back = self.accounts[other_name].paths[who]
            apart = account.served - self.accounts[other_name].served
            path[0], path[1], path[2] = min(path[0], apart), max(path[1], apart), path[2] + slack
            back[0], back[1], back[2] = -path[1], -path[0], path[2]
            allowed = bound + path[2]
            self.widest = max(self.widest, (path[1] - path[0]) / allowed)
            assert path[1] - path[0] <= allowed + 1e-6, (
                f"unfair in {self.name}: {path[1] - path[0]:.0f} of {allowed:.0f}"
            )

    def _forget(self, who: str, account: _Account) -> None:
        if not account.waiting and account.running <= 1e-9:
            del self.accounts[who]


class Books:
    """All groups of one (model, priority): a request is in one of its organizations, of its tenants and of its end users."""

    def __init__(self, rules: FairnessRules) -> None:
        self.rules = rules
        self.groups: dict[tuple[str, ...], Evenness] = {}
        self.charged: dict[RequestId, tuple[float, tuple[_Seat, ...]]] = {}

    def interrupt(self) -> None:
        for group in self.groups.values():
            group.interrupt()

    def waits(self, arrived: Arrived) -> None:
        for group, who, weight in self._seats(arrived):
            group.waits(who, weight)

    def waits_no_more(self, arrived: Arrived) -> None:
        for group, who, _ in self._seats(arrived):
            group.waits_no_more(who)

    def sent(self, arrived: Arrived, *, in_turn: bool) -> None:
        """Out of the waiting room. A further attempt is not charged again."""
        if arrived.request in self.charged:
            return
        work, seats = self._work(arrived.input_tokens, arrived.output_tokens), self._seats(arrived)
        self.charged[arrived.request] = work, seats
        for group, who, weight in seats:
            group.sent(who, work, weight, in_turn=in_turn)

    def ended(self, request: RequestId, tokens: tuple[int, int] | None) -> None:
        """`tokens`: input and output that it took; (0, 0): not known, None: it ran nowhere."""
        charge = self.charged.pop(request, None)
        if charge is None:
            return
        work, seats = charge
        actual = 0.0 if tokens is None else self._work(*tokens) if any(tokens) else work
        for group, who, _ in seats:
            group.ended(who, work, actual)

    def _work(self, input_tokens: int, output_tokens: int) -> float:
        return max(1.0, self.rules.input_weight * input_tokens + self.rules.output_weight * output_tokens)

    def _seats(self, arrived: Arrived) -> "tuple[_Seat, ...]":
        organization, tenant, rules = arrived.organization, arrived.tenant, self.rules
        tenant_weight = rules.tenants.get(tenant, 1.0)
        user = self._group("users", organization, tenant), arrived.user, 1.0
        if not organization:
            return (self._group("organizations"), f"tenant {tenant}", tenant_weight), user
        top = self._group("organizations"), organization, rules.organizations.get(organization, 1.0)
        return top, (self._group("tenants", organization), tenant, tenant_weight), user

    def _group(self, *names: str) -> Evenness:
        group = self.groups.get(names)
        if group is None:
            group = self.groups[names] = Evenness(" ".join(names))
        return group


_Seat = tuple[Evenness, str, float]
