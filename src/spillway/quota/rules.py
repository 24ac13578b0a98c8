"""Quotas as operators write them, and the meters they come to.

A quota bounds an organization, a tenant or each of a tenant's end users, over all models and per model. Each number in it is one
**meter**: what is counted (requests, tokens, dollars, requests in flight) over which span. Meters of a minute are token buckets that
refill at limit/60 per second and hold at most limit/6 (BURST_S seconds' worth); those of a day and a month begin anew with the UTC calendar.
"""

import enum
from typing import Annotated
from urllib.parse import quote

import msgspec

from spillway.core.ids import ModelName, OrganizationId, TenantId

MINUTE_S = 60.0
BURST_S = 10.0  # a minute's meter holds so many seconds' worth
NANO_USD = 1_000_000_000
MAX_AMOUNT = 1_000_000_000_000_000  # of requests and tokens: sums stay exact in a double, which is what the shared store counts in
MAX_USD = 5_000_000.0

_Amount = Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
_Usd = Annotated[float, msgspec.Meta(ge=0, le=MAX_USD)]


class Unit(enum.StrEnum):
    REQUESTS = "requests"
    TOKENS = "tokens"  # input and output
    NANO_USD = "nano_usd"
    IN_FLIGHT = "in_flight"


class Span(enum.StrEnum):
    MINUTE = "minute"  # a bucket
    DAY = "day"  # by the UTC calendar
    MONTH = "month"
    NOW = "now"  # what runs


class Bounds(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Null: not bounded. 0: nothing at all."""

    requests_per_minute: _Amount | None = None
    requests_per_day: _Amount | None = None
    tokens_per_minute: _Amount | None = None
    tokens_per_day: _Amount | None = None
    in_flight: _Amount | None = None
    usd_per_day: _Usd | None = None
    usd_per_month: _Usd | None = None


class Quota(Bounds, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`models`: beside the bounds over all models. `each_user`: of each end user of a tenant; says nothing for an organization."""

    models: dict[ModelName, Bounds] = {}
    each_user: Bounds | None = None


class Owner(msgspec.Struct, frozen=True):
    """Whom a request counts for: what is known of its key's tenant, as the meters need it. Null: no quota."""

    tenant: TenantId
    organization: OrganizationId = OrganizationId("")
    tenant_quota: Quota | None = None
    organization_quota: Quota | None = None


class MeterSpec(msgspec.Struct, frozen=True):
    """One number of a quota. `key` names it in the shared store; its period (a day, a month) is not part of it."""

    key: str
    unit: Unit
    span: Span
    amount: int  # requests, tokens, nano-dollars, requests in flight


METERS: tuple[tuple[str, Unit, Span], ...] = (
    ("requests_per_minute", Unit.REQUESTS, Span.MINUTE),
    ("requests_per_day", Unit.REQUESTS, Span.DAY),
    ("tokens_per_minute", Unit.TOKENS, Span.MINUTE),
    ("tokens_per_day", Unit.TOKENS, Span.DAY),
    ("in_flight", Unit.IN_FLIGHT, Span.NOW),
    ("usd_per_day", Unit.NANO_USD, Span.DAY),
    ("usd_per_month", Unit.NANO_USD, Span.MONTH),
)


def specs_of(owner: Owner, model: ModelName, user: str) -> tuple[MeterSpec, ...]:
    """Every meter that a request of this owner for this model, by this end user (a digest; empty: not told), must pass."""
    found: list[MeterSpec] = []
    if owner.organization_quota is not None:
        found += _of_quota(f"o/{_named(owner.organization)}", owner.organization_quota, model)
    quota = owner.tenant_quota
    if quota is not None:
        scope = f"t/{_named(owner.tenant)}"
        found += _of_quota(scope, quota, model)
        if quota.each_user is not None and user:
            found += _of_bounds(f"{scope}/u/{user}", quota.each_user)
    return tuple(found)


def _of_quota(scope: str, quota: Quota, model: ModelName) -> list[MeterSpec]:
    own = quota.models.get(model)
    return _of_bounds(scope, quota) + ([] if own is None else _of_bounds(f"{scope}/m/{_named(model)}", own))


def _named(name: str) -> str:
    """Names may hold slashes; what is between two slashes of a key is one name."""
    return quote(name, safe="")


def _of_bounds(scope: str, bounds: Bounds) -> list[MeterSpec]:
    found: list[MeterSpec] = []
    for name, unit, span in METERS:
        amount = getattr(bounds, name)
        if amount is not None:
            whole = round(amount * NANO_USD) if unit is Unit.NANO_USD else amount
            found.append(MeterSpec(f"{scope}/{name}", unit, span, whole))
    return found
