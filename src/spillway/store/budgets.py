"""What usage records say was used of budgets: for a ledger that does not know, or no longer."""

from collections.abc import Sequence

from spillway.quota.periods import Past, past_of
from spillway.quota.rules import Unit
from spillway.store.ports import UsageStore
from spillway.store.rows import UsageScope, Used


class Budgets:
    """`app.ledger_post.Records`. Of an end user nothing is kept by name: 0."""

    def __init__(self, usage: UsageStore) -> None:
        self._usage = usage

    async def used(self, budgets: Sequence[tuple[str, str]]) -> list[int]:
        """In each budget's unit. Of a key or period that is none's: 0. Raises StoreError."""
        pasts = [_past(key, period) for key, period in budgets]
        known = [past for past in pasts if past is not None]
        found = iter(await self._usage.used([_scope(past) for past in known]))
        return [0 if past is None else _in_unit(next(found), past.unit) for past in pasts]


def _past(key: str, period: str) -> Past | None:
    try:
        return past_of(key, period)
    except ValueError:
        return None


def _scope(past: Past) -> UsageScope:
    return UsageScope(past.from_s, past.until_s, past.tenant, past.organization, past.model)


def _in_unit(used: Used, unit: Unit) -> int:
    match unit:
        case Unit.REQUESTS:
            return used.requests
        case Unit.TOKENS:
            return used.tokens
        case Unit.NANO_USD:
            return used.nano_usd
        case Unit.IN_FLIGHT:
            return 0
