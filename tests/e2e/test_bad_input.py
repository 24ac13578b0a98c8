"""Whatever a client sends, it hears what is wrong in the four keys of the dialect, and the gateway serves the next one."""

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spillway.testing.processes import started
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, free_port, live, running, write_config
from tests.e2e.talking import Answer, request

pytestmark = pytest.mark.server

NARROW_KEY = "sk-e2e-narrow-0123456789"
MAX_BODY_BYTES = 100_000
MAX_CONNECTIONS = 40
LIMITS = {
    "head_timeout_s": 0.3,
    "body_timeout_s": 0.3,
    "max_head_bytes": 8192,
    "linger_s": 0.5,
    "max_connections": MAX_CONNECTIONS,
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running({"max_body_bytes": MAX_BODY_BYTES, "limits": LIMITS}) as started_gateway:
        yield started_gateway


async def refused(fleet: Fleet, data: bytes, status: int, *, goes_on: bool = True, method: str = "POST") -> Answer:
    """Sends `data`, expects a clean refusal, and a gateway that serves on: on the same connection where HTTP allows it."""
    async with fleet.talk() as talk:
        talk.send(data)
        answer = await talk.answer(method)
        assert answer.status == status, answer.body
        assert answer.headers["content-type"] == "application/json"
        assert answer.error
        if goes_on:
            talk.send(fleet.request())
            assert (await talk.answer()).status == 200
        else:
            assert answer.headers["connection"] == "close"
            assert await talk.ended()
            assert (await fleet.ask()).status == 200
    return answer


def about(fleet: Fleet, **fields: Any) -> dict[str, Any]:
    return {**fleet.body(), **fields}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"null", None),
        (b"[]", None),
        (b'"text"', None),
        (b"{}", "model"),
        (b'{"model":""}', "model"),
        (b'{"model":1,"messages":[]}', "model"),
        (b'{"model":"MODEL"}', "messages"),
        (b'{"model":"MODEL","messages":"text"}', "messages"),
        (b'{"model":"MODEL","messages":[],"stream":"yes"}', "stream"),
        (b'{"model":"MODEL","messages":[],"max_tokens":-1}', "max_tokens"),
        (b'{"model":"MODEL","messages":[],"n":1000}', "n"),
        (b'{"model":"MODEL","messages":[]} trailing', None),
        (b'{"model":"MODEL","messages":[{"content":"\xff\xfe"}]}', None),
        (b'{"model":"\xc3","messages":[]}', None),
        (b'{"model":"MODEL","messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}", None),
        (b'{"model":"MODEL","x":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b',"messages":[]}', None),
        (b'{"model":"MODEL","messages":[],"temperature":NaN}', None),
    ],
)
@live
async def test_a_body_that_cannot_be_understood_is_400(gateway: Gateway, body: bytes, param: str | None) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        answer = await refused(fleet, request(body.replace(b"MODEL", fleet.model.encode()), key=KEY), 400)
        assert answer.error["type"] == "invalid_request_error"
        if param is not None:
            assert answer.error["param"] == param
        assert fleet["east"].log.arrived == 1  # the request after it


@live
async def test_an_unknown_model_is_404_and_becomes_no_label(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        answer = await refused(fleet, request(about(fleet, model="nobody-knows-me"), key=KEY), 404)
        assert (answer.error["code"], answer.error["param"]) == ("model_not_found", "model")
        record = await gateway.record(answer.headers["x-request-id"])
        assert (record["model"], record["outcome"]) == ("", "model_not_found")
        await gateway.counts(1, "spillway_requests_total", model=fleet.model, outcome="ok")
        assert await gateway.metric("spillway_requests_total", model="nobody-knows-me") == 0


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic d3Jvbmc6d3Jvbmc=", KEY, "Bearer \xff\xfe"]
)
@live
async def test_without_a_key_it_is_401_and_nothing_is_written(gateway: Gateway, authorization: str | None) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        headers = {} if authorization is None else {"authorization": authorization}
        answer = await refused(fleet, request(fleet.body(), key=None, headers=headers), 401)
        assert answer.error["code"] == "invalid_api_key"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
@live
async def test_keys_may_come_in_the_headers_of_other_dialects(gateway: Gateway, header: str) -> None:
    async with gateway.fleet(Site("east")) as fleet, fleet.talk() as talk:
        talk.send(request(fleet.body(), key=None, headers={header: KEY}))
        assert (await talk.answer()).status == 200


