"""Millions of tenants with a key each, straight into a database that no gateway has open: for load tests. Secrets follow from the number, so
that a test knows them; such a database is good for nothing else."""

from collections.abc import Callable, Iterator

from spillway.core.ids import OrganizationId, TenantId
from spillway.core.rng import Rng
from spillway.store.columns import key_values, organization_values, tenant_values
from spillway.store.database import Connection, Database, Value
from spillway.store.minting import mint
from spillway.store.rows import OrganizationRow, TenantRow
from spillway.store.statements import statements

BATCH = 5000  # tenants in a transaction
TENANTS_OF_ONE = 100  # of an organization
PREFIX = "seeded"


RngOf = Callable[[int], Rng]
"""The randomness of the tenant with a number: always the same."""


def seeded_secret(number: int, seal: bytes, rng_of: RngOf) -> str:
    """The key of the tenant with this number."""
    return mint(rng_of(number), seal, now_s=1.0, tenant=TenantId(""))[1]


async def seed(database: Database, seal: bytes, count: int, rng_of: RngOf, *, plan: str | None = None) -> None:
    """Tenants 0 … `count` - 1, a hundred of them an organization. Those that are there already are left as they are."""
    tenants, keys = statements("tenants"), statements("keys")
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))

        def work(connection: Connection, numbers: range = numbers) -> None:
            connection.execute_rows(tenants["put_organization"], list(_organizations(numbers)))
            connection.execute_rows(tenants["put"], list(_tenants(numbers, plan)))
            add = keys["add"].replace(";", "") + " ON CONFLICT (id) DO NOTHING"
            connection.execute_rows(add, list(_keys(numbers, seal, rng_of)))

        await database.write(work)


def _organizations(numbers: range) -> Iterator[dict[str, Value]]:
    for number in sorted({number // TENANTS_OF_ONE for number in numbers}):
        yield organization_values(
            OrganizationRow(_organization(number), PREFIX, None, None, suspended=False, created_at_s=1.0)
        )


def _tenants(numbers: range, plan: str | None) -> Iterator[dict[str, Value]]:
    for number in numbers:
        organization = _organization(number // TENANTS_OF_ONE)
        yield tenant_values(
            TenantRow(_tenant(number), organization, PREFIX, plan, None, None, suspended=False, created_at_s=1.0)
        )


def _keys(numbers: range, seal: bytes, rng_of: RngOf) -> Iterator[dict[str, Value]]:
    for number in numbers:
        yield key_values(mint(rng_of(number), seal, now_s=1.0, tenant=_tenant(number), name=PREFIX)[0])


def _organization(number: int) -> OrganizationId:
    return OrganizationId(f"{PREFIX}-o{number}")


def _tenant(number: int) -> TenantId:
    return TenantId(f"{PREFIX}-t{number}")
