"""Which use of the past a budget is about: a meter's key and a period, taken apart. The reverse of `rules.specs_of` and `calendar`."""

import datetime
from urllib.parse import unquote

import msgspec

from spillway.core.clock import Seconds
from spillway.core.ids import ModelName, OrganizationId, TenantId
from spillway.quota.rules import METERS, Unit


class Past(msgspec.Struct, frozen=True):
    """From `from_s` until `until_s`, in Unix time: a UTC day or month. Of a tenant or of an organization; of one model, or of all."""

    unit: Unit
    from_s: Seconds
    until_s: Seconds
    tenant: TenantId | None = None
    organization: OrganizationId | None = None
    model: ModelName | None = None


def past_of(key: str, period: str) -> Past | None:
    """None: of an end user's, of which nothing is kept. ValueError for what is no budget's."""
    kind, name, *rest, meter = key.split("/")
    unit = next((unit for known, unit, _ in METERS if known == meter), None)
    if unit is None or kind not in ("o", "t") or len(rest) not in (0, 2):
        raise ValueError(f"{key} is no meter's key")
    if rest and rest[0] == "u":
        return None
    from_s, until_s = _bounds(period)
    named = unquote(name)
    return Past(
        unit,
        from_s,
        until_s,
        tenant=TenantId(named) if kind == "t" else None,
        organization=OrganizationId(named) if kind == "o" else None,
        model=ModelName(unquote(rest[1])) if rest else None,
    )


def _bounds(period: str) -> tuple[Seconds, Seconds]:
    """Of 2026-11-26, or of 2026-11."""
    year, month, *day = (int(part) for part in period.split("-"))
    begin = datetime.datetime(year, month, day[0] if day else 1, tzinfo=datetime.UTC)
    following = begin + datetime.timedelta(days=1 if day else 32)
    return begin.timestamp(), (following if day else following.replace(day=1)).timestamp()
