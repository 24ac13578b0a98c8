"""The public paths that are not hot: models, files, batches, health. What is not built answers 404 `unsupported_endpoint`."""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spillway.api.batches import batch_routes
from spillway.api.errors import error_answer
from spillway.api.files import file_routes
from spillway.api.upload import TooLargeError
from spillway.batch.ports import Batches, Files, Objects
from spillway.batch.settings import Settings
from spillway.core.clock import Clock
from spillway.core.errors import BadRequestError, ClashError, StoreError
from spillway.core.ids import ModelName
from spillway.core.outcome import Outcome
from spillway.core.rng import Rng
from spillway.gateway.networks import Networks
from spillway.gateway.pipeline import CANNOT_TELL
from spillway.gateway.ports import Keyring, Principal, Unknown
from spillway.wire import openai

_JSON = "application/json"


class Offline(NamedTuple):
    """What files and batches need."""

    files: Files
    batches: Batches
    objects: Objects
    settings: Settings
    clock: Clock
    rng: Rng


class _TurnedAwayError(Exception):
    """Nobody may ask: `answer` says why."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


def public_app(
    keyring: Keyring,
    models: Callable[[], Mapping[str, ModelName]],
    networks: Callable[[], Networks],
    started_at_s: int,
    ready: Callable[[], bool],
    offline: "Offline",
) -> Starlette:
    """`models`: public names, aliases included, and the model each stands for; it and `networks` are read anew for each request.

    `ready` False: draining or not yet serving.
    """

    async def caller(request: Request) -> Principal:
        principal = await _identified(_secret(request), keyring)
        if isinstance(principal, Unknown):
            raise _TurnedAwayError(_unknown(principal))
        peer = "" if request.client is None else request.client.host
        barred = networks().bars(principal, peer, ",".join(request.headers.getlist("x-forwarded-for")))
        if barred is not None:
            raise _TurnedAwayError(_error(Outcome.FORBIDDEN, barred.message, barred.code))
        return principal

    async def list_models(request: Request) -> Response:
        principal = await caller(request)
        return Response(openai.models_body(_allowed(principal, models()), started_at_s), media_type=_JSON)

    async def one_model(request: Request) -> Response:
        principal = await caller(request)
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
            *file_routes(caller, offline.files, offline.objects, offline.settings.limits, offline.clock, offline.rng),
            *batch_routes(caller, offline.files, offline.batches, offline.settings, offline.clock, offline.rng),
        ],
        exception_handlers={
            _TurnedAwayError: _turned_away,
            HTTPException: _http_error,
            TooLargeError: _too_large,
            BadRequestError: _bad_request,
            ClashError: _clash,
            StoreError: _store_error,
            Exception: _internal,
        },
    )


def _secret(request: Request) -> bytes:
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        secret = request.headers.get("x-api-key") or request.headers.get("api-key") or ""
    return secret.strip().encode()


async def _identified(secret: bytes, keyring: Keyring) -> Principal | Unknown:
    found = keyring.find(secret)
    if found is not Unknown.UNSEEN:
        return found
    answer: asyncio.Future[Principal | Unknown] = asyncio.get_running_loop().create_future()

    def told(found: Principal | Unknown) -> None:
        if not answer.done():  # else the client left
            answer.set_result(found)

    keyring.seek(secret, told)
    return await answer


def _unknown(unknown: Unknown) -> Response:
    if unknown is Unknown.REFUSED:
        return _error(Outcome.UNAUTHENTICATED)
    answer = _error(Outcome.UNAVAILABLE, CANNOT_TELL)
    answer.headers["retry-after"] = "1"
    return answer


def _allowed(principal: Principal, models: Mapping[str, ModelName]) -> list[ModelName]:
    """Names that the caller may ask for."""
    names = sorted(models)
    return [ModelName(name) for name in names if principal.models is None or models[name] in principal.models]


def _error(outcome: Outcome, message: str = "", code: str | None = None) -> Response:
    status, body = error_answer(outcome, message, code=code)
    return Response(body, status, media_type=_JSON)


async def _turned_away(request: Request, error: Exception) -> Response:
    assert isinstance(error, _TurnedAwayError)
    return error.answer


async def _too_large(request: Request, error: Exception) -> Response:
    return _error(Outcome.TOO_LARGE, str(error))


async def _bad_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequestError)
    status, body = error_answer(Outcome.INVALID_REQUEST, str(error), param=error.param)
    return Response(body, status, media_type=_JSON)


async def _clash(request: Request, error: Exception) -> Response:
    return _said(409, str(error), "conflict")


async def _store_error(request: Request, error: Exception) -> Response:
    answer = _error(Outcome.UNAVAILABLE, "This cannot be done at the moment.")
    answer.headers["retry-after"] = "1"
    return answer


def _said(status: int, message: str, code: str | None) -> Response:
    return Response(openai.error_body(message, "invalid_request_error", None, code), status, media_type=_JSON)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if isinstance(error, HTTPException) and error.detail != HTTPStatus(status).phrase:  # one of ours
        return _said(status, error.detail, None)
    outcomes: dict[int, Outcome] = {404: Outcome.UNSUPPORTED_ENDPOINT, 405: Outcome.METHOD_NOT_ALLOWED}
    answer = _error(outcomes.get(status, Outcome.INVALID_REQUEST))
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def _internal(request: Request, error: Exception) -> Response:
    return _error(Outcome.INTERNAL)
