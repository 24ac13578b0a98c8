"""Reading request bodies: what is found, what is refused, and that nothing else is touched when they are rewritten."""

import json

import pytest

from spillway.core.errors import BadRequestError
from spillway.wire import envelope
from spillway.wire.envelope import Kind

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'


def chat(fields: str) -> bytes:
    return f"{{{fields},{MESSAGES}}}".encode()


def test_reads_what_routing_needs() -> None:
    request = {
        "model": "npc",
        "messages": [{"role": "user", "content": "hello"}],
        "tools": [{"type": "function"}],
        "stream": True,
        "stream_options": {"include_usage": True, "other": 1},
        "max_tokens": 9,
        "max_completion_tokens": 7,
        "n": 3,
        "service_tier": "flex",
        "user": "u",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
    }
    read = envelope.read(json.dumps(request).encode(), Kind.CHAT)
    assert (read.model, read.stream, read.include_usage, read.max_tokens, read.choices) == ("npc", True, True, 7, 3)
    assert (read.service_tier, read.user, read.prompt_cache_key, read.safety_identifier) == ("flex", "u", "k", "s")
    assert read.input_bytes == len(json.dumps(request["messages"])) + len(json.dumps(request["tools"]))
    assert read.output_tokens_estimate == 3 * 7


def test_absent_and_null_fields_are_the_same() -> None:
    bare = envelope.read(chat('"model":"m"'), Kind.CHAT)
    nulls = envelope.read(
        chat('"model":"m","stream":null,"stream_options":null,"max_tokens":null,"n":null,"user":null'), Kind.CHAT
    )
    for read in (bare, nulls):
        assert (read.stream, read.include_usage, read.max_tokens, read.choices, read.user) == (
            False,
            False,
            None,
            1,
            None,
        )
        assert read.output_tokens_estimate == envelope.USUAL_OUTPUT_TOKENS


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.COMPLETIONS, '"prompt":"once"'),
        (Kind.COMPLETIONS, '"prompt":[1,2,3]'),
        (Kind.EMBEDDINGS, '"input":["a","b"]'),
        (Kind.EMBEDDINGS, '"input":"a"'),
    ],
)
def test_other_kinds_have_their_own_prompt(kind: Kind, fields: str) -> None:
    read = envelope.read(f'{{"model":"m",{fields}}}'.encode(), kind)
    assert read.input_bytes == len(fields.partition(":")[2])
    assert (read.output_tokens_estimate == 0) == (kind is Kind.EMBEDDINGS)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "not valid JSON"),
        (b"[]", None, "must be a JSON object"),
        (b'"text"', None, "must be a JSON object"),
        (b"null", None, "must be a JSON object"),
        (b"{}", "model", "required"),
        (b'{"messages":[]} x', None, "not valid JSON"),
        (chat('"model":""'), "model", "required"),
        (chat('"model":null'), "model", "expected"),
        (chat('"model":7'), "model", "expected str, got int"),
        (chat('"model":"%s"' % ("m" * 257)), "model", "256"),
        (b'{"model":"m"}', "messages", "required"),
        (b'{"model":"m","messages":"hi"}', "messages", "required"),
        (b'{"model":"m","messages":null}', "messages", "required"),
        (b'{"model":"m","prompt":"hi"}', "messages", "required"),
        (chat('"model":"m","stream":"yes"'), "stream", "expected bool"),
        (chat('"model":"m","stream_options":{"include_usage":1}'), "stream_options.include_usage", "expected bool"),
        (chat('"model":"m","stream_options":[]'), "stream_options", "expected object"),
        (chat('"model":"m","max_tokens":1.5'), "max_tokens", "expected int"),
        (chat('"model":"m","max_tokens":-1'), "max_tokens", ">= 0"),
        (chat('"model":"m","max_tokens":99999999999999999999999'), "max_tokens", "expected int"),
        (chat('"model":"m","n":0'), "n", ">= 1"),
        (chat('"model":"m","n":129'), "n", "<= 128"),
        (chat('"model":"m","user":"%s"' % ("u" * 1025)), "user", "1024"),
        (chat('"model":"m","temperature":NaN'), None, "not valid JSON"),
        (chat('"model":"m","x":"\xff"').decode().encode("latin-1").replace(b"x", b"\xff"), None, "not valid JSON"),
        (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "nested too deep"),
        (b'{"model":"m","messages":["caf\xe9"]}', None, "not valid JSON"),
        (b'{"model":"m","messages":["\xed\xa0\x80"]}', None, "not valid JSON"),
        (chat('"model":"m","model":"n"'), None, "once only"),
        (chat('"model":"m","model":"m"'), None, "once only"),
        (chat('"model":"m","x":1,"x":12'), None, "once only"),
        (chat('"model":"m","x":12,"x":1'), None, "once only"),
        (b'{"model":"m","messages":[1],"messages":[1]}', None, "once only"),
        (chat('"mod\\u0065l":"m"'), None, "once only"),
        (chat('"model":"m","x\\n":1'), None, "once only"),
        (chat('"model":"m","Model":"n"'), "model", "lower case"),
        (chat('"model":"m","STREAM":true'), "stream", "lower case"),
        (chat('"model":"m","\u017ftream":true'), "stream", "lower case"),
        (chat('"model":"m","to\u212aens":1,"Max_To\u212aens":2'), "max_tokens", "lower case"),
        (chat('"model":"m","stream_options":{"include_usage":false,"include_usage":true}'), None, "once only"),
        (chat('"model":"m","stream_options":{"Include_Usage":false}'), "include_usage", "lower case"),
        (chat('"model":"m",' + ",".join(f'"f{i}":1' for i in range(300))), None, "256 fields"),
        (chat('"model":"m","x":"%s"' % ("y" * envelope.MAX_REST_BYTES)), None, "exceed"),
    ],
)
def test_refuses(body: bytes, param: str | None, words: str) -> None:
    with pytest.raises(BadRequestError, match=words.replace("(", r"\(")) as caught:
        envelope.read(body, Kind.CHAT)
    assert caught.value.param == param


