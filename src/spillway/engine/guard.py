"""Which JSON schemas the engine takes. Pure.

A schema that cannot be compiled would stop the pipeline for everybody, and one that is compiled slowly would stall it. What the
compiler would read and not enforce is refused as well: a client that asks for `uniqueItems` must not get a list without it. So
only known words pass, under bounds, before `schemas.py` tries to compile.
"""

import re
from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from spillway.core.errors import BadRequestError

MAX_BYTES = 16 * 1024
MAX_DEPTH = 16
MAX_SCHEMAS = 256
MAX_LENGTH = 4096
MAX_CHOICES = 500
MAX_PATTERN_CHARS = 256
MAX_PATTERN_REPEATS = 1000

TYPES = frozenset(("object", "array", "string", "integer", "number", "boolean", "null"))
FORMATS = frozenset(("date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri"))
ANNOTATIONS = frozenset(
    ("title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly")
)
LENGTHS = frozenset(("minLength", "maxLength", "minItems", "maxItems"))
BOUNDS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
ONE_SCHEMA = frozenset(("items", "additionalProperties"))
MANY_SCHEMAS = frozenset(("anyOf", "prefixItems"))
NAMED_SCHEMAS = frozenset(("properties", "$defs", "definitions"))
_COUNTED = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_UNSUPPORTED_IN_PATTERN = re.compile(r"\(\?(?!:)|\\[1-9bBkpP]")

Json = Mapping[str, object]


def check_schema(text: bytes) -> str:
    """The schema as text for the compiler. Raises BadRequestError for what is not taken, saying what and why."""
    if len(text) > MAX_BYTES:
        raise _refusal(f"it has more than {MAX_BYTES} bytes")
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refusal("it is not JSON") from error
    if not isinstance(tree, dict):
        raise _refusal("it is not an object")
    walk = _Walk(cast("Json", tree))
    walk.run()
    return text.decode()


class _Walk:
    """Visits every schema inside a schema once. References must point to definitions, which are visited in their place."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._seen = 0

    def run(self) -> None:
        self._visit(self._root, depth=1)

    def _visit(self, schema: object, *, depth: int) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise _refusal("a schema is neither an object nor a boolean")
        self._seen += 1
        if depth > MAX_DEPTH:
            raise _refusal(f"it is more than {MAX_DEPTH} levels deep")
        if self._seen > MAX_SCHEMAS:
            raise _refusal(f"it has more than {MAX_SCHEMAS} schemas inside")
        schema = cast("Json", schema)
        for word, value in schema.items():
            for inner in self._check_word(word, value):
                self._visit(inner, depth=depth + 1)
        _check_ranges(schema)

    def _check_word(self, word: str, value: object) -> Iterator[object]:
        """Refuses what cannot be enforced; gives the schemas inside."""
        if word in ANNOTATIONS:
            return
        if word in ONE_SCHEMA:
            yield value
        elif word in MANY_SCHEMAS:
            yield from _list(word, value)
        elif word == "allOf":
            if len(_list(word, value)) != 1:
                raise _refusal("allOf with more than one schema is not supported")
            yield from _list(word, value)
        elif word in NAMED_SCHEMAS:
            yield from _object(word, value).values()
        elif word == "$ref":
            self._check_reference(value)
        else:
            _check_plain_word(word, value)

    def _check_reference(self, value: object) -> None:
        if value == "#":
            return
        if not isinstance(value, str) or not value.startswith("#/"):
            raise _refusal("$ref must point inside the schema")
        found: object = self._root
        for part in value[2:].split("/"):
            if not isinstance(found, dict) or part not in found:
                raise _refusal(f"$ref {_short(value)} points nowhere")
            found = cast("Json", found)[part]


def _check_plain_word(word: str, value: object) -> None:
    """Words without schemas inside."""
    if word == "type":
        kinds = cast("list[object]", value) if isinstance(value, list) else [value]
        if not kinds or any(not isinstance(kind, str) or kind not in TYPES for kind in kinds):
            raise _refusal(f"type {_short(value)} is not known")
    elif word in LENGTHS:
        if not _is_integer(value) or not 0 <= cast("int", value) <= MAX_LENGTH:
            raise _refusal(f"{word} must be an integer from 0 to {MAX_LENGTH}")
    elif word in BOUNDS:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 2**53:
            raise _refusal(f"{word} must be a number of at most 2^53")
    elif word == "required":
        if any(not isinstance(name, str) for name in _list(word, value)):
            raise _refusal("required must be a list of names")
    elif word == "enum":
        if not 0 < len(_list(word, value)) <= MAX_CHOICES:
            raise _refusal(f"enum must have 1 to {MAX_CHOICES} values")
    elif word == "pattern":
        _check_pattern(value)
    elif word == "format":
        if value not in FORMATS:
            raise _refusal(f"format {_short(value)} is not supported")
    elif word != "const":
        raise _refusal(f"{_short(word)} is not supported")


def _check_pattern(value: object) -> None:
    """A regular expression of the kind that the compiler knows, and whose counted repeats stay small when multiplied out."""
    if not isinstance(value, str) or len(value) > MAX_PATTERN_CHARS:
        raise _refusal(f"pattern must be a text of at most {MAX_PATTERN_CHARS} characters")
    if _UNSUPPORTED_IN_PATTERN.search(value):
        raise _refusal("pattern uses look-around, a back reference, a word boundary or a Unicode class")
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise _refusal("pattern is not a regular expression") from error
    repeats = 1
    for low, high in _COUNTED.findall(value):
        repeats *= max(1, int(high or low))
        if repeats > MAX_PATTERN_REPEATS:
            raise _refusal(f"the repeats in pattern multiply to more than {MAX_PATTERN_REPEATS}")


def _check_ranges(schema: Json) -> None:
    """A range that nothing satisfies."""
    for low, high in (("minLength", "maxLength"), ("minItems", "maxItems"), ("minimum", "maximum")):
        if low in schema and high in schema and cast("float", schema[low]) > cast("float", schema[high]):
            raise _refusal(f"{low} is greater than {high}")


def _list(word: str, value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        if word == "required" and value == []:
            return []
        raise _refusal(f"{word} must be a list that is not empty")
    return cast("list[object]", value)


def _object(word: str, value: object) -> Json:
    if not isinstance(value, dict):
        raise _refusal(f"{word} must be an object")
    return cast("Json", value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "…"


def _refusal(reason: str) -> BadRequestError:
    return BadRequestError(f"The JSON schema cannot be used: {reason}.", param="response_format", code="invalid_schema")
