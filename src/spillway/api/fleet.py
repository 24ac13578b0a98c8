"""The operations on pools, endpoints, the configuration, and usage."""

from starlette.requests import Request

from spillway.api.operation import MAX_PAGE, Operation, body_of, found, number, text
from spillway.api.ports import (
    Caller,
    EndpointChange,
    Operations,
    PoolChange,
    Pools,
    ReloadResult,
    UsageAsk,
    UsagePage,
)
from spillway.core.errors import BadRequestError
from spillway.core.ids import EndpointUrl, OrganizationId, PoolName, TenantId
from spillway.core.role import Role
from spillway.core.usage import UsageRecord

MAX_LIMIT = 1_000_000_000  # a larger one could not be told to the workers


async def _pools(operations: Operations, request: Request, caller: Caller) -> Pools:
    return operations.pools()


async def _set_limit(operations: Operations, request: Request, caller: Caller) -> None:
    change = await body_of(request, PoolChange)
    if change.limit is not None and not 0 <= change.limit <= MAX_LIMIT:
        raise BadRequestError(f"limit must be between 0 and {MAX_LIMIT}", param="limit")
    found(await operations.set_limit(caller, PoolName(request.path_params["pool"]), change.limit), "pool")


async def _set_draining(operations: Operations, request: Request, caller: Caller) -> None:
    change = await body_of(request, EndpointChange)
    found(await operations.set_draining(caller, EndpointUrl(change.url), change.draining), "endpoint")


async def _reload(operations: Operations, request: Request, caller: Caller) -> ReloadResult:
    return ReloadResult(await operations.reload(caller))


async def _usage(operations: Operations, request: Request, caller: Caller) -> UsagePage:
    query = request.query_params
    tenant, organization = text(query, "tenant"), text(query, "organization")
    ask = UsageAsk(
        from_s=number(query, "from_s", 0),
        until_s=number(query, "until_s", 1 << 40),
        by_pool=query.get("by") == "pool",
        tenant=TenantId(tenant) if tenant else None,
        organization=OrganizationId(organization) if organization else None,
        cursor=query.get("cursor"),
        limit=min(number(query, "limit", 200), MAX_PAGE),
    )
    return found(await operations.usage(caller, ask), "tenant")


async def _usage_record(operations: Operations, request: Request, caller: Caller) -> UsageRecord:
    return found(await operations.usage_record(caller, request.path_params["request"]), "record")


FLEET = (
    Operation("GET", "/admin/v1/pools", "Pools, their load and their endpoints", _pools, Role.READ_ONLY, gives=Pools),
    Operation("PUT", "/admin/v1/pools/{pool}/limit", "Override a pool's limit until told otherwise", _set_limit, Role.OPERATOR, takes=PoolChange),
    Operation("PUT", "/admin/v1/endpoints/draining", "Take an endpoint out of use, or give it back", _set_draining, Role.OPERATOR, takes=EndpointChange),
    Operation("POST", "/admin/v1/reload", "Read the configuration again", _reload, Role.OPERATOR, gives=ReloadResult),
    Operation("GET", "/admin/v1/usage", "Usage per tenant and hour", _usage, Role.READ_ONLY, scoped=True, gives=UsagePage, query=("from_s", "until_s", "by", "tenant", "organization", "cursor", "limit")),
    Operation("GET", "/admin/v1/usage/records/{request}", "One usage record", _usage_record, Role.READ_ONLY, scoped=True, gives=UsageRecord),
)  # fmt: skip
