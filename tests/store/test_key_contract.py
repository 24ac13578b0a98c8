"""What stores of keys, tenants and organizations promise: the same suite on the database and on its twin in memory."""

import asyncio

import msgspec
import pytest
from tests.store.conftest import OpenShop

from spillway.core.errors import ClashError, StoreError
from spillway.core.ids import KeyId, ModelName, OrganizationId, PolicyName, TenantId
from spillway.core.priority import Priority
from spillway.quota.rules import Bounds, Quota
from spillway.store.rows import Audit, AuditRow, Change, Identity, KeyRow, OrganizationRow, Subject, TenantRow

ACME, STUDIO = TenantId("acme"), OrganizationId("studio")
AUDIT = Audit(7.0, "someone", "some.thing", "target", None, None, b'{"a":1}')


def key_row(key: str, **changes: object) -> KeyRow:
    row = KeyRow(
        id=KeyId(key), digest=key.encode(), tenant=ACME, name="ci", models=None,
        highest_priority=Priority.INTERACTIVE, created_at_s=100.0, expires_at_s=None, revoked_at_s=None, last4="wxyz",
    )  # fmt: skip
    return msgspec.structs.replace(row, **changes)


def tenant_row(tenant: str, **changes: object) -> TenantRow:
    row = TenantRow(TenantId(tenant), None, "A game", None, None, None, suspended=False, created_at_s=50.0)
    return msgspec.structs.replace(row, **changes)


def organization_row(organization: str, **changes: object) -> OrganizationRow:
    row = OrganizationRow(OrganizationId(organization), "A studio", None, None, suspended=False, created_at_s=40.0)
    return msgspec.structs.replace(row, **changes)


RICH_TENANT = tenant_row(
    "acme", organization=STUDIO, plan="gold", policy=PolicyName("ours"), suspended=True,
    quota=Quota(tokens_per_minute=5, models={ModelName("npc"): Bounds(usd_per_day=0.5)}, each_user=Bounds(in_flight=2)),
)  # fmt: skip


def test_a_key_is_kept_as_it_was_made(open_shop: OpenShop) -> None:
    rows = [
        key_row("key_a", models=frozenset({ModelName("npc"), ModelName("quest")}), expires_at_s=200.5),
        key_row("key_b", models=frozenset(), highest_priority=Priority.REALTIME, name="Zoë's"),
        key_row("key_c", policy=PolicyName("ours"), networks=("10.0.0.0/8", "::1/128"), successor=KeyId("key_b")),
    ]

    async def scenario() -> None:
        async with open_shop() as shop:
            for row in rows:
                await shop.keys.add(row, AUDIT)
            assert await shop.keys.rows() == rows
            assert [await shop.keys.row(row.id) for row in rows] == rows
            assert await shop.keys.row(KeyId("key_z")) is None

    asyncio.run(scenario())


@pytest.mark.parametrize("twin", [{"key": "key_a"}, {"key": "key_b", "digest": b"key_a"}])
def test_a_key_cannot_be_added_twice(open_shop: OpenShop, twin: dict[str, object]) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.keys.add(key_row("key_a"), AUDIT)
            with pytest.raises(StoreError):
                await shop.keys.add(key_row(**twin), AUDIT)  # pyright: ignore[reportArgumentType]
            assert len(await shop.keys.rows()) == 1
            assert (await shop.changes.latest()).changes == 1  # what failed left nothing behind
            assert len(await shop.audit.rows()) == 1

    asyncio.run(scenario())


