"""Error bodies: ours have all four keys; those of upstreams are read whatever engine wrote them."""

import json

import pytest

from spillway.core.ids import ModelName
from spillway.wire import openai


def test_error_body_has_four_keys_and_real_nulls() -> None:
    body = openai.error_body('no "such" model\n', "invalid_request_error", None, None)
    assert b"\n" not in body
    assert json.loads(body) == {
        "error": {"message": 'no "such" model\n', "type": "invalid_request_error", "param": None, "code": None}
    }


def test_list_of_models() -> None:
    listed = json.loads(openai.models_body([ModelName("b"), ModelName("a")], 7))
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["b", "a"]
    assert listed["data"][0] == json.loads(openai.model_body(ModelName("b"), 7))
    assert listed["data"][0]["object"] == "model"
    assert listed["data"][0]["created"] == 7


CONTEXT_WORDS = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"message": "m", "type": "t", "param": None, "code": "context_length_exceeded"}}, "context_length_exceeded"),
        ({"object": "error", "message": CONTEXT_WORDS, "type": "BadRequestError", "code": 400}, "context_length_exceeded"),
        ({"error": {"message": CONTEXT_WORDS, "type": "BadRequestError", "code": 400}}, "context_length_exceeded"),
        ({"error": {"message": "The input (9 tokens) is longer than the model's context length (4 tokens)."}}, "context_length_exceeded"),
        ({"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000", "error_type": "validation"}, "context_length_exceeded"),
        ({"error": {"message": "The response was filtered", "code": "content_filter"}}, "content_filter"),
        ({"error": {"message": "Rejected by our content management policy", "code": None}}, "content_filter"),
        ({"error": {"message": "bad temperature", "type": "invalid_request_error", "code": "invalid_value"}}, "invalid_value"),
        ({"error": {"message": "bad temperature", "code": 400}}, None),
        ({"detail": "Not found"}, None),
    ],
)  # fmt: skip
def test_codes_of_upstream_errors(body: object, code: str | None) -> None:
    said = openai.read_error(json.dumps(body).encode())
    assert said.code == code
    assert said.message


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[1]", b"null", b'{"error":[1]}', b'{"error":null}', b"\xff", b"[" * 100_000, b'"' + b"x" * (1 << 17) + b'"'],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_error_body_says_nothing(body: bytes) -> None:
    assert openai.read_error(body) == openai.UpstreamError()


def test_messages_are_bounded() -> None:
    said = openai.read_error(json.dumps({"error": {"message": "x" * 9999}}).encode())
    assert len(said.message) == openai.MAX_MESSAGE_CHARS
