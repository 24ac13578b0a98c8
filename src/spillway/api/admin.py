"""The admin API: what operators and developers do and see. Its table of operations is also its OpenAPI document.

Every path but `/health/*`, `/metrics` (no tenant is in it) and the console's empty page wants a bearer token: that of
`HOME/admin.token`, or one made here. The Host header is checked, so that a web page cannot talk an operator's browser into calling it
(DNS rebinding).
"""

from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from spillway.api.customers import CUSTOMERS
from spillway.api.document import openapi
from spillway.api.errors import error_answer
from spillway.api.fleet import FLEET
from spillway.api.guard import allowed, identified, once
from spillway.api.operation import Operation
from spillway.api.ports import Operations
from spillway.core.errors import BadRequestError, ClashError, StoreError
from spillway.core.outcome import Outcome
from spillway.wire import openai

OPERATIONS = (*FLEET, *CUSTOMERS)
_CODES = {401: "invalid_api_key", 403: "role_not_allowed", 409: "conflict", 422: "idempotency_key_reused"}
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def admin_app(operations: Operations, allowed_hosts: frozenset[str], ready: Callable[[], bool], page: str) -> Starlette:
    """`allowed_hosts`: values of the Host header without the port; "*" allows any. `page`: the console."""
    document = msgspec.json.encode(openapi(OPERATIONS))

    async def metrics(request: Request) -> Response:
        return Response(operations.metrics(), media_type=_METRICS_TYPE)

    async def console(request: Request) -> Response:
        return HTMLResponse(page, headers={"content-security-policy": "default-src 'self' 'unsafe-inline'"})

    async def described(request: Request) -> Response:
        await identified(operations, request)
        return Response(document, media_type="application/json")

    async def live(request: Request) -> Response:
        return _json({"status": "ok"}, 200)

    async def is_ready(request: Request) -> Response:
        return _json({"status": "ok"}, 200) if ready() else _json({"status": "starting"}, 503)

    return Starlette(
        routes=[
            *(Route(op.path, _endpoint(operations, op), methods=[op.method]) for op in OPERATIONS),
            Route("/admin/v1/openapi.json", described),
            Route("/admin/{rest:path}", _nothing(operations)),
            Route("/metrics", metrics),
            Route("/health/live", live),
            Route("/health/ready", is_ready),
            Route("/", console),
        ],
        middleware=[Middleware(_HostGuard, allowed_hosts=allowed_hosts)],
        exception_handlers={
            HTTPException: _http_error,
            BadRequestError: _bad_request,
            ClashError: _clash,
            StoreError: _store_error,
        },
    )


def _endpoint(operations: Operations, op: Operation) -> Callable[[Request], Awaitable[Response]]:
    status = 204 if op.gives is None else 200

    async def answer(request: Request) -> Response:
        caller = await identified(operations, request)
        allowed(caller, op)
        if not op.writes:
            return _json(await op.act(operations, request, caller), status)
        return await once(operations, request, caller, lambda: op.act(operations, request, caller), status)

    return answer


def _nothing(operations: Operations) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        await identified(operations, request)
        raise HTTPException(404, "There is no such path.")

    return answer


class _HostGuard:
    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str]) -> None:
        self._app = app
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
        await self._app(scope, receive, send)


def _json(value: object, status: int) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


def _error(outcome: Outcome, message: str, param: str | None = None) -> Response:
    status, body = error_answer(outcome, message, param=param)
    return Response(body, status_code=status, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = openai.error_body(error.detail, "invalid_request_error", None, _CODES.get(error.status_code))
    return Response(body, status_code=error.status_code, media_type="application/json", headers=error.headers)


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequestError)
    return _error(Outcome.INVALID_REQUEST, str(error), error.param)


async def _clash(request: Request, error: Exception) -> Response:
    return Response(
        openai.error_body(str(error), "invalid_request_error", None, "conflict"), 409, media_type="application/json"
    )


async def _store_error(request: Request, error: Exception) -> Response:
    return _error(Outcome.UNAVAILABLE, "The store cannot do this now.")
