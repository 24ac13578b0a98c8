"""`/v1/files`: what tenants upload and batches write. A file of another tenant is not there."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from spillway.api.operation import found, number
from spillway.api.upload import Upload
from spillway.batch.jobs import FileRow, Purpose, object_of
from spillway.batch.ports import Files, Objects
from spillway.batch.settings import BatchLimits
from spillway.core.clock import Clock, Seconds
from spillway.core.errors import BadRequestError
from spillway.core.ids import FileId, random_word
from spillway.core.rng import Rng
from spillway.gateway.ports import Principal
from spillway.wire import offline

Identify = Callable[[Request], Awaitable[Principal]]
"""Raises what the application's handlers know where nobody may ask."""

MOST_FILES = 10_000
_JSON = "application/json"
_MADE_BY_TENANTS = frozenset(Purpose) - {Purpose.BATCH_OUTPUT}
_EXPIRY = ("expires_after[anchor]", "expires_after[seconds]")


def file_routes(
    identify: Identify, files: Files, objects: Objects, limits: BatchLimits, clock: Clock, rng: Rng
) -> list[Route]:
    async def create(request: Request) -> Response:
        principal = await identify(request)
        file = FileId(f"file-{random_word(rng, 24)}")
        stored = await files.stored(principal.tenant)
        if stored.files >= limits.tenant_files or stored.size_bytes >= limits.tenant_bytes:
            raise HTTPException(403, "You have stored as much as you may: delete some files first.")
        upload = Upload(request.headers.get("content-type", ""), most_bytes=limits.file_bytes)
        with _left_alone():
            async with objects.writer(object_of(file)) as writer:
                await upload.take(request.stream(), writer)
                row = _row(file, principal, upload, clock.wall())
        await files.add(row)
        return _answer(shown(row))

    async def several(request: Request) -> Response:
        principal, query = await identify(request), request.query_params
        limit = max(1, min(number(query, "limit", MOST_FILES), MOST_FILES))
        order, purpose, after = query.get("order", "desc"), query.get("purpose"), query.get("after")
        if order not in ("asc", "desc"):
            raise BadRequestError("order must be asc or desc", param="order")
        rows = await files.page(
            principal.tenant,
            after=None if after is None else FileId(after),
            limit=limit + 1,
            ascending=order == "asc",
            purpose=None if purpose is None else purpose_of(purpose),
        )
        return _answer(offline.listed([shown(row) for row in rows[:limit]], has_more=len(rows) > limit))

    async def one(request: Request) -> Response:
        return _answer(shown(await its_file(request)))

    async def content(request: Request) -> Response:
        row = await its_file(request)
        pieces = objects.stream(object_of(row.id))
        try:
            first = await anext(aiter(pieces), b"")
        except FileNotFoundError:
            raise HTTPException(404, f"The content of {row.id} is not there any more.") from None
        headers = {
            "content-length": str(row.size_bytes),
            "content-disposition": f"attachment; filename*=utf-8''{quote(row.filename, safe='')}",
        }
        return StreamingResponse(_all(first, pieces), headers=headers, media_type="application/octet-stream")

    async def delete(request: Request) -> Response:
        row = await its_file(request)
        found(await files.delete(row.tenant, row.id), f"file as {row.id}")
        await objects.delete([object_of(row.id)])
        return _answer(offline.DeletedBody(row.id))

    async def its_file(request: Request) -> FileRow:
        principal = await identify(request)
        name = request.path_params["file"]
        row = found(await files.one(principal.tenant, FileId(name)), f"file as {name[:100]}")
        if row.expires_at_s is not None and row.expires_at_s <= clock.wall():
            raise HTTPException(404, f"The file {row.id} has expired.")
        return row

    return [
        Route("/v1/files", create, methods=["POST"]),
        Route("/v1/files", several, methods=["GET"]),
        Route("/v1/files/{file}", one, methods=["GET"]),
        Route("/v1/files/{file}", delete, methods=["DELETE"]),
        Route("/v1/files/{file}/content", content, methods=["GET"]),
    ]


def purpose_of(text: str) -> Purpose:
    try:
        return Purpose(text)
    except ValueError:
        raise BadRequestError(f"'{text[:64]}' is not a purpose of files.", param="purpose") from None


def shown(row: FileRow) -> offline.FileBody:
    return offline.FileBody(
        row.id,
        row.size_bytes,
        int(row.created_at_s),
        row.filename,
        row.purpose.value,
        None if row.expires_at_s is None else int(row.expires_at_s),
    )


def _row(file: FileId, principal: Principal, upload: Upload, now_s: Seconds) -> FileRow:
    if upload.filename is None:
        raise BadRequestError("There is no file in the form.", param="file")
    purpose = purpose_of(upload.fields.get("purpose", ""))
    if purpose not in _MADE_BY_TENANTS:
        raise BadRequestError(f"Files of the purpose {purpose.value} are made by batches.", param="purpose")
    if not upload.size_bytes:
        raise BadRequestError("The file is empty.", param="file")
    expires_after_s = _expiry(upload.fields)
    return FileRow(
        id=file,
        tenant=principal.tenant,
        organization=principal.organization,
        purpose=purpose,
        filename=upload.filename,
        size_bytes=upload.size_bytes,
        created_at_s=now_s,
        expires_at_s=None if expires_after_s is None else now_s + expires_after_s,
    )


def _expiry(fields: dict[str, str]) -> int | None:
    given = {key.removeprefix("expires_after[").rstrip("]"): fields[key] for key in _EXPIRY if key in fields}
    if not given:
        return None
    try:
        return msgspec.convert(given, offline.Expiry, strict=False).seconds
    except msgspec.ValidationError as error:
        raise BadRequestError(f"expires_after: {error}", param="expires_after") from None


@contextlib.contextmanager
def _left_alone() -> Generator[None]:
    """A client that leaves in the middle of its upload gets no answer; nothing of the file stays."""
    try:
        yield
    except ClientDisconnect:
        raise HTTPException(400, "The upload broke off.") from None


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _answer(body: offline.FileBody | offline.DeletedBody | offline.ListBody) -> Response:
    return Response(offline.written(body), media_type=_JSON)
