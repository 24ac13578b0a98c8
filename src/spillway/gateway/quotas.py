"""Quotas at the gateway: a request of a limited owner reserves what it may use, and settles what it used. Hot path.

What passes is decided by `quota.gate`; here are its timers, the way to the ledger, and what the client is told. Dollars are reserved for
the worst case, at the price of the model's dearest pool, so that a budget is not exceeded whatever the answers come to; tokens for
what is usual.
"""

import logging
import math
from collections.abc import Callable, Mapping

import msgspec

from spillway.core.clock import Clock, Seconds, Timer, Timers
from spillway.core.ids import ModelName, RequestId
from spillway.core.outcome import Outcome
from spillway.core.usage import Price, Usage
from spillway.quota.calendar import Calendar
from spillway.quota.charges import Answer, Charge, Refusal
from spillway.quota.gate import Gate
from spillway.quota.ledger import Failed, Reply, Report
from spillway.quota.open_meters import Claim
from spillway.quota.rules import MINUTE_S, NANO_USD, MeterSpec, Owner, Span, Unit, specs_of
from spillway.wire.envelope import Envelope

log = logging.getLogger(__name__)

MAX_CLAIMS = 65_536  # (tenant, model, end user) that are remembered; then all are forgotten
INPUT_MARGIN = 1.25  # a prompt's tokens are an estimate until the engine has counted them
NEVER_S: Seconds = math.inf
FREE = Price()
QUOTA_USED_UP = "insufficient_quota"
_NANO_PER_MTOK = NANO_USD // 1_000_000
_WHAT = (b"requests", b"tokens")
_LINES = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"

RefusalKind = tuple[str, str, str]
"""Unit, span, and why: `used`, or `cut_off`."""


class Told(msgspec.Struct, frozen=True):
    """A refusal as the client gets it. `retry_after_s` NEVER_S: coming back changes nothing."""

    outcome: Outcome
    message: str
    retry_after_s: Seconds
    code: str | None


class Reservation:
    """One request's. After `take` comes exactly one `settle`, also where it was refused."""

    __slots__ = ("_charge", "_claim", "_quotas", "_request")

    def __init__(self, quotas: "Quotas", request: RequestId, claim: Claim, charge: Charge) -> None:
        self._quotas = quotas
        self._request = request
        self._claim = claim
        self._charge = charge

    def take(self, answer: Answer) -> Refusal | bool | None:
        """None: it passes. False: `answer` is called later, within the ledger's `wait_s`."""
        return self._quotas.reserve(self._request, self._claim, self._charge, answer)

    def settle(self, *, dispatched: bool, usage: Usage, cost_usd: float) -> None:
        """What never reached an upstream used nothing, not even a request."""
        used = Charge(int(dispatched), usage.prompt_tokens + usage.completion_tokens, round(cost_usd * NANO_USD), 0)
        self._quotas.settle(self._request, used)

    def headers(self) -> bytes:
        """The `x-ratelimit-*` lines."""
        return self._quotas.headers(self._claim)


