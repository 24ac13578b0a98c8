"""The admin API: what operators do and see. Its table of operations is also its OpenAPI document.

Every path but `/health/*`, `/metrics` (no tenant is in it) and the console's empty page wants the token of `HOME/admin.token` as a bearer token. The Host header is
checked, so that a web page cannot talk an operator's browser into calling it (DNS rebinding).
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from spillway import __version__
from spillway.api.errors import error_answer
from spillway.api.ports import (
    CreatedKey,
    EndpointChange,
    KeyPage,
    NewKey,
    Operations,
    PoolChange,
    Pools,
    ReloadResult,
    UsageAsk,
    UsagePage,
)
from spillway.core.errors import BadRequestError, StoreError
from spillway.core.ids import EndpointUrl, KeyId, PoolName, TenantId
from spillway.core.outcome import Outcome
from spillway.core.usage import UsageRecord
from spillway.wire import openai

MAX_PAGE = 1000
MAX_LIMIT = 1_000_000_000  # a larger one could not be told to the workers
PUBLIC_PATHS = frozenset(("/", "/metrics", "/health/live", "/health/ready"))
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Body = TypeVar("Body")


class Operation(NamedTuple):
    method: str
    path: str
    summary: str
    act: Callable[[Operations, Request], Awaitable[object]]
    takes: Any = None  # type of the body
    gives: Any = None  # type of the answer; None: no content
    query: tuple[str, ...] = ()


async def _pools(operations: Operations, request: Request) -> Pools:
    return operations.pools()


async def _set_limit(operations: Operations, request: Request) -> None:
    change = await _body(request, PoolChange)
    if change.limit is not None and not 0 <= change.limit <= MAX_LIMIT:
        raise BadRequestError(f"limit must be between 0 and {MAX_LIMIT}", param="limit")
    _found(operations.set_limit(PoolName(request.path_params["pool"]), change.limit), "pool")


async def _set_draining(operations: Operations, request: Request) -> None:
    change = await _body(request, EndpointChange)
    _found(operations.set_draining(EndpointUrl(change.url), change.draining), "endpoint")


async def _reload(operations: Operations, request: Request) -> ReloadResult:
    return ReloadResult(await operations.reload())


async def _create_key(operations: Operations, request: Request) -> CreatedKey:
    return await operations.create_key(await _body(request, NewKey))


async def _keys(operations: Operations, request: Request) -> KeyPage:
    query = request.query_params
    after = query.get("after")
    limit = max(1, min(_number(query, "limit", 100), MAX_PAGE))
    return await operations.keys(_tenant(query), KeyId(after) if after else None, limit)


async def _revoke_key(operations: Operations, request: Request) -> None:
    _found(await operations.revoke_key(KeyId(request.path_params["key"])), "key")


async def _usage(operations: Operations, request: Request) -> UsagePage:
    query = request.query_params
    ask = UsageAsk(
        from_s=_number(query, "from_s", 0),
        until_s=_number(query, "until_s", 1 << 40),
        by_pool=query.get("by") == "pool",
        tenant=_tenant(query),
        cursor=query.get("cursor"),
        limit=min(_number(query, "limit", 200), MAX_PAGE),
    )
    return await operations.usage(ask)


async def _usage_record(operations: Operations, request: Request) -> UsageRecord:
    record = await operations.usage_record(request.path_params["request"])
    if record is None:
        raise HTTPException(404, "There is no such record.")
    return record


OPERATIONS = (
    Operation("GET", "/admin/v1/pools", "Pools, their load and their endpoints", _pools, gives=Pools),
    Operation("PUT", "/admin/v1/pools/{pool}/limit", "Override a pool's limit until told otherwise", _set_limit, takes=PoolChange),
    Operation("PUT", "/admin/v1/endpoints/draining", "Take an endpoint out of use, or give it back", _set_draining, takes=EndpointChange),
    Operation("POST", "/admin/v1/reload", "Read the configuration again", _reload, gives=ReloadResult),
    Operation("POST", "/admin/v1/keys", "Create a key; its secret is in this answer only", _create_key, takes=NewKey, gives=CreatedKey),
    Operation("GET", "/admin/v1/keys", "List keys", _keys, gives=KeyPage, query=("tenant", "after", "limit")),
    Operation("DELETE", "/admin/v1/keys/{key}", "Revoke a key", _revoke_key),
    Operation("GET", "/admin/v1/usage", "Usage per tenant and hour", _usage, gives=UsagePage, query=("from_s", "until_s", "by", "tenant", "cursor", "limit")),
    Operation("GET", "/admin/v1/usage/records/{request}", "One usage record", _usage_record, gives=UsageRecord),
)  # fmt: skip


def admin_app(
    operations: Operations, token: str, allowed_hosts: frozenset[str], ready: Callable[[], bool], page: str
) -> Starlette:
    """`allowed_hosts`: values of the Host header without the port; "*" allows any. `page`: the console."""
    document = msgspec.json.encode(openapi())

    async def metrics(request: Request) -> Response:
        return Response(operations.metrics(), media_type=_METRICS_TYPE)

    async def console(request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": "default-src 'self' 'unsafe-inline'"})

    async def described(request: Request) -> Response:
        return Response(document, media_type="application/json")

    async def live(request: Request) -> Response:
        return _json({"status": "ok"}, 200)

    async def is_ready(request: Request) -> Response:
        return _json({"status": "ok"}, 200) if ready() else _json({"status": "starting"}, 503)

    return Starlette(
        routes=[
            *(Route(op.path, _endpoint(operations, op), methods=[op.method]) for op in OPERATIONS),
            Route("/admin/v1/openapi.json", described),
            Route("/metrics", metrics),
            Route("/health/live", live),
            Route("/health/ready", is_ready),
            Route("/", console),
        ],
        middleware=[Middleware(_Guard, token=token, allowed_hosts=allowed_hosts)],
        exception_handlers={
            HTTPException: _http_error,
            BadRequestError: _bad_request,
            StoreError: _store_error,
        },
    )


def openapi() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the operations."""
    types = [kind for op in OPERATIONS for kind in (op.takes, op.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for op in OPERATIONS:
        names = [part[1:-1] for part in op.path.split("/") if part.startswith("{")]
        parameters = [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names]
        parameters += [{"name": n, "in": "query", "required": False, "schema": {"type": "string"}} for n in op.query]
        described: dict[str, Any] = {"summary": op.summary, "parameters": parameters, "security": [{"token": []}]}
        if op.takes is not None:
            described["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema_of[op.takes]}},
            }
        content = {} if op.gives is None else {"content": {"application/json": {"schema": schema_of[op.gives]}}}
        described["responses"] = {
            "204" if op.gives is None else "200": {"description": "done", **content},
            "default": {"description": "an error body"},
        }
        paths.setdefault(op.path, {})[op.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Spillway admin API", "version": __version__},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _endpoint(operations: Operations, op: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        result = await op.act(operations, request)
        return Response(status_code=204) if op.gives is None else _json(result, 200)

    return answer


class _Guard:
    """Checks Host and token before anything else."""

    def __init__(self, app: ASGIApp, token: str, allowed_hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers: dict[bytes, bytes] = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)[0].strip("[]").lower()
            if "*" not in self._allowed_hosts and host not in self._allowed_hosts:
                await _error(Outcome.FORBIDDEN, "This host name is not allowed here (gateway.admin_hosts).")(
                    scope, receive, send
                )
                return
            given = headers.get(b"authorization", b"").removeprefix(b"Bearer ")
            if scope["path"] not in PUBLIC_PATHS and not hmac.compare_digest(given, self._token):
                await _error(Outcome.UNAUTHENTICATED, "The admin token is missing or wrong.")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _json(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def _error(outcome: Outcome, message: str, param: str | None = None) -> Response:
    status, body = error_answer(outcome, message, param=param)
    return Response(body, status_code=status, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = openai.error_body(error.detail, "invalid_request_error", None, None)
    return Response(body, status_code=error.status_code, media_type="application/json", headers=error.headers)


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequestError)
    return _error(Outcome.INVALID_REQUEST, str(error), error.param)


async def _store_error(request: Request, error: Exception) -> Response:
    return _error(Outcome.UNAVAILABLE, "The store cannot do this now.")


async def _body(request: Request, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"The body cannot be used: {error}") from None


def _found(done: bool, what: str) -> None:
    if not done:
        raise HTTPException(404, f"There is no such {what}.")


def _tenant(query: Mapping[str, str]) -> TenantId | None:
    tenant = query.get("tenant")
    return TenantId(tenant) if tenant else None


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequestError(f"{name} must be a whole number", param=name)
    return int(text)
