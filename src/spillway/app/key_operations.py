"""Keys as the admin API sees them: `api.ports.Keys` on the stores."""

import ipaddress

import msgspec

from spillway.api.customer_shapes import CreatedKey, KeyChange, KeyPage, KeyStatus, NewKey
from spillway.api.ports import Caller
from spillway.app.scopes import Scopes, Steered
from spillway.core.clock import Seconds
from spillway.core.errors import BadRequestError
from spillway.core.ids import KeyId, ModelName, PolicyName, TenantId
from spillway.store.minting import mint
from spillway.store.rows import Audit, KeyRow


class KeyOperations:
    def __init__(self, parent: Steered, scopes: Scopes) -> None:
        self._parent = parent
        self._scopes = scopes

    async def create(self, caller: Caller, wanted: NewKey) -> CreatedKey | None:
        if not await self._scopes.sees(caller, wanted.tenant):
            return None
        now_s = self._parent.clock.wall()
        row, secret = mint(
            self._parent.rng,
            self._parent.seal,
            now_s=now_s,
            tenant=wanted.tenant,
            name=wanted.name,
            models=self._models(wanted.models),
            highest_priority=wanted.priority,
            expires_at_s=None if wanted.expires_in_s is None else now_s + wanted.expires_in_s,
            policy=self._policy(wanted.policy),
            networks=_networks(wanted.networks),
        )
        await self._parent.stores.keys.add(row, await self._audit(caller, "key.create", None, row))
        await self._parent.keys.refresh()
        return CreatedKey(key_status(row), secret)

    async def page(self, caller: Caller, tenant: TenantId | None, after: KeyId | None, limit: int) -> KeyPage:
        if tenant is not None and not await self._scopes.sees(caller, tenant):
            return KeyPage([], None)
        organization = caller.organization if tenant is None else None
        rows = await self._parent.stores.keys.rows(tenant=tenant, organization=organization, after=after, limit=limit)
        return KeyPage([key_status(row) for row in rows], rows[-1].id if len(rows) >= limit else None)

    async def one(self, caller: Caller, key: KeyId) -> KeyStatus | None:
        row = await self._row(caller, key)
        return None if row is None else key_status(row)

    async def change(self, caller: Caller, key: KeyId, change: KeyChange) -> KeyStatus | None:
        row = await self._row(caller, key)
        if row is None:
            return None
        changed = self._changed(row, change)
        known = await self._parent.stores.keys.change(
            row, changed, await self._audit(caller, "key.change", row, changed)
        )
        await self._parent.keys.refresh()
        return key_status(changed) if known else None

    async def rotate(self, caller: Caller, key: KeyId, overlap_s: Seconds) -> CreatedKey | None:
        row = await self._row(caller, key)
        if row is None:
            return None
        now_s = self._parent.clock.wall()
        if not row.is_live(now_s) or row.successor is not None:
            raise BadRequestError("a key that has ended, or was rotated before, cannot be rotated")
        new, secret = mint(
            self._parent.rng,
            self._parent.seal,
            now_s=now_s,
            tenant=row.tenant,
            name=row.name,
            models=row.models,
            highest_priority=row.highest_priority,
            expires_at_s=row.expires_at_s,
            policy=row.policy,
            networks=row.networks,
        )
        ends_at_s = now_s + overlap_s
        ends_at_s = ends_at_s if row.expires_at_s is None else min(ends_at_s, row.expires_at_s)
        old = msgspec.structs.replace(row, expires_at_s=ends_at_s, successor=new.id)
        known = await self._parent.stores.keys.rotate(row, old, new, await self._audit(caller, "key.rotate", old, new))
        await self._parent.keys.refresh()
        return CreatedKey(key_status(new), secret) if known else None

    async def revoke(self, caller: Caller, key: KeyId) -> bool:
        row = await self._row(caller, key)
        if row is not None and row.revoked_at_s is None:
            ended = msgspec.structs.replace(row, revoked_at_s=self._parent.clock.wall())
            await self._parent.stores.keys.change(row, ended, await self._audit(caller, "key.revoke", row, ended))
            await self._parent.keys.refresh()
        return row is not None

    async def _row(self, caller: Caller, key: KeyId) -> KeyRow | None:
        row = await self._parent.stores.keys.row(key)
        return row if row is not None and await self._scopes.sees(caller, row.tenant) else None

    def _changed(self, row: KeyRow, change: KeyChange) -> KeyRow:
        wanted: dict[str, object] = {}
        if change.name is not msgspec.UNSET:
            wanted["name"] = change.name
        if change.models is not msgspec.UNSET:
            wanted["models"] = self._models(change.models)
        if change.priority is not msgspec.UNSET:
            wanted["highest_priority"] = change.priority
        if change.expires_in_s is not msgspec.UNSET:
            in_s = change.expires_in_s
            wanted["expires_at_s"] = None if in_s is None else self._parent.clock.wall() + in_s
        if change.policy is not msgspec.UNSET:
            wanted["policy"] = self._policy(change.policy)
        if change.networks is not msgspec.UNSET:
            wanted["networks"] = _networks(change.networks)
        return msgspec.structs.replace(row, **wanted)

    def _models(self, models: list[ModelName] | None) -> frozenset[ModelName] | None:
        if models is None:
            return None
        names = self._parent.configuration.public_names()
        unknown = sorted(set(models) - names.keys())
        if unknown:
            raise BadRequestError(f"unknown model: {', '.join(unknown)}", param="models")
        return frozenset(names[model] for model in models)

    def _policy(self, policy: PolicyName | None) -> PolicyName | None:
        if policy is not None and policy not in self._parent.configuration.policies:
            raise BadRequestError(f"there is no policy {policy}", param="policy")
        return policy

    async def _audit(self, caller: Caller, action: str, before: KeyRow | None, after: KeyRow) -> Audit:
        return self._scopes.audit(
            caller,
            action,
            after.id,
            await self._scopes.organization_of(after.tenant),
            None if before is None else msgspec.json.encode(key_status(before)),
            msgspec.json.encode(key_status(after)),
        )


def _networks(networks: list[str]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise BadRequestError(f"no network: {error}", param="networks") from None
    return tuple(networks)


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
        policy=row.policy,
        networks=list(row.networks),
        successor=row.successor,
    )
