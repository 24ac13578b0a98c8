"""What an organization's token sees: its organization's tenants, and what is theirs. All else is not there for it."""

from typing import Protocol

from spillway.api.ports import Caller
from spillway.app.system import SystemClock, SystemRng
from spillway.config import Configuration
from spillway.core.ids import OrganizationId, TenantId
from spillway.store.opening import Stores
from spillway.store.rows import Audit
from spillway.store.watch import ChangeWatch


class Steered(Protocol):
    """The parent, as its operations see it."""

    configuration: Configuration
    stores: Stores
    keys: ChangeWatch
    seal: bytes
    clock: SystemClock
    rng: SystemRng


class Scopes:
    def __init__(self, parent: Steered) -> None:
        self._parent = parent

    async def organization_of(self, tenant: TenantId) -> OrganizationId | None:
        """By the configuration, else by the store. None: it stands for itself."""
        row = await self._parent.stores.tenants.row(tenant)
        return self._parent.configuration.terms().organization_of(tenant, row) or None

    async def sees(self, caller: Caller, tenant: TenantId) -> bool:
        return caller.organization is None or await self.organization_of(tenant) == caller.organization

    def audit(
        self,
        caller: Caller,
        action: str,
        target: str,
        organization: OrganizationId | None,
        before: bytes | None,
        after: bytes | None,
    ) -> Audit:
        return Audit(self._parent.clock.wall(), caller.name, action, target, organization, before, after)
