"""What operators ask of the parent: `api.ports.Operations` on its stores, its overview and its crew."""

import re
from typing import Protocol

import msgspec

from spillway.api.ports import (
    CreatedKey,
    HourUsage,
    KeyPage,
    KeyStatus,
    NewKey,
    Pools,
    PoolStatus,
    UsageAsk,
    UsagePage,
)
from spillway.app.overview import BREAKER_SEVERITY, Overview
from spillway.app.system import SystemClock, SystemRng
from spillway.config import Configuration
from spillway.core.errors import BadRequestError
from spillway.core.ids import EndpointUrl, KeyId, PoolName, RequestId, TenantId
from spillway.core.usage import UsageRecord
from spillway.store.minting import LONGEST_LIFE_S, mint
from spillway.store.opening import Stores
from spillway.store.rows import Audit, Grain, HourQuery, KeyRow
from spillway.store.watch import ChangeWatch
from spillway.traffic.effects import BreakerState
from spillway.traffic.events import DrainSet, LimitSet
from spillway.traffic.snapshot import PoolView

_NAME = re.compile(r"[!-~]{1,128}")


class Steered(Protocol):
    """The parent, as its operations see it."""

    configuration: Configuration
    overview: Overview
    stores: Stores
    keys: ChangeWatch
    seal: bytes
    clock: SystemClock
    rng: SystemRng

    def metrics(self) -> bytes: ...
    def operate(self, event: LimitSet | DrainSet) -> None: ...
    async def reload(self) -> str | None: ...


class ParentOperations:
    def __init__(self, parent: Steered) -> None:
        self._parent = parent

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

    def set_limit(self, pool: PoolName, limit: int | None) -> bool:
        if pool not in self._parent.configuration.pools:
            return False
        self._parent.operate(LimitSet(pool, limit))
        return True

    def set_draining(self, endpoint: EndpointUrl, draining: bool) -> bool:
        if not any(endpoint in pool.urls for pool in self._parent.configuration.pools.values()):
            return False
        self._parent.operate(DrainSet(endpoint, draining))
        return True

    async def reload(self) -> str | None:
        return await self._parent.reload()

    async def create_key(self, wanted: NewKey) -> CreatedKey:
        if not _NAME.fullmatch(wanted.tenant):
            raise BadRequestError("a tenant is a name of 1 to 128 visible ASCII characters", param="tenant")
        names = self._parent.configuration.public_names()
        unknown = sorted(set(wanted.models or ()) - names.keys())
        if unknown:
            raise BadRequestError(f"unknown model: {', '.join(unknown)}", param="models")
        if wanted.expires_in_s is not None and not 0 < wanted.expires_in_s <= LONGEST_LIFE_S:
            raise BadRequestError(
                f"expires_in_s must be above 0 and at most {LONGEST_LIFE_S:.0f}", param="expires_in_s"
            )
        now_s = self._parent.clock.wall()
        row, secret = mint(
            self._parent.rng,
            self._parent.seal,
            now_s=now_s,
            tenant=wanted.tenant,
            name=wanted.name,
            models=None if wanted.models is None else frozenset(names[model] for model in wanted.models),
            highest_priority=wanted.priority,
            expires_at_s=None if wanted.expires_in_s is None else now_s + wanted.expires_in_s,
        )
        await self._parent.stores.keys.add(row, self._audit("key.create", None, row))
        await self._parent.keys.refresh()
        return CreatedKey(key_status(row), secret)

    async def keys(self, tenant: TenantId | None, after: KeyId | None, limit: int) -> KeyPage:
        rows = await self._parent.stores.keys.rows(tenant=tenant, after=after, limit=limit)
        return KeyPage([key_status(row) for row in rows], rows[-1].id if len(rows) >= limit > 0 else None)

    async def revoke_key(self, key: KeyId) -> bool:
        row = await self._parent.stores.keys.row(key)
        if row is not None and row.revoked_at_s is None:
            ended = msgspec.structs.replace(row, revoked_at_s=self._parent.clock.wall())
            await self._parent.stores.keys.change(ended, self._audit("key.revoke", row, ended))
            await self._parent.keys.refresh()
        return row is not None

    def _audit(self, action: str, before: KeyRow | None, after: KeyRow) -> Audit:
        return Audit(
            at_s=self._parent.clock.wall(),
            actor="admin.token",
            action=action,
            target=after.id,
            organization=None,
            before=None if before is None else msgspec.json.encode(key_status(before)),
            after=msgspec.json.encode(key_status(after)),
        )

    async def usage(self, ask: UsageAsk) -> UsagePage:
        query = HourQuery(
            from_s=ask.from_s,
            until_s=ask.until_s,
            grain=Grain.POOL if ask.by_pool else Grain.TENANT,
            tenant=ask.tenant,
            cursor=ask.cursor,
            limit=ask.limit,
        )
        page = await self._parent.stores.usage.hours(query)
        hours = [
            HourUsage(
                r.hour_s, r.tenant, r.model, r.pool, r.requests, r.ok, r.spilled,
                r.prompt_tokens, r.cached_tokens, r.completion_tokens, r.cost_usd,
            )
            for r in page.rows
        ]  # fmt: skip
        return UsagePage(hours, page.next)

    async def usage_record(self, request: str) -> UsageRecord | None:
        return await self._parent.stores.usage.record(RequestId(request))


def key_status(row: KeyRow) -> KeyStatus:
    return KeyStatus(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        models=None if row.models is None else sorted(row.models),
        priority=row.highest_priority,
        created_at_s=row.created_at_s,
        expires_at_s=row.expires_at_s,
        revoked_at_s=row.revoked_at_s,
        last4=row.last4,
    )