def test_keys_come_in_pages_by_tenant_and_by_organization(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.organizations.put(organization_row("studio"), AUDIT)
            await shop.tenants.put(tenant_row("acme", organization=STUDIO), AUDIT)
            for number in range(5):
                await shop.keys.add(key_row(f"key_{number}", tenant=TenantId("acme" if number % 2 else "zeta")), AUDIT)
            first = await shop.keys.rows(limit=2)
            rest = await shop.keys.rows(after=first[-1].id)
            assert [row.id for row in first + rest] == [f"key_{number}" for number in range(5)]
            assert [row.id for row in await shop.keys.rows(tenant=ACME)] == ["key_1", "key_3"]
            assert await shop.keys.rows(tenant=ACME, after=KeyId("key_3")) == []
            assert [row.id for row in await shop.keys.rows(organization=STUDIO)] == ["key_1", "key_3"]
            assert await shop.keys.rows(organization=STUDIO, tenant=TenantId("zeta")) == []
            assert await shop.keys.rows(organization=OrganizationId("other")) == []

    asyncio.run(scenario())


def test_a_key_changes_but_for_what_proves_it(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.keys.add(key_row("key_a"), AUDIT)
            wanted = key_row("key_a", name="new", revoked_at_s=150.0, models=frozenset({ModelName("npc")}))
            before = key_row("key_a")
            assert await shop.keys.change(before, msgspec.structs.replace(wanted, digest=b"another"), AUDIT)
            assert await shop.keys.rows() == [wanted]
            assert not await shop.keys.change(key_row("key_z"), key_row("key_z"), AUDIT)
            with pytest.raises(ClashError):  # somebody else was first
                await shop.keys.change(before, key_row("key_a", name="newer"), AUDIT)
            assert await shop.keys.rows() == [wanted]
            assert len(await shop.audit.rows()) == 2

    asyncio.run(scenario())


def test_a_rotation_is_whole_or_not_at_all(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.keys.add(key_row("key_a"), AUDIT)
            old = key_row("key_a", expires_at_s=900.0, successor=KeyId("key_b"))
            was = key_row("key_a")
            assert not await shop.keys.rotate(key_row("key_z"), key_row("key_z"), key_row("key_b"), AUDIT)
            with pytest.raises(StoreError):
                await shop.keys.rotate(was, old, key_row("key_a"), AUDIT)
            assert await shop.keys.rows() == [was]
            assert await shop.keys.rotate(was, old, key_row("key_b"), AUDIT)
            assert await shop.keys.rows() == [old, key_row("key_b")]

    asyncio.run(scenario())


def test_identities_are_keys_with_whom_they_stand_for(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.organizations.put(organization_row("studio", plan="big"), AUDIT)
            await shop.keys.add(key_row("key_a"), AUDIT)
            await shop.tenants.put(RICH_TENANT, AUDIT)
            await shop.keys.add(key_row("key_b", tenant=TenantId("zeta"), revoked_at_s=3.0), AUDIT)
            found = await shop.keys.identities([b"key_b", b"key_a", b"nobody"])
            assert sorted(found, key=lambda one: one.key.id) == [
                Identity(key_row("key_a"), RICH_TENANT, organization_row("studio", plan="big")),
                Identity(
                    key_row("key_b", tenant=TenantId("zeta"), revoked_at_s=3.0),
                    tenant_row("zeta", name="", created_at_s=100.0),
                    None,
                ),
            ]
            assert await shop.keys.identities([]) == []

    asyncio.run(scenario())


def test_tenants_are_put_found_and_deleted_with_their_keys(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            with pytest.raises(StoreError):
                await shop.tenants.put(RICH_TENANT, AUDIT)  # before its organization
            assert await shop.audit.rows() == []
            await shop.organizations.put(organization_row("studio"), AUDIT)
            await shop.tenants.put(RICH_TENANT, AUDIT)
            await shop.tenants.put(tenant_row("zeta"), AUDIT)
            await shop.keys.add(key_row("key_a"), AUDIT)
            assert await shop.tenants.row(ACME) == RICH_TENANT
            assert [row.id for row in await shop.tenants.rows(limit=1)] == ["acme"]
            assert [row.id for row in await shop.tenants.rows(after=ACME)] == ["zeta"]
            assert [row.id for row in await shop.tenants.rows(organization=STUDIO)] == ["acme"]
            with pytest.raises(StoreError):
                await shop.organizations.delete(STUDIO, AUDIT)
            assert await shop.tenants.delete(ACME, AUDIT)
            assert not await shop.tenants.delete(ACME, AUDIT)
            assert [row.revoked_at_s for row in await shop.keys.rows()] == [AUDIT.at_s]
            assert await shop.organizations.delete(STUDIO, AUDIT)
            assert not await shop.organizations.delete(STUDIO, AUDIT)
            assert await shop.organizations.rows() == []

    asyncio.run(scenario())


def test_every_write_is_told_in_order(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            await shop.organizations.put(organization_row("studio"), AUDIT)
            await shop.tenants.put(RICH_TENANT, AUDIT)
            await shop.keys.add(key_row("key_a"), AUDIT)
            assert await shop.changes.since(0) == [
                Change(1, Subject.ORGANIZATION, "studio", b""),
                Change(2, Subject.TENANT, "acme", b""),
                Change(3, Subject.KEY, "key_a", b"key_a"),
            ]
            assert (await shop.changes.latest()).changes == 3
            await shop.changes.forget(keep=1)
            assert [one.number for one in await shop.changes.since(0)] == [3]
            await shop.tenants.put(RICH_TENANT, AUDIT)
            assert [one.number for one in await shop.changes.since(3)] == [4]

    asyncio.run(scenario())


def test_audits_come_newest_first_by_organization_and_target(open_shop: OpenShop) -> None:
    async def scenario() -> None:
        async with open_shop() as shop:
            ours = msgspec.structs.replace(AUDIT, organization=STUDIO, target="acme", before=b"{}", after=None)
            await shop.audit.note(AUDIT)
            await shop.audit.note(ours)
            await shop.audit.note(AUDIT)
            assert await shop.audit.rows(limit=2) == [AuditRow(3, AUDIT), AuditRow(2, ours)]
            assert await shop.audit.rows(before=2) == [AuditRow(1, AUDIT)]
            assert await shop.audit.rows(organization=STUDIO) == [AuditRow(2, ours)]
            assert await shop.audit.rows(target="target", before=3) == [AuditRow(1, AUDIT)]

    asyncio.run(scenario())
