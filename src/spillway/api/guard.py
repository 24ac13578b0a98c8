"""Who may come in at the admin port: by the Host header, then by a token, then by its role."""

from collections.abc import Awaitable, Callable
from hashlib import blake2b

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from spillway.api.customer_shapes import CreatedKey, CreatedToken
from spillway.api.operation import Operation
from spillway.api.ports import Caller, Operations

MAX_KEY_CHARS = 128


async def identified(operations: Operations, request: Request) -> Caller:
    """401 where the token is nobody's; the store is asked only for one that proves itself."""
    given = request.headers.get("authorization", "")
    scheme, _, secret = given.partition(" ")
    caller = await operations.callers.caller(secret.strip().encode()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise HTTPException(401, "The admin token is missing or wrong.", headers={"www-authenticate": "Bearer"})
    return caller


def allowed(caller: Caller, op: Operation) -> None:
    if not caller.role.covers(op.least) or (caller.organization is not None and not op.scoped):
        raise HTTPException(403, f"This token may not do that: it needs the role {op.least}.")


async def once(
    operations: Operations, request: Request, caller: Caller, act: Callable[[], Awaitable[object]], status: int
) -> Response:
    """Does a write, or repeats its answer where its idempotency key was used before. Secrets are not kept, so they are not repeated."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return _response(await act(), status)
    if not 1 <= len(key) <= MAX_KEY_CHARS or not all("!" <= letter <= "~" for letter in key):
        raise HTTPException(400, f"An idempotency key has 1 to {MAX_KEY_CHARS} visible ASCII characters.")
    name, fingerprint = f"{caller.name}/{key}", await _fingerprint(request)
    before = await operations.repeats.begin(name, fingerprint)
    if before is not None:
        if not before.same:
            raise HTTPException(422, "This idempotency key was used for another request.")
        if before.status is None:
            raise HTTPException(409, "A request with this idempotency key is being done.")
        return Response(before.body, before.status, {"idempotency-replayed": "true"}, "application/json")
    try:
        result = await act()
    except BaseException:
        await operations.repeats.give_up(name)
        raise
    await operations.repeats.finish(name, status, _encoded(_without_secret(result)))
    return _response(result, status)


async def _fingerprint(request: Request) -> bytes:
    parts = (
        request.method.encode(),
        str(request.url.path).encode(),
        str(request.url.query).encode(),
        await request.body(),
    )
    return blake2b(b"".join(len(part).to_bytes(8) + part for part in parts), digest_size=16).digest()


def _without_secret(result: object) -> object:
    return msgspec.structs.replace(result, secret=None) if isinstance(result, (CreatedKey, CreatedToken)) else result


def _encoded(result: object) -> bytes:
    return b"" if result is None else msgspec.json.encode(result)


def _response(result: object, status: int) -> Response:
    if result is None:
        return Response(status_code=status)
    return Response(msgspec.json.encode(result), status, media_type="application/json")
