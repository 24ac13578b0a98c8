"""Two thousand tenants with a key each, renewed all the time: a revoked key belongs to a tenant that never comes back."""

import asyncio
from typing import Any

import msgspec

from spillway.testing.rng import SeededRng
from tests.soak.serving import Gateway, decoded

AT_ONCE = 16


class Member(msgspec.Struct, frozen=True):
    key_id: str
    secret: str
    tenant: str


class Crowd:
    def __init__(self, gateway: Gateway, rng: SeededRng, size: int) -> None:
        self._gateway = gateway
        self._rng = rng
        self._size = size
        self._members: list[Member] = []
        self.created = 0
        self.revoked = 0

    async def gather(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def join() -> None:
            async with room:
                self._members.append(await self._create())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._size):
                tasks.create_task(join())

    def anyone(self) -> Member:
        """Some speak far more often than others, as tenants do."""
        return self._members[int(self._rng.random() ** 2 * len(self._members))]

    async def renew(self) -> None:
        """One leaves, one comes. What the leaving one has in flight may still end, or be refused."""
        joined = await self._create()
        place = int(self._rng.random() * len(self._members))
        left, self._members[place] = self._members[place], joined
        answer = await self._gateway.admin("DELETE", f"/admin/v1/keys/{left.key_id}")
        assert answer.status == 204, answer.body
        self.revoked += 1

    async def _create(self) -> Member:
        tenant = f"tenant-{self.created:06d}"
        self.created += 1
        made: Any = decoded(await self._gateway.admin("POST", "/admin/v1/keys", {"tenant": tenant}))
        return Member(made["key"]["id"], made["secret"], tenant)
