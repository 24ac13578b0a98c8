"""The public paths that are not hot: models and health. What is not built answers 404 `unsupported_endpoint`."""

from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spillway.api.errors import error_answer
from spillway.core.ids import ModelName
from spillway.core.outcome import Outcome
from spillway.gateway.ports import Keyring, Principal
from spillway.wire import openai

_JSON = "application/json"


def public_app(
    keyring: Keyring, models: Callable[[], Mapping[str, ModelName]], started_at_s: int, ready: Callable[[], bool]
) -> Starlette:
    """`models`: public names, aliases included, and the model each stands for; read anew for each request.

    `ready` False: draining or not yet serving.
    """

    async def list_models(request: Request) -> Response:
        principal = _caller(request, keyring)
        if principal is None:
            return _error(Outcome.UNAUTHENTICATED)
        return Response(openai.models_body(_allowed(principal, models()), started_at_s), media_type=_JSON)

    async def one_model(request: Request) -> Response:
        principal = _caller(request, keyring)
        if principal is None:
            return _error(Outcome.UNAUTHENTICATED)
        wanted = ModelName(request.path_params["model"])
        if wanted not in _allowed(principal, models()):
            return _error(Outcome.MODEL_NOT_FOUND)
        return Response(openai.model_body(wanted, started_at_s), media_type=_JSON)

    async def live(request: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type=_JSON)

    async def is_ready(request: Request) -> Response:
        return await live(request) if ready() else Response(b'{"status":"draining"}', 503, media_type=_JSON)

    return Starlette(
        routes=[
            Route("/v1/models", list_models),
            Route("/v1/models/{model:path}", one_model),
            Route("/health/live", live),
            Route("/health/ready", is_ready),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _internal},
    )


def _caller(request: Request, keyring: Keyring) -> Principal | None:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        secret = request.headers.get("x-api-key") or request.headers.get("api-key") or ""
    return keyring.find(secret.strip().encode())


def _allowed(principal: Principal, models: Mapping[str, ModelName]) -> list[ModelName]:
    """Names that the caller may ask for."""
    names = sorted(models)
    return [ModelName(name) for name in names if principal.models is None or models[name] in principal.models]


def _error(outcome: Outcome) -> Response:
    status, body = error_answer(outcome)
    return Response(body, status, media_type=_JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    outcomes: dict[int, Outcome] = {404: Outcome.UNSUPPORTED_ENDPOINT, 405: Outcome.METHOD_NOT_ALLOWED}
    answer = _error(outcomes.get(status, Outcome.INVALID_REQUEST))
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def _internal(request: Request, error: Exception) -> Response:
    return _error(Outcome.INTERNAL)
