"""Only schemas that can be enforced, and compiled in time, pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import BadRequestError
from spillway.engine.guard import MAX_BYTES, MAX_DEPTH, check_schema

ITEM = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Item",
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30, "description": "as shown"},
        "rarity": {"enum": ["rare", "epic"]},
        "level": {"type": "integer", "minimum": 1, "maximum": 50},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,12}$"}, "maxItems": 4},
        "owner": {"$ref": "#/$defs/owner"},
        "not": {"type": ["string", "null"]},
    },
    "required": ["name", "rarity"],
    "additionalProperties": False,
    "$defs": {"owner": {"anyOf": [{"type": "null"}, {"type": "string", "format": "uuid"}]}},
}


def nested(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return schema


def encoded(schema: object) -> bytes:
    return json.dumps(schema).encode()


@pytest.mark.parametrize(
    "schema", [ITEM, {}, {"type": "object"}, {"$ref": "#"}, {"allOf": [{"type": "string"}]}, nested(MAX_DEPTH)]
)
def test_usual_schemas_pass_as_they_are(schema: dict[str, object]) -> None:
    assert json.loads(check_schema(encoded(schema))) == schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "not known"),
        ({"type": []}, "not known"),
        ([1], "not an object"),
        ({"properties": {"a": 3}}, "neither an object nor a boolean"),
        ({"properties": ["a"]}, "must be an object"),
        ({"not": {"type": "string"}}, '"not" is not supported'),
        ({"type": "array", "uniqueItems": True}, '"uniqueItems" is not supported'),
        ({"type": "integer", "multipleOf": 5}, '"multipleOf" is not supported'),
        ({"if": {}, "then": {}}, '"if" is not supported'),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "allOf"),
        ({"$ref": "https://example.invalid/x"}, "inside the schema"),
        ({"$ref": "#/$defs/none"}, "points nowhere"),
        ({"type": "string", "maxLength": 10**9}, "maxLength"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength is greater"),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "minimum is greater"),
        ({"type": "integer", "minimum": True}, "must be a number"),
        ({"type": "string", "pattern": "("}, "not a regular expression"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "((a{90}){90}){90}"}, "repeats"),
        ({"type": "string", "pattern": "a" * 300}, "characters"),
        ({"type": "string", "format": "hostname"}, "format"),
        ({"enum": []}, "enum"),
        ({"anyOf": []}, "anyOf"),
        ({"required": "name"}, "required"),
        (nested(MAX_DEPTH + 1), "levels deep"),
        ({"properties": {f"p{i}": {} for i in range(300)}}, "schemas inside"),
        ({"description": "x" * MAX_BYTES}, "bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_or_costs_too_much_is_refused(schema: object, reason: str) -> None:
    with pytest.raises(BadRequestError, match="cannot be used") as caught:
        check_schema(encoded(schema))
    assert reason in str(caught.value)
    assert caught.value.param == "response_format"
    assert caught.value.code == "invalid_schema"


@pytest.mark.parametrize("text", [b"{", b"", b'{"a":', b"[" * 5000, b"nul"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(BadRequestError):
        check_schema(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["type", "items", "properties", "$ref", "enum", "pattern", "anyOf", "minLength", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_json_passes_or_is_refused_and_nothing_else(value: object) -> None:
    text = encoded(value)
    try:
        assert check_schema(text) == text.decode()
    except BadRequestError as error:
        assert error.code == "invalid_schema"  # noqa: PT017  the property is that nothing else is raised