@live
async def test_a_key_without_the_model_is_403_and_does_not_see_it(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east"), keys=[]) as fleet:
        other = {"model-other": {"tiers": [[fleet.pool("east")]]}}
        models = {fleet.model: {"tiers": [[fleet.pool("east")]]}, **other}
        narrow = {"secret": NARROW_KEY, "tenant": "narrow", "models": ["model-other"]}
        await gateway.configure({"models": models, "keys": [*gateway.config["keys"], narrow]})
        answer = await refused(fleet, request(fleet.body(), key=NARROW_KEY), 403)
        assert (answer.error["code"], answer.error["param"]) == ("model_not_allowed", "model")
        listed = await gateway.get("/v1/models", key=NARROW_KEY)
        assert [model["id"] for model in listed.json["data"]] == ["model-other"]
        assert (await gateway.get(f"/v1/models/{fleet.model}", key=NARROW_KEY)).status == 404


@live
async def test_a_body_over_the_bound_is_413(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        content = json.dumps(about(fleet, padding="x" * MAX_BODY_BYTES)).encode()
        announced = await refused(fleet, request(content, key=KEY), 413, goes_on=False)
        assert announced.error["code"] == "request_too_large"
        head = request(b"", key=KEY, headers={"transfer-encoding": "chunked"}).replace(b"content-length: 0\r\n", b"")
        chunks = b"".join(b"%x\r\n%b\r\n" % (4096, content[:4096]) for _ in range(30))
        await refused(fleet, head + chunks, 413, goes_on=False)
        fits = json.dumps(about(fleet, padding="x" * (MAX_BODY_BYTES - 1000))).encode()
        async with fleet.talk() as talk:
            talk.send(request(fits, key=KEY))
            assert (await talk.answer()).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@live
async def test_a_wrong_method_is_405_and_says_the_right_one(gateway: Gateway, method: str, path: str) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        answer = await refused(fleet, request(b"", key=KEY, path=path, method=method), 405, method=method)
        assert answer.error["code"] == "method_not_allowed"
        assert answer.headers["allow"] == "POST"
        wrong = await refused(fleet, request(fleet.body(), key=KEY, path="/v1/models"), 405)
        assert "GET" in wrong.headers["allow"]


UNBUILT = ["/v1/responses", "/v1/messages"]


@pytest.mark.parametrize(
    "path", [*UNBUILT, "/v1/batches/b1/undo", "/", "/v1", "/v2/x", "//", "/v1/chat/completions/", "/..%2f..", "/%ff"]
)
@live
async def test_paths_that_are_not_built_are_404(gateway: Gateway, path: str) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        for method in ("POST", "GET"):
            answer = await refused(fleet, request(b"{}", key=KEY, path=path, method=method), 404, method=method)
            assert answer.error["code"] == "unsupported_endpoint"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nhost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)  # fmt: skip
@live
async def test_what_is_not_http_is_refused_and_the_connection_ends(gateway: Gateway, data: bytes, status: int) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        await refused(fleet, data, status, goes_on=False)


@pytest.mark.parametrize("cut_at", [30, -5], ids=["in the head", "in the body"])
@live
async def test_a_request_that_does_not_come_is_408(gateway: Gateway, cut_at: int) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        answer = await refused(fleet, fleet.request()[:cut_at], 408, goes_on=False)
        assert answer.error["code"] == "request_timeout"


@live
async def test_connections_over_the_bound_are_told_so(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        talks = [fleet.talk() for _ in range(MAX_CONNECTIONS + 1)]
        try:
            for talk in talks:
                await talk.__aenter__()
            answer = await talks[-1].answer()
            assert answer.status == 503
            assert answer.error["code"] == "unavailable"
        finally:
            for talk in talks:
                talk.leave()
        async with asyncio.timeout(5.0):
            while (await fleet.ask()).status != 200:  # the gateway has not read yet that they left
                await asyncio.sleep(0.01)


@live
async def test_the_admin_port_refuses_cleanly_too(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")):
        wrong: list[tuple[str, str, Any, int]] = [
            ("GET", "/admin/v1/nothing", None, 404),
            ("POST", "/admin/v1/pools", None, 405),
            ("POST", "/admin/v1/keys", {}, 400),
            ("POST", "/admin/v1/keys", {"tenant": ""}, 400),
            ("POST", "/admin/v1/keys", {"tenant": "t", "models": ["none"]}, 400),
            ("POST", "/admin/v1/keys", {"tenant": "t", "priority": "high"}, 400),
            ("POST", "/admin/v1/keys", {"tenant": "t", "expires_in_s": -1}, 400),
            ("DELETE", "/admin/v1/keys/none", None, 404),
            ("GET", "/admin/v1/keys?limit=many", None, 400),
            ("GET", "/admin/v1/usage?limit=-1", None, 400),
            ("GET", "/admin/v1/usage?cursor=nonsense", None, 400),
            ("GET", "/admin/v1/usage/records/none", None, 404),
            ("PUT", "/admin/v1/endpoints/draining", {"url": 1}, 400),
        ]
        for method, path, body, status in wrong:
            answer = await gateway.admin(method, path, body)
            assert (path, answer.status) == (path, status), answer.body
            assert answer.error["type"] == "invalid_request_error"


def ended(config: dict[str, Any], folder: Path) -> tuple[int, str]:
    """Starts `serve` and waits for its end: the exit status and what it said."""
    path = write_config(folder, config)
    with started("serve", "--config", str(path), "--home", str(folder / "home")) as process:
        status = process.wait(deadline_s=30.0)
        assert "Traceback" not in process.stderr
        return status, process.stderr


def plain(**changes: Any) -> dict[str, Any]:
    ports = {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}
    return {"gateway": {**ports, **changes}}


def test_a_bad_configuration_ends_with_2_and_the_place(tmp_path: Path) -> None:
    status, said = ended({**plain(), "models": {"npc": {"tiers": [["nowhere"]]}}}, tmp_path)
    assert status == 2
    assert "spillway.yaml:" in said
    assert "there is no pool 'nowhere'" in said


@pytest.mark.parametrize("address", ["listen", "admin"])
def test_a_port_in_use_ends_with_2_and_its_name(tmp_path: Path, address: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = ended(plain(**{address: place}), tmp_path)
    assert status == 2
    assert f"cannot listen on {place}" in said


@pytest.mark.parametrize("content", [None, "", "-----BEGIN CERTIFICATE-----\nnonsense\n"])
def test_unusable_tls_ends_with_2_before_anything_serves(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cert.pem").write_text(content)
        (tmp_path / "key.pem").write_text(content)
    status, said = ended(plain(tls={"cert": "cert.pem", "key": "key.pem"}), tmp_path)
    assert status == 2
    assert "cert.pem" in said
