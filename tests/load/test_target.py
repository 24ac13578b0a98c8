"""Requests are legal HTTP and JSON, of the wanted length, and belong to clients in proportion."""

from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import UsageError
from spillway.load.corpus import Corpus, Yardstick, yardstick_from
from spillway.load.sizes import Fit, Size, drawn_sizes, trace_sizes
from spillway.load.target import Credential, RequestMaker, Shape, parse_target, read_credentials
from spillway.wire.traces import TraceRecord

CLIENT = Credential("c", "sk-1")


def make(shape: Shape, url: str = "http://127.0.0.1:8080", clients: list[Credential] | None = None) -> RequestMaker:
    corpus = Corpus(np.random.default_rng(1))
    return RequestMaker(parse_target(url), shape, clients or [CLIENT], corpus, np.random.default_rng(2))


def body_of(request: bytes) -> dict[str, object]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert int(lines["content-length"]) == len(body)
    return msgspec.json.decode(body, type=dict[str, object])


def test_a_chat_request() -> None:
    shape = Shape(
        model='m"x', ignore_eos=True, sessions=3, extra={"service_tier": msgspec.Raw(b'"flex"')}, headers=("x-a: b",)
    )
    request = make(shape).request(CLIENT, Size(20, 7))
    head = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0] == "POST /v1/chat/completions HTTP/1.1"
    assert {"host: 127.0.0.1:8080", "authorization: Bearer sk-1", "x-a: b"} <= set(head)
    body = body_of(request)
    content = body.pop("messages")
    assert content == [{"role": "user", "content": msgspec.convert(content, list[dict[str, str]])[0]["content"]}]
    assert str(body.pop("prompt_cache_key")).startswith("session-")
    assert body == {
        "model": 'm"x', "max_tokens": 7, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
        "service_tier": "flex",
    }  # fmt: skip


def test_a_completion_that_is_not_streamed() -> None:
    request = make(Shape(model="m", chat=False, streamed=False), "http://h/base/").request(CLIENT, Size(20, 7))
    assert request.startswith(b"POST /base/v1/completions HTTP/1.1\r\nhost: h\r\n")
    body = body_of(request)
    assert (body.keys(), len(str(body["prompt"]))) == ({"model", "prompt", "max_tokens"}, 80)


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "/v1"),
        ("http://h/v1/", "h", "/v1"),
        ("https://h:8443/a", "h:8443", "/a/v1"),
        ("https://h", "h", "/v1"),
        ("http://[::1]:80", "[::1]", "/v1"),
    ],
)
def test_urls(url: str, authority: str, path: str) -> None:
    target = parse_target(url)
    assert (target.authority, target.base_path, target.tls) == (authority, path, url.startswith("https"))


@pytest.mark.parametrize("url", ["", "h:80", "ftp://h", "http://", "http://h:port", "http://h\r\nx: y", "http://a b"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UsageError):
        parse_target(url)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(model="m", extra={"stream": msgspec.Raw(b"false")}),
        Shape(model="m", headers=("no colon",)),
        Shape(model="m", headers=("a: b\r\nc: d",)),
        Shape(model="m", headers=("Content-Length: 3",)),
    ],
)
def test_what_would_break_a_request(shape: Shape) -> None:
    with pytest.raises(UsageError):
        make(shape)


def test_a_key_that_would_break_a_header() -> None:
    with pytest.raises(UsageError) as caught:
        make(Shape(model="m"), clients=[Credential("c", "secret\r\nx: y")])
    assert "secret" not in str(caught.value)


def test_clients_get_requests_by_weight() -> None:
    clients = read_credentials(["# a comment", "", "sk-0", "big sk-1 8", "small sk-2 1.0"])
    assert [client.label for client in clients] == ["client-1", "big", "small"]
    maker = make(Shape(model="m"), clients=clients)
    counts = Counter(maker.client().label for _ in range(5000))
    assert counts["big"] == pytest.approx(4000, rel=0.05)
    assert counts["small"] == pytest.approx(500, rel=0.2)
    assert b"Bearer sk-2" in maker.request(clients[2], Size(9, 1))


@pytest.mark.parametrize(
    "lines", [[], ["a b c d"], ["a b 0"], ["a b nan"], ["a b -1"], ["a b", "a c"], ["client-2 b", "c"]]
)
def test_what_is_no_keys_file(lines: list[str]) -> None:
    with pytest.raises(UsageError):
        read_credentials(lines)


@given(st.integers(1, 400_000), st.lists(st.integers(0, 2**31), min_size=1, max_size=20), st.integers(1, 3000))
def test_prompts_have_exactly_the_wanted_length(chars: int, hash_ids: list[int], block_chars: int) -> None:
    corpus = Corpus(np.random.default_rng(1))
    assert len(corpus.prompt(chars)) == chars
    assert len(corpus.blocks(hash_ids, block_chars, chars)) == chars


def test_equal_leading_ids_are_an_equal_prefix() -> None:
    corpus = Corpus(np.random.default_rng(1))
    one, other = corpus.blocks([1, 2, 3], 100, 300), corpus.blocks([1, 2, 4], 100, 300)
    assert one[:200] == other[:200]
    assert one[200:] != other[200:]
    assert corpus.prompt(300) != corpus.prompt(300)


def test_a_yardstick_is_the_line_through_its_probes() -> None:
    found = yardstick_from([(150, 10 + 75), (600, 10 + 300), (150, 10 + 75)])
    assert found is not None
    assert found == Yardstick(2.0, 10.0, measured=True)
    assert found.chars(110) == 200
    assert yardstick_from([(150, 80)]) is None
    assert yardstick_from([(150, 80), (600, 80)]) is None
    assert Yardstick(2.0, 10.0).chars(3) == 1


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(2, 5000), st.floats(0.01, 4))
def test_what_is_clipped_fits_and_what_fits_is_not_clipped(
    inputs: int, outputs: int, context: int, scale: float
) -> None:
    fitted = Fit(scale_input=scale, context=context).apply(Size(inputs, outputs))
    assert fitted.input_tokens >= 1
    assert fitted.output_tokens >= 1
    assert fitted.input_tokens + fitted.output_tokens <= max(2, context)
    wanted = (max(1, round(inputs * scale)), outputs)
    assert fitted.clipped == ((fitted.input_tokens, fitted.output_tokens) != wanted)
    if sum(wanted) <= context * 0.9 - 1:
        assert not fitted.clipped


def test_without_a_context_nothing_is_clipped() -> None:
    assert Fit().apply(Size(10**6, 10**6)) == Size(10**6, 10**6)


def test_sizes() -> None:
    drawn = drawn_sizes(100, 0, 5, 50, np.random.default_rng(3))
    sizes = [next(drawn) for _ in range(100)]
    assert {size.input_tokens for size in sizes} == {100}
    assert min(size.output_tokens for size in sizes) == 1
    again = trace_sizes([TraceRecord(0, 3, 4, (9,)), TraceRecord(1, 5, 6, ())])
    assert [next(again) for _ in range(3)] == [Size(3, 4, (9,)), Size(5, 6), Size(3, 4, (9,))]
