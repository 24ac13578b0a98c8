"""One operation of the admin API: what it is called by, who may, what it takes and gives. The table of them is also the document."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

from spillway.api.ports import Caller, Operations
from spillway.core.errors import BadRequestError
from spillway.core.role import Role

MAX_PAGE = 1000

Body = TypeVar("Body")
Thing = TypeVar("Thing")
Act = Callable[[Operations, Request, Caller], Awaitable[object]]


class Operation(NamedTuple):
    """`least`: the role that may. `scoped`: so may a token of an organization, for what is the organization's."""

    method: str
    path: str
    summary: str
    act: Act
    least: Role
    scoped: bool = False
    takes: Any = None  # type of the body
    gives: Any = None  # type of the answer; None: no content
    query: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        return self.method != "GET"


async def body_of(request: Request, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"The body cannot be used: {error}") from None


def found(thing: Thing | None, what: str) -> Thing:
    """404 for what is not there, and for what is somebody else's."""
    if thing is None or thing is False:
        raise HTTPException(404, f"There is no such {what}.")
    return thing


def number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequestError(f"{name} must be a whole number", param=name)
    return int(text)


def page_size(query: Mapping[str, str]) -> int:
    return max(1, min(number(query, "limit", 100), MAX_PAGE))


def text(query: Mapping[str, str], name: str) -> str | None:
    """None: it is not given, or empty."""
    given = query.get(name)
    if given is not None and (len(given) > 1024 or not given.isprintable()):
        raise BadRequestError(f"{name} must be printable, and at most 1024 characters", param=name)
    return given or None
