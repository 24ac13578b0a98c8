"""What operators ask of the parent: `api.ports.Operations` on its stores, its overview and its crew."""

import logging
from typing import Protocol

import msgspec

from spillway.api.ports import (
    Caller,
    Callers,
    Customers,
    HourUsage,
    Keys,
    Pools,
    PoolStatus,
    Repeats,
    Tokens,
    UsageAsk,
    UsagePage,
)
from spillway.app import scopes
from spillway.app.customer_operations import CustomerOperations
from spillway.app.key_operations import KeyOperations
from spillway.app.overview import BREAKER_SEVERITY, Overview
from spillway.app.scopes import Scopes
from spillway.app.token_operations import KeptAnswers, TokenCallers, TokenOperations
from spillway.core.errors import StoreError
from spillway.core.ids import EndpointUrl, PoolName, RequestId
from spillway.core.usage import UsageRecord
from spillway.store.rows import Grain, HourQuery
from spillway.traffic.effects import BreakerState
from spillway.traffic.events import DrainSet, LimitSet
from spillway.traffic.snapshot import PoolView


class Steered(scopes.Steered, Protocol):
    """The parent, as its operations see it."""

    overview: Overview

    @property
    def log(self) -> logging.Logger: ...
    def metrics(self) -> bytes: ...
    def operate(self, event: LimitSet | DrainSet) -> None: ...
    async def reload(self) -> str | None: ...


class ParentOperations:
    def __init__(self, parent: Steered, first_token: str) -> None:
        """`first_token`: that of `HOME/admin.token`."""
        self._parent = parent
        self._scopes = Scopes(parent)
        self.callers: Callers = TokenCallers(parent, first_token)
        self.repeats: Repeats = KeptAnswers(parent)
        self.keys: Keys = KeyOperations(parent, self._scopes)
        self.customers: Customers = CustomerOperations(parent, self._scopes)
        self.tokens: Tokens = TokenOperations(parent, self._scopes)

    def pools(self) -> Pools:
        snapshot = self._parent.overview.snapshot()
        return Pools(
            pools=[self._status(pool) for pool in snapshot.pools],
            queues=list(snapshot.queues),
            models=list(snapshot.models),
            workers=self._parent.overview.workers,
        )

    def _status(self, pool: PoolView) -> PoolStatus:
        used_by = {
            name: tier
            for name, model in self._parent.configuration.models.items()
            for tier, names in enumerate(model.tiers, 1)
            if pool.name in names
        }
        breakers = (endpoint.breaker for endpoint in pool.endpoints)
        return PoolStatus(
            name=pool.name,
            cluster=pool.cluster,
            tier=min(used_by.values(), default=None),
            models=sorted(used_by),
            tiers=used_by,
            limit=pool.limit,
            configured_limit=pool.configured_limit,
            in_flight=pool.in_flight,
            load_index=pool.load_index,
            spill_share=pool.spill_share,
            foreign=pool.foreign,
            x_s=pool.x_s,
            y_s=pool.y_s,
            breaker=max(breakers, key=BREAKER_SEVERITY.__getitem__, default=BreakerState.CLOSED),
            endpoints=pool.endpoints,
        )

    def metrics(self) -> bytes:
        return self._parent.metrics()

    async def set_limit(self, caller: Caller, pool: PoolName, limit: int | None) -> bool:
        if pool not in self._parent.configuration.pools:
            return False
        self._parent.operate(LimitSet(pool, limit))
        await self._note(caller, "pool.limit", pool, {"limit": limit})
        return True

    async def set_draining(self, caller: Caller, endpoint: EndpointUrl, draining: bool) -> bool:
        if not any(endpoint in pool.urls for pool in self._parent.configuration.pools.values()):
            return False
        self._parent.operate(DrainSet(endpoint, draining))
        await self._note(caller, "endpoint.draining", endpoint, {"draining": draining})
        return True

    async def reload(self, caller: Caller) -> str | None:
        error = await self._parent.reload()
        await self._note(caller, "reload", "configuration", {"error": error})
        return error

    async def _note(self, caller: Caller, action: str, target: str, after: object) -> None:
        """What was done is done, also where it cannot be written down: to steer must not wait for the store."""
        audit = self._scopes.audit(caller, action, target, None, None, msgspec.json.encode(after))
        try:
            await self._parent.stores.audit.note(audit)
        except StoreError as error:
            self._parent.log.error("who steered is not in the audit log: %s", error, extra={"action": action})  # noqa: TRY400

    async def usage(self, caller: Caller, ask: UsageAsk) -> UsagePage | None:
        organization = ask.organization
        if caller.organization is not None:
            if ask.tenant is not None and not await self._scopes.sees(caller, ask.tenant):
                return None
            if organization not in (None, caller.organization):
                return None
            organization = None if ask.tenant is not None else caller.organization
        query = HourQuery(
            from_s=ask.from_s,
            until_s=ask.until_s,
            grain=Grain.POOL if ask.by_pool else Grain.TENANT,
            tenant=ask.tenant,
            organization=organization,
            cursor=ask.cursor,
            limit=ask.limit,
        )
        page = await self._parent.stores.usage.hours(query)
        hours = [
            HourUsage(
                r.hour_s, r.tenant, r.model, r.pool, r.requests, r.ok, r.spilled,
                r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.cost_usd, r.repeat_cost_usd,
            )
            for r in page.rows
        ]  # fmt: skip
        return UsagePage(hours, page.next)

    async def usage_record(self, caller: Caller, request: str) -> UsageRecord | None:
        record = await self._parent.stores.usage.record(RequestId(request))
        return record if record is not None and await self._scopes.sees(caller, record.tenant) else None
