"""The operations on organizations, tenants, keys, tokens, and what was changed."""

from starlette.requests import Request

from spillway.api.customer_shapes import (
    AuditPage,
    CreatedKey,
    CreatedToken,
    KeyChange,
    KeyPage,
    KeyStatus,
    NewKey,
    NewToken,
    OrganizationPage,
    OrganizationStatus,
    PutOrganization,
    PutTenant,
    Rotation,
    TenantPage,
    TenantStatus,
    TokenPage,
)
from spillway.api.operation import Operation, body_of, found, number, page_size, text
from spillway.api.ports import Caller, Operations
from spillway.core.errors import BadRequestError
from spillway.core.ids import KeyId, OrganizationId, TenantId, TokenId
from spillway.core.role import Role

_LAST = 10**15


async def _organizations(operations: Operations, request: Request, caller: Caller) -> OrganizationPage:
    query = request.query_params
    return await operations.customers.organizations(
        caller, OrganizationId(text(query, "after") or ""), page_size(query)
    )


async def _organization(operations: Operations, request: Request, caller: Caller) -> OrganizationStatus:
    return found(await operations.customers.organization(caller, _organization_id(request)), "organization")


async def _put_organization(operations: Operations, request: Request, caller: Caller) -> OrganizationStatus:
    wanted = await body_of(request, PutOrganization)
    return await operations.customers.put_organization(caller, _organization_id(request), wanted)


async def _delete_organization(operations: Operations, request: Request, caller: Caller) -> None:
    found(await operations.customers.delete_organization(caller, _organization_id(request)), "organization")


async def _tenants(operations: Operations, request: Request, caller: Caller) -> TenantPage:
    query = request.query_params
    organization = text(query, "organization")
    after, limit = TenantId(text(query, "after") or ""), page_size(query)
    return await operations.customers.tenants(
        caller, OrganizationId(organization) if organization else None, after, limit
    )


async def _tenant(operations: Operations, request: Request, caller: Caller) -> TenantStatus:
    return found(await operations.customers.tenant(caller, _tenant_id(request)), "tenant")


async def _put_tenant(operations: Operations, request: Request, caller: Caller) -> TenantStatus:
    return await operations.customers.put_tenant(caller, _tenant_id(request), await body_of(request, PutTenant))


async def _delete_tenant(operations: Operations, request: Request, caller: Caller) -> None:
    found(await operations.customers.delete_tenant(caller, _tenant_id(request)), "tenant")


async def _create_key(operations: Operations, request: Request, caller: Caller) -> CreatedKey:
    return found(await operations.keys.create(caller, await body_of(request, NewKey)), "tenant")


async def _keys(operations: Operations, request: Request, caller: Caller) -> KeyPage:
    query = request.query_params
    tenant, after = text(query, "tenant"), text(query, "after")
    return await operations.keys.page(
        caller, TenantId(tenant) if tenant else None, KeyId(after) if after else None, page_size(query)
    )


async def _key(operations: Operations, request: Request, caller: Caller) -> KeyStatus:
    return found(await operations.keys.one(caller, _key_id(request)), "key")


async def _change_key(operations: Operations, request: Request, caller: Caller) -> KeyStatus:
    change = await body_of(request, KeyChange)
    return found(await operations.keys.change(caller, _key_id(request), change), "key")


async def _rotate_key(operations: Operations, request: Request, caller: Caller) -> CreatedKey:
    rotation = await body_of(request, Rotation)
    return found(await operations.keys.rotate(caller, _key_id(request), rotation.overlap_s), "key")


async def _revoke_key(operations: Operations, request: Request, caller: Caller) -> None:
    found(await operations.keys.revoke(caller, _key_id(request)), "key")


async def _create_token(operations: Operations, request: Request, caller: Caller) -> CreatedToken:
    return await operations.tokens.create(caller, await body_of(request, NewToken))


async def _tokens(operations: Operations, request: Request, caller: Caller) -> TokenPage:
    query = request.query_params
    return await operations.tokens.page(caller, TokenId(text(query, "after") or ""), page_size(query))


async def _revoke_token(operations: Operations, request: Request, caller: Caller) -> None:
    found(await operations.tokens.revoke(caller, TokenId(request.path_params["token"])), "token")


