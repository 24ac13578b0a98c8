"""Seeded tenants: there with a key each, whose secret follows from the number; seeding twice changes nothing."""

import asyncio
from pathlib import Path

from spillway.store.minting import digest_of
from spillway.store.opening import Stores
from spillway.store.seeding import seed, seeded_secret
from spillway.store.settings import Settings
from spillway.testing.rng import SeededRng

SEAL = b"s" * 32


def test_each_tenant_has_a_key_that_is_known(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Stores(Settings(), tmp_path) as stores:
            for _ in range(2):
                await seed(stores.database, SEAL, 250, SeededRng)
            digest = digest_of(seeded_secret(249, SEAL, SeededRng).encode(), SEAL)
            assert digest is not None
            (identity,) = await stores.keys.identities([digest])
            assert identity.key.tenant == "seeded-t249"
            assert identity.organization is not None
            assert identity.organization.id == "seeded-o2"
            assert len(await stores.tenants.rows(limit=1000)) == 250

    asyncio.run(scenario())