@pytest.mark.parametrize("big", ["messages", "tools", "response_format"])
@pytest.mark.parametrize("twin", [True, False])
def test_big_fields_are_cut_but_counted_as_keys(big: str, *, twin: bool) -> None:
    """Spans behind a big value are right, and a big key that is there twice is still seen."""
    request: dict[str, object] = {"messages": [{"content": "m"}], "stream": True}
    request[big] = [{"x": "y" * 5000}]
    body = json.dumps({**request, "model": "npc", "stream_options": {"a": 1}})
    if twin:
        body = body[:-1] + f', "{big}": {json.dumps(request[big])}}}'
        with pytest.raises(BadRequestError, match="once only"):
            envelope.read(body.encode(), Kind.CHAT)
        return
    read = envelope.read(body.encode(), Kind.CHAT)
    assert body[slice(*read.model_span)] == '"npc"'
    assert read.stream_options_span is not None
    assert body[slice(*read.stream_options_span)] == '{"a": 1}'


def test_a_cut_that_lands_in_another_object_does_no_harm() -> None:
    """The same key and value once more inside of an unknown field, in front: that is where the cut lands."""
    messages = json.dumps([{"role": "user", "content": "z" * 3000}])
    body = f'{{"x":{{"messages":{messages},"model":"wrong"}},"messages":{messages},"model":"right"}}'.encode()
    read = envelope.read(body, Kind.CHAT)
    assert read.model == "right"
    assert body[slice(*read.model_span)] == b'"right"'
    assert json.loads(envelope.rewrite(body, read, model="up", ask_for_usage=False))["model"] == "up"


def test_a_long_number_is_not_cut_out_of_a_longer_one() -> None:
    digits = "1" * 3000
    body = f'{{"model":"m","x":{{"tools":{digits}5}},"tools":{digits},{MESSAGES}}}'.encode()
    assert envelope.read(body, Kind.CHAT).model == "m"


def test_names_inside_of_strings_are_not_keys() -> None:
    content = '","model":"evil","stream_options":{"include_usage":true},"messages":[1],"x":"'
    body = json.dumps({"messages": [{"content": content * 50}], "model": "m", "user": '"model":"evil"'}).encode()
    read = envelope.read(body, Kind.CHAT)
    assert read.model == "m"
    assert not read.include_usage
    assert json.loads(envelope.rewrite(body, read, model="up", ask_for_usage=False)) == {
        **json.loads(body),
        "model": "up",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"include_usage": True}),
        ("null", {"include_usage": True}),
        ("{}", {"include_usage": True}),
        ("{ \n}", {"include_usage": True}),
        ('{"include_usage":false}', {"include_usage": True}),
        ('{"include_usage" : null , "a":1}', {"include_usage": True, "a": 1}),
        ('{"a":{"include_usage":false},"b":"include_usage"}', {"include_usage": True, "a": {"include_usage": False}, "b": "include_usage"}),
    ],
)  # fmt: skip
def test_asks_for_usage(options: str, expected: object) -> None:
    body = chat(f'"model":"m","stream_options":{options}' if options else '"model":"m"')
    read = envelope.read(body, Kind.CHAT)
    assert not read.include_usage
    rewritten = envelope.rewrite(body, read, model=None, ask_for_usage=True)
    assert json.loads(rewritten) == {**json.loads(body), "stream_options": expected}
    again = envelope.read(rewritten, Kind.CHAT)
    assert again.include_usage
    assert envelope.rewrite(rewritten, again, model="m", ask_for_usage=True) is rewritten


def test_rewrites_the_model_only() -> None:
    body = b'\n{ "messages" : [ 1 ],\t"model" :  "npc" , "x": 1.00 }\n'
    read = envelope.read(body, Kind.CHAT)
    assert envelope.rewrite(body, read, model='a"b', ask_for_usage=False) == body.replace(b'"npc"', b'"a\\"b"')