async def _audit(operations: Operations, request: Request, caller: Caller) -> AuditPage:
    query = request.query_params
    organization = text(query, "organization")
    return await operations.tokens.audit(
        caller,
        OrganizationId(organization) if organization else None,
        text(query, "target"),
        number(query, "before", _LAST),
        page_size(query),
    )


def _organization_id(request: Request) -> OrganizationId:
    return OrganizationId(_id(request.path_params["organization"], "organization"))


def _tenant_id(request: Request) -> TenantId:
    return TenantId(_id(request.path_params["tenant"], "tenant"))


def _key_id(request: Request) -> KeyId:
    return KeyId(request.path_params["key"])


def _id(name: str, what: str) -> str:
    if not 1 <= len(name) <= 128 or not all("!" <= letter <= "~" for letter in name):
        raise BadRequestError(f"an {what} is a name of 1 to 128 visible ASCII characters", param=what)
    return name


_PAGE = ("after", "limit")
CUSTOMERS = (
    Operation("GET", "/admin/v1/organizations", "List organizations", _organizations, Role.READ_ONLY, scoped=True, gives=OrganizationPage, query=_PAGE),
    Operation("GET", "/admin/v1/organizations/{organization}", "One organization", _organization, Role.READ_ONLY, scoped=True, gives=OrganizationStatus),
    Operation("PUT", "/admin/v1/organizations/{organization}", "Make an organization, or put it in the place of the one with this id", _put_organization, Role.ADMIN, takes=PutOrganization, gives=OrganizationStatus),
    Operation("DELETE", "/admin/v1/organizations/{organization}", "Delete an organization that has no tenants", _delete_organization, Role.ADMIN),
    Operation("GET", "/admin/v1/tenants", "List tenants", _tenants, Role.READ_ONLY, scoped=True, gives=TenantPage, query=("organization", *_PAGE)),
    Operation("GET", "/admin/v1/tenants/{tenant}", "One tenant", _tenant, Role.READ_ONLY, scoped=True, gives=TenantStatus),
    Operation("PUT", "/admin/v1/tenants/{tenant}", "Make a tenant, or put it in the place of the one with this id", _put_tenant, Role.ADMIN, takes=PutTenant, gives=TenantStatus),
    Operation("DELETE", "/admin/v1/tenants/{tenant}", "Delete a tenant and revoke its keys; its usage stays", _delete_tenant, Role.ADMIN),
    Operation("POST", "/admin/v1/keys", "Create a key; its secret is in this answer only", _create_key, Role.OPERATOR, scoped=True, takes=NewKey, gives=CreatedKey),
    Operation("GET", "/admin/v1/keys", "List keys", _keys, Role.READ_ONLY, scoped=True, gives=KeyPage, query=("tenant", *_PAGE)),
    Operation("GET", "/admin/v1/keys/{key}", "One key", _key, Role.READ_ONLY, scoped=True, gives=KeyStatus),
    Operation("PATCH", "/admin/v1/keys/{key}", "Change what a key may", _change_key, Role.OPERATOR, scoped=True, takes=KeyChange, gives=KeyStatus),
    Operation("POST", "/admin/v1/keys/{key}/rotate", "A new key in the place of this one, which ends after an overlap", _rotate_key, Role.OPERATOR, scoped=True, takes=Rotation, gives=CreatedKey),
    Operation("DELETE", "/admin/v1/keys/{key}", "Revoke a key", _revoke_key, Role.OPERATOR, scoped=True),
    Operation("POST", "/admin/v1/tokens", "Create a token; its secret is in this answer only", _create_token, Role.ADMIN, scoped=True, takes=NewToken, gives=CreatedToken),
    Operation("GET", "/admin/v1/tokens", "List tokens", _tokens, Role.ADMIN, scoped=True, gives=TokenPage, query=_PAGE),
    Operation("DELETE", "/admin/v1/tokens/{token}", "Revoke a token", _revoke_token, Role.ADMIN, scoped=True),
    Operation("GET", "/admin/v1/audit", "What was changed, by whom, newest first", _audit, Role.READ_ONLY, scoped=True, gives=AuditPage, query=("organization", "target", "before", "limit")),
)  # fmt: skip
