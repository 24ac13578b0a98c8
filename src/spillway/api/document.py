"""The OpenAPI 3.1 document of the admin API, made from the table that serves it."""

from collections.abc import Sequence
from typing import Any

import msgspec

from spillway import __version__
from spillway.api.operation import Operation

ERRORS = {
    "400": "The request cannot be used.",
    "401": "The token is missing, wrong, expired or revoked.",
    "403": "The token may not do this.",
    "404": "There is no such thing, or it is somebody else's.",
    "409": "It was changed meanwhile, is there already, or is being done.",
    "413": "The body is too large.",
    "415": "Compressed bodies are not accepted.",
    "422": "The idempotency key was used for another request.",
    "503": "The store cannot do this now.",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A write with this key is done once; a repeated one gets the same answer, without secrets. Kept for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
}


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    types = [kind for op in operations for kind in (op.takes, op.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        paths.setdefault(op.path, {})[op.method.lower()] = _described(op, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Spillway admin API", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR_SCHEMA},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(op: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    names = [part[1:-1] for part in op.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for n in names
    ]
    parameters += [{"name": n, "in": "query", "required": False, "schema": {"type": "string"}} for n in op.query]
    if op.writes:
        parameters.append(_IDEMPOTENCY)
    scope = (
        "; of an organization's token: what is the organization's" if op.scoped else "; not for an organization's token"
    )
    described: dict[str, Any] = {
        "summary": op.summary,
        "description": f"Least role: {op.least}{scope}.",
        "parameters": parameters,
        "security": [{"token": []}],
    }
    if op.takes is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema_of[op.takes]}}}
    content = {} if op.gives is None else {"content": {"application/json": {"schema": schema_of[op.gives]}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    described["responses"] = {
        "204" if op.gives is None else "200": {"description": "done", **content},
        **{status: {"description": why, "content": error} for status, why in ERRORS.items()},
    }
    return described