class Quotas:
    """Of one worker."""

    def __init__(
        self, gate: Gate, calendar: Calendar, clock: Clock, timers: Timers, send: Callable[[Report], None]
    ) -> None:
        """`send` carries a report to the ledger; `heard` gets what comes back."""
        self.gate = gate
        self.refusals: dict[RefusalKind, int] = {}
        self._calendar = calendar
        self._clock = clock
        self._timers = timers
        self._send = send
        self._prices: Mapping[ModelName, Price] = {}
        self._claims: dict[tuple[str, ModelName, str], tuple[Owner, Claim | None]] = {}
        self._timer: Timer | None = None
        self._timer_at: Seconds = 0.0

    def configure(self, prices: Mapping[ModelName, Price]) -> None:
        """`prices`: the dearest that a model may cost."""
        self._prices = prices

    def share_pool(self, name: str, amount: int, in_use: int, wants: tuple[int, ...]) -> int:
        """As `Gate.share_pool`."""
        now = self._clock.monotonic()
        slots = self.gate.share_pool(name, amount, in_use, wants, now)
        self._schedule(now)
        return slots

    def start(self) -> None:
        """Makes itself known to the ledger, and reports from now on."""
        self._schedule(self._clock.monotonic())

    def heard(self, answer: Reply | Failed) -> None:
        now = self._clock.monotonic()
        self.gate.heard(answer, now)
        self._schedule(now)

    def leave(self) -> None:
        """The last report. Nothing is asked of the ledger after it."""
        if self._timer is not None:
            self._timer.cancel()
        self._send(self.gate.leave(self._clock.monotonic()))

    # Requests

    def reservation(
        self, request: RequestId, owner: Owner, model: ModelName, user: str, asked: Envelope, input_tokens: int
    ) -> Reservation | None:
        """None: nothing limits it. `user`: a digest of the end user; empty: not told."""
        claim = self._claim_of(owner, model, user)
        if claim is None:
            return None
        nano_usd = self._most_nano_usd(model, asked, input_tokens) if claim.dollars else 0
        return Reservation(self, request, claim, Charge(1, input_tokens + asked.output_tokens_estimate, nano_usd))

    def _most_nano_usd(self, model: ModelName, asked: Envelope, input_tokens: int) -> int:
        price = self._prices.get(model, FREE)
        prompt = INPUT_MARGIN * input_tokens * price.input_usd_per_mtok
        return math.ceil((prompt + asked.output_tokens_most * price.output_usd_per_mtok) * _NANO_PER_MTOK)

    def reserve(self, request: RequestId, claim: Claim, charge: Charge, answer: Answer) -> Refusal | bool | None:
        now = self._clock.monotonic()
        found = self.gate.reserve(request, claim, charge, now, answer)
        if found is False:
            self._schedule(now)
        return found

    def settle(self, request: RequestId, used: Charge) -> None:
        self.gate.settle(request, used, self._clock.monotonic())

    def headers(self, claim: Claim) -> bytes:
        """Of the narrowest minute's limit of requests, and of tokens."""
        lines = b""
        for what, buckets in zip(_WHAT, self.gate.buckets(claim, self._clock.monotonic()), strict=True):
            if not buckets:
                continue
            least, left = buckets[0], buckets[0].left()
            for other in buckets[1:]:
                if (less := other.left()) < left:
                    least, left = other, less
            lines += _LINES % (what, least.spec.amount, what, left, what, _duration(least.full_s(left)))
        return lines

    def of(self, owner: Owner) -> bytes:
        """Header lines of what holds over all models."""
        claim = self._claim_of(owner, ModelName(""), "")
        return b"" if claim is None else self.headers(claim)

    def told(self, refusal: Refusal) -> Told:
        """What the client hears; counted here."""
        spec = refusal.spec
        kind = (spec.unit.value, spec.span.value, "cut_off" if refusal.cut_off else "used")
        self.refusals[kind] = self.refusals.get(kind, 0) + 1
        if refusal.cut_off:
            return Told(Outcome.UNAVAILABLE, "Your limits cannot be checked at the moment.", 1.0, None)
        if spec.span is Span.MINUTE or spec.span is Span.NOW:
            return Told(Outcome.RATE_LIMITED, _reached(spec), refusal.retry_s or MINUTE_S, None)
        if refusal.retry_s:
            return Told(Outcome.RATE_LIMITED, f"{_reached(spec)} by what runs now.", refusal.retry_s, None)
        left_s = self._calendar.left_s(spec.span)
        return Told(Outcome.RATE_LIMITED, _reached(spec), left_s if left_s <= MINUTE_S else NEVER_S, QUOTA_USED_UP)

    def _claim_of(self, owner: Owner, model: ModelName, user: str) -> Claim | None:
        quota = owner.tenant_quota
        if quota is None or quota.each_user is None:
            user = ""
        key = (owner.tenant, model, user)
        known = self._claims.get(key)
        if known is not None and _same(known[0], owner):
            return known[1]
        if len(self._claims) >= MAX_CLAIMS:
            self._claims.clear()
        specs = specs_of(owner, model, user)
        claim = Claim(specs) if specs else None
        self._claims[key] = (owner, claim)
        return claim

    # Time

    def _schedule(self, now: Seconds) -> None:
        at = self.gate.due_at
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._timers.call_at(self._timers.time() + max(0.0, at - now), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        self.gate.tick(now)
        report = self.gate.report(now)
        if report is not None:
            self._send(report)
        self._schedule(now)


def _same(one: Owner, other: Owner) -> bool:
    """Quotas that are equal are one object (`store.keyring`): a limit that changed is another one."""
    return one is other or (
        one.tenant_quota is other.tenant_quota
        and one.organization_quota is other.organization_quota
        and one.organization == other.organization
    )


def _reached(spec: MeterSpec) -> str:
    whose = "Your organization's" if spec.key.startswith("o/") else "This user's" if "/u/" in spec.key else "Your"
    of_model = " for this model" if "/m/" in spec.key else ""
    match spec.unit:
        case Unit.NANO_USD:
            return f"{whose} budget of ${spec.amount / NANO_USD:.2f} per {spec.span.value}{of_model} is used up"
        case Unit.IN_FLIGHT:
            return f"{whose} limit of {spec.amount} requests at once{of_model} is reached"
        case _:
            return f"{whose} limit of {spec.amount} {spec.unit.value} per {spec.span.value}{of_model} is reached"


def _duration(seconds: Seconds) -> bytes:
    """As the OpenAI API writes them: 12ms, 1.5s, 6m0s."""
    if seconds < 1.0:
        return b"%dms" % math.ceil(seconds * 1000)
    if seconds < 60.0:
        return b"%.3gs" % seconds
    return b"%dm%ds" % divmod(int(seconds), 60)
