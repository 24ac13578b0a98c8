"""`/v1/batches`: jobs of many requests, done within a day. A batch of another tenant is not there."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from spillway.api.files import Identify
from spillway.api.operation import body_of, found, number
from spillway.batch.jobs import Batch, Purpose, State
from spillway.batch.ports import Batches, Files
from spillway.batch.settings import Settings
from spillway.batch.states import MOVES, moved
from spillway.core.clock import Clock
from spillway.core.errors import BadRequestError
from spillway.core.ids import BatchId, FileId, random_word
from spillway.core.rng import Rng
from spillway.gateway.ports import Principal
from spillway.wire import offline
from spillway.wire.batch_lines import ENDPOINTS

WINDOW = "24h"
MOST_BATCHES = 100
USUAL_BATCHES = 20
CANCEL_TRIES = 10
_JSON = "application/json"


def batch_routes(
    identify: Identify, files: Files, batches: Batches, settings: Settings, clock: Clock, rng: Rng
) -> list[Route]:
    async def create(request: Request) -> Response:
        principal = await identify(request)
        wanted = await body_of(request, offline.NewBatch)
        if wanted.endpoint not in ENDPOINTS:
            raise BadRequestError(f"endpoint must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
        if wanted.completion_window != WINDOW:
            raise BadRequestError(f"completion_window must be {WINDOW}.", param="completion_window")
        file = await files.one(principal.tenant, FileId(wanted.input_file_id))
        now_s = clock.wall()
        if file is None or (file.expires_at_s is not None and file.expires_at_s <= now_s):
            raise BadRequestError(f"There is no file {wanted.input_file_id[:100]}.", param="input_file_id")
        if file.purpose is not Purpose.BATCH:
            raise BadRequestError("The input file must have the purpose batch.", param="input_file_id")
        expiry = wanted.output_expires_after
        batch = Batch(
            id=BatchId(f"batch_{random_word(rng, 24)}"),
            tenant=principal.tenant,
            organization=principal.organization,
            key=principal.key,
            endpoint=wanted.endpoint,
            input_file=file.id,
            window=WINDOW,
            window_s=settings.window_s,
            created_at_s=now_s,
            expires_at_s=now_s + settings.window_s,
            metadata=wanted.metadata,
            output_expires_after_s=None if expiry is None else expiry.seconds,
        )
        await batches.add(batch, most=settings.limits.tenant_batches)
        return _answer(shown(batch))

    async def several(request: Request) -> Response:
        principal, query = await identify(request), request.query_params
        limit = max(1, min(number(query, "limit", USUAL_BATCHES), MOST_BATCHES))
        after = query.get("after")
        rows = await batches.page(principal.tenant, after=None if after is None else BatchId(after), limit=limit + 1)
        return _answer(offline.listed([shown(row) for row in rows[:limit]], has_more=len(rows) > limit))

    async def one(request: Request) -> Response:
        return _answer(shown(await its_batch(await identify(request), request)))

    async def cancel(request: Request) -> Response:
        principal = await identify(request)
        for _ in range(CANCEL_TRIES):
            batch = await its_batch(principal, request)
            if batch.state in (State.CANCELLING, State.CANCELLED):
                return _answer(shown(batch))
            if State.CANCELLING not in MOVES[batch.state]:
                raise HTTPException(409, f"The batch is {batch.state.value}: it cannot be cancelled any more.")
            cancelling = moved(batch, State.CANCELLING, clock.wall())
            if await batches.save(cancelling):
                return _answer(shown(cancelling))
        raise HTTPException(409, "The batch changes all the time: try again.")

    async def its_batch(principal: Principal, request: Request) -> Batch:
        name = request.path_params["batch"]
        return found(await batches.one(principal.tenant, BatchId(name)), f"batch as {name[:100]}")

    return [
        Route("/v1/batches", create, methods=["POST"]),
        Route("/v1/batches", several, methods=["GET"]),
        Route("/v1/batches/{batch}", one, methods=["GET"]),
        Route("/v1/batches/{batch}/cancel", cancel, methods=["POST"]),
    ]


def shown(batch: Batch) -> offline.BatchBody:
    sums, entered = batch.sums, batch.entered

    def at(state: State) -> int | None:
        return int(entered[state]) if state in entered else None

    mistakes = [offline.ErrorBody(one.code, one.message, one.param, one.line) for one in batch.mistakes]
    return offline.BatchBody(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.models[0] if len(batch.models) == 1 else None,
        errors=offline.ErrorsBody(mistakes) if mistakes else None,
        input_file_id=batch.input_file,
        completion_window=batch.window,
        status=batch.state.value,
        output_file_id=batch.output_file,
        error_file_id=batch.error_file,
        created_at=int(batch.created_at_s),
        in_progress_at=at(State.IN_PROGRESS),
        expires_at=int(batch.expires_at_s),
        finalizing_at=at(State.FINALIZING),
        completed_at=at(State.COMPLETED),
        failed_at=at(State.FAILED),
        expired_at=at(State.EXPIRED),
        cancelling_at=at(State.CANCELLING),
        cancelled_at=at(State.CANCELLED),
        request_counts=offline.CountsBody(batch.total, sums.completed, sums.failed + _unfinished(batch)),
        usage=offline.UsageBody(
            sums.prompt_tokens,
            offline.InputDetails(sums.cached_tokens),
            sums.completion_tokens,
            offline.OutputDetails(),
            sums.prompt_tokens + sums.completion_tokens,
        ),
        metadata=batch.metadata,
        cost_usd=sums.cost_nano_usd / 1e9,
    )


def _unfinished(batch: Batch) -> int:
    """Lines that an expired batch did not come to: they are in its error file."""
    return batch.total - batch.sums.finished if batch.state is State.EXPIRED else 0


def _answer(body: offline.BatchBody | offline.ListBody) -> Response:
    return Response(offline.written(body), media_type=_JSON)
