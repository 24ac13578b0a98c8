"""What a key stands for: the file's word goes before the store's, field by field."""

import pytest
from tests.store.shelf import minted

from spillway.core.ids import OrganizationId, PolicyName, TenantId
from spillway.quota.rules import Owner, Quota
from spillway.store.rows import OrganizationRow, TenantRow
from spillway.store.terms import OrganizationTerms, TenantTerms, Terms

ACME, OTHER, TENANT = OrganizationId("acme"), OrganizationId("other"), TenantId("tenant-1")
FREE, GOLD, OWN, THEIRS = (Quota(tokens_per_minute=number) for number in range(1, 5))
PLANS = {"free": FREE, "gold": GOLD}
HOME, AWAY = PolicyName("home"), PolicyName("away")
KEY = minted(1)[0]


def tenant(
    plan: str | None = None,
    quota: Quota | None = None,
    *,
    organization: OrganizationId | None = ACME,
    policy: PolicyName | None = None,
    suspended: bool = False,
) -> TenantRow:
    return TenantRow(TENANT, organization, "", plan, quota, policy, suspended, 1.0)


def organization(plan: str | None = None, quota: Quota | None = None, *, suspended: bool = False) -> OrganizationRow:
    return OrganizationRow(ACME, "", plan, quota, suspended, 1.0)


def test_of_a_tenant_nobody_speaks_of_the_key_alone_counts() -> None:
    principal = Terms().principal(KEY, None, None)
    assert (principal.key, principal.tenant, principal.organization, principal.policy) == (KEY.id, TENANT, "", "")
    assert (principal.owner, principal.suspended) == (None, False)


@pytest.mark.parametrize(
    ("said", "row", "default", "expected"),
    [
        (None, None, None, None),
        (None, None, "free", FREE),
        (None, tenant(), "free", FREE),
        (None, tenant("gold"), "free", GOLD),
        (None, tenant("gold", OWN), "free", OWN),
        (None, tenant("gone"), "free", FREE),
        (TenantTerms(), tenant("gold"), "free", GOLD),
        (TenantTerms(plan="free"), tenant("gold", OWN), None, FREE),
        (TenantTerms(plan="free", quota=THEIRS), tenant("gold", OWN), None, THEIRS),
        (TenantTerms(quota=THEIRS), None, "free", THEIRS),
        (TenantTerms(quota=Quota()), tenant("gold", OWN), "free", Quota()),  # not bounded, and meant
    ],
)
def test_a_tenants_quota(
    said: TenantTerms | None, row: TenantRow | None, default: str | None, expected: Quota | None
) -> None:
    terms = Terms({} if said is None else {TENANT: said}, {}, PLANS, default)
    assert terms.tenant_quota(TENANT, row) == expected
    owner = terms.principal(KEY, row, None).owner
    assert owner == (None if expected is None else Owner(TENANT, terms.organization_of(TENANT, row), expected, None))


@pytest.mark.parametrize(
    ("said", "row", "expected"),
    [
        (None, organization(), None),
        (None, organization("gold"), GOLD),
        (None, organization("gold", OWN), OWN),
        (OrganizationTerms(plan="free"), organization("gold", OWN), FREE),
        (OrganizationTerms(quota=THEIRS), None, THEIRS),
    ],
)
def test_an_organizations_quota_has_no_default(
    said: OrganizationTerms | None, row: OrganizationRow | None, expected: Quota | None
) -> None:
    terms = Terms({}, {} if said is None else {ACME: said}, PLANS, default_plan=None)
    owner = terms.principal(KEY, tenant(), row).owner
    assert (owner.organization_quota if owner is not None else None) == expected
    assert Terms(default_plan="free", plans=PLANS).organization_quota(ACME, None) is None


def test_a_tenant_that_the_file_moves_takes_nothing_of_its_old_organization_along() -> None:
    terms = Terms({TENANT: TenantTerms(organization=OTHER)}, {OTHER: OrganizationTerms(plan="free")}, PLANS)
    principal = terms.principal(KEY, tenant(), organization(quota=OWN, suspended=True))
    assert (principal.organization, principal.suspended) == (OTHER, False)
    assert principal.owner == Owner(TENANT, OTHER, None, FREE)


@pytest.mark.parametrize("said", [None, False, True])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("of_organization", [False, True])
def test_suspension(*, said: bool | None, stored: bool, of_organization: bool) -> None:
    expected = stored if said is None else said
    if of_organization:
        terms = Terms({}, {ACME: OrganizationTerms(suspended=said)})
        assert terms.principal(KEY, tenant(), organization(suspended=stored)).suspended == expected
    else:
        terms = Terms({TENANT: TenantTerms(suspended=said)})
        assert terms.principal(KEY, tenant(suspended=stored), organization()).suspended == expected


def test_a_keys_policy_goes_before_the_tenants_and_the_files_before_the_stores() -> None:
    bound = minted(1, policy=AWAY, networks=("10.0.0.0/8",))[0]
    said = Terms({TENANT: TenantTerms(policy=HOME)})
    assert said.principal(bound, tenant(policy=HOME), None).policy == AWAY
    assert said.principal(bound, None, None).networks == ("10.0.0.0/8",)
    assert said.principal(KEY, tenant(policy=AWAY), None).policy == HOME
    assert Terms().principal(KEY, tenant(policy=AWAY), None).policy == AWAY
