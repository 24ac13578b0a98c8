"""What is promised about security, sentence by sentence."""

import asyncio
import contextlib
import json
import stat
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from spillway.config import Configuration
from spillway.testing.processes import started
from spillway.testing.spec import UpstreamSpec
from spillway.testing.tokens import Prompt, word
from tests.e2e.canned import Serve, answer, canned, listening
from tests.e2e.gateway import KEY, Fleet, Gateway, Site, free_port, live, running, write_config
from tests.e2e.talking import Answer, Json, Talk, request

pytestmark = pytest.mark.server

KEEPS = UpstreamSpec(output_tokens=4)
PROVIDER_KEY = "sk-of-the-provider-0123456789"
CANARY = "canary-4711-in-a-prompt"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as started_gateway:
        yield started_gateway


@pytest.mark.parametrize(
    "tail",
    [
        '"model":"MODEL","model":"other"',
        '"model":"other","model":"MODEL"',
        '"mod\\u0065l":"MODEL"',
        '"model":"MODEL","\\u006dodel":"other"',
        '"model":"MODEL","Model":"other"',
        '"model":"MODEL","stream":false,"stream":true',
        '"model":"MODEL","stream_options":{"include_usage":true,"include_usage":false}',
        '"model":"MODEL","messages":[]',
        '"model":"MODEL","max_tokens":1,"max_tokens":100000',
        '"model":"MODEL","service_tier":"flex","service_tier":"priority"',
    ],
)
@live
async def test_what_was_decided_on_is_what_the_upstream_reads(gateway: Gateway, tail: str) -> None:
    """Fields that two parsers could read differently are refused."""
    async with gateway.fleet(Site("east")) as fleet, fleet.talk() as talk:
        body = '{"messages":[{"role":"user","content":"hi"}],' + tail.replace("MODEL", fleet.model) + "}"
        talk.send(request(body.encode(), key=KEY))
        refused = await talk.answer()
        assert refused.status == 400
        assert refused.error["type"] == "invalid_request_error"
        assert fleet["east"].log.arrived == 0


@live
async def test_the_body_arrives_unchanged_but_for_the_model_and_the_wish_for_usage(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east", KEEPS)) as fleet:
        odd: Json = {"metadata": {"a": [1.0, 1e30, None]}, "unknown": "\u2028é😀", "temperature": 0.70}
        await fleet.ask(**odd)
        await fleet.ask(stream=True, **odd)
        whole, stream = (json.loads(seen.body) for seen in fleet["east"].log.requests)
        assert whole == {**fleet.body(**odd), "model": "fake"}
        assert stream == {
            **fleet.body(**odd),
            "model": "fake",
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@live
async def test_of_a_clients_headers_only_the_documented_ones_go_on(gateway: Gateway) -> None:
    sent = {
        "x-spillway-pool": "west",
        "x-spillway-anything": "yes",
        "x-upstream-fault": "500",
        "cookie": "session=1",
        "x-forwarded-for": "6.6.6.6",
        "forwarded": "for=6.6.6.6",
        "user-agent": "somebody",
        "accept": "text/plain",
        "accept-encoding": "gzip, br",
        "content-type": "text/weird",
        "openai-organization": "theirs",
        "connection": "keep-alive, x-hop",
        "x-hop": "1",
        "x-session-id": "abc",
        "api-key": "another",
    }
    hosted = {"provider": "openai", "api_key": PROVIDER_KEY}
    async with gateway.fleet(Site("east"), Site("west")) as fleet:
        for stream in (False, True):
            got = await fleet.ask(headers=sent, stream=stream)
            assert got.headers["x-spillway-pool"] == fleet.pool("east")
            headers = dict(fleet["east"].log.requests[-1].headers)
            assert headers.keys() == {b"host", b"accept-encoding", b"content-type", b"x-request-id", b"content-length"}
            assert headers[b"accept-encoding"] == b"identity"
            assert headers[b"content-type"] == b"application/json"
        url = fleet["east"].url + "/v1"
        await gateway.configure(
            {
                "pools": {"hosted": {"model": "fake", "base_url": url, **hosted}},
                "models": {fleet.model: {"tiers": [["hosted"]]}},
            }
        )
        while (await fleet.ask()).headers["x-spillway-pool"] != "hosted":
            await asyncio.sleep(0.01)
        seen = fleet["east"].log.requests[-1]
        assert seen.path == "/v1/chat/completions"
        assert seen.header("authorization") == f"Bearer {PROVIDER_KEY}"
        assert KEY.encode() not in b"".join(value for seen in fleet["east"].log.requests for _, value in seen.headers)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x"])
@live
async def test_compressed_bodies_are_415(gateway: Gateway, encoding: str) -> None:
    async with gateway.fleet(Site("east")) as fleet, fleet.talk() as talk:
        talk.send(fleet.request(headers={"content-encoding": encoding}))
        refused = await talk.answer()
        assert refused.status == 415
        assert refused.error["code"] == "unsupported_encoding"
        talk.send(fleet.request(headers={"content-encoding": "identity"}))
        assert (await talk.answer()).status == 200
        assert fleet["east"].log.arrived == 1


SECRET_ERROR = (
    b'{"error":{"message":"no\\nroom on http://10.0.0.7:8000/x for sk-abcdef123 %b","type":"cuda","param":"p","code":null,'
    b'"trace":"File engine.py"},"debug":"internal"}'
)


@contextlib.asynccontextmanager
async def behind(gateway: Gateway, fixed: bytes, rules: Json | None = None) -> AsyncGenerator[Fleet]:
    """A fleet whose only upstream always gives the same bytes."""
    async with canned([fixed]) as url, gateway.fleet(Site("odd", settings={"endpoints": [url]}), rules=rules) as fleet:
        yield fleet


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 418, 422, 429, 500, 502, 503, 504, 302, 204, 200])
@pytest.mark.parametrize("stream", [False, True])
@live
async def test_an_upstreams_error_never_passes_raw(gateway: Gateway, status: int, stream: bool) -> None:
    headers = b"content-type: text/html\r\nset-cookie: a=b\r\nserver: internal\r\nlocation: http://10.0.0.7/\r\nx-trace: t\r\n"
    body = SECRET_ERROR if status != 204 else b""
    rules = {"retries": {"attempts": 1}, "priorities": {"interactive": {"max_wait_s": 0.1}}}
    async with behind(gateway, answer(status, body, headers), rules) as fleet:
        got = await fleet.ask(stream=stream)
    assert got.status in (400, 429, 502, 504)
    assert got.headers["content-type"] == "application/json"
    assert not {"set-cookie", "server", "location", "x-trace"} & got.headers.keys()
    assert got.error["type"] in ("invalid_request_error", "rate_limit_error", "server_error")
    for secret in (b"10.0.0.7", b"sk-abc", b"cuda", b"engine.py", b"internal", b"\\n"):
        assert secret not in got.body


@live
async def test_headers_of_an_upstreams_good_answer_stay_behind_too(gateway: Gateway) -> None:
    headers = b"content-type: application/json\r\nset-cookie: a=b\r\nserver: internal\r\nx-request-id: theirs\r\n"
    async with behind(gateway, answer(200, b'{"choices":[]}', headers)) as fleet:
        got = await fleet.ask()
    assert got.status == 200
    assert got.headers["x-request-id"].startswith("req_")
    assert got.headers.keys() == {
        "content-type", "content-length", "x-request-id", "x-spillway-pool", "x-spillway-version", "x-spillway-attempts",
        "x-spillway-overhead-ms",
    }  # fmt: skip


async def admin(
    gateway: Gateway, path: str, *, key: str | None, host: str = "localhost", method: str = "GET"
) -> Answer:
    async with Talk(gateway.admin_port) as talk:
        talk.send(request(b"", key=key, path=path, method=method, headers={"host": host}))
        return await talk.answer(method)


@live
async def test_the_admin_port_answers_to_its_own_names_only(gateway: Gateway) -> None:
    token = gateway.admin_token
    for host in ("localhost", "127.0.0.1", f"127.0.0.1:{gateway.admin_port}", "LOCALHOST:1", "[::1]:80"):
        assert (await admin(gateway, "/admin/v1/pools", key=token, host=host)).status == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "[::2]"):
        for path in ("/admin/v1/pools", "/metrics", "/", "/health/live"):
            refused = await admin(gateway, path, key=token, host=host)
            assert refused.status == 403
            assert refused.error


@live
async def test_every_operation_wants_the_token(gateway: Gateway) -> None:
    document = (await admin(gateway, "/admin/v1/openapi.json", key=gateway.admin_token)).json
    operations = [(path, method.upper()) for path, methods in document["paths"].items() for method in methods]
    assert len(operations) >= 9
    for path, method in [*operations, ("/admin/v1/openapi.json", "GET"), ("/admin/v1/none", "GET")]:
        for key in (None, "", "wrong", KEY, gateway.admin_token[:-1], f"{gateway.admin_token}x"):
            refused = await admin(gateway, path, key=key, method=method)
            assert (path, method, refused.status) == (path, method, 401)
            assert refused.error["code"] == "invalid_api_key"


@live
async def test_what_is_open_on_the_admin_port_names_no_tenant(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        await fleet.ask()
        await gateway.counts(1, "spillway_requests_total", model=fleet.model)
        for path in ("/metrics", "/", "/health/live", "/health/ready"):
            shown = await admin(gateway, path, key=None)
            assert shown.status == 200
            assert b"e2e" not in shown.body


def test_ports_are_on_loopback_unless_told_otherwise() -> None:
    assert Configuration().gateway.admin.startswith("127.0.0.1:")
    assert Configuration().gateway.listen.startswith("127.0.0.1:")


def test_the_token_is_the_operators_alone(gateway: Gateway) -> None:
    assert stat.S_IMODE((gateway.home / "admin.token").stat().st_mode) == 0o600
    assert len(gateway.admin_token) >= 32


def test_a_token_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "admin.token").write_text("x" * 40)
    (home / "admin.token").chmod(0o644)
    ports = {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}
    config = write_config(tmp_path, {"gateway": ports})
    with started("serve", "--config", str(config), "--home", str(home)) as process:
        assert process.wait(deadline_s=30.0) == 1
        assert "chmod 600" in process.stderr
        assert "Traceback" not in process.stderr


@live
async def test_other_origins_get_no_leave(gateway: Gateway) -> None:
    async with gateway.fleet(Site("east")) as fleet:
        origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        answers = [await fleet.ask(headers=origin), await fleet.ask(headers=origin, stream=True)]
        for port, path, method in (
            (gateway.port, "/v1/chat/completions", "OPTIONS"),
            (gateway.port, "/v1/models", "OPTIONS"),
            (gateway.admin_port, "/admin/v1/pools", "OPTIONS"),
            (gateway.admin_port, "/metrics", "GET"),
        ):
            async with Talk(port) as talk:
                talk.send(request(b"", key=KEY, path=path, method=method, headers=origin))
                answers.append(await talk.answer(method))
        assert not any(name.startswith("access-control") for got in answers for name in got.headers)


def secretive(collector_port: int) -> Json:
    return {
        "log_level": "debug",
        "access_log_share": 1.0,
        "trace": {"otlp_url": f"http://127.0.0.1:{collector_port}/v1/traces", "share": 1.0},
    }


def test_nothing_that_was_said_is_kept_or_shown_and_pools_can_be_hidden() -> None:
    """Runs every kind of request with marks in prompt and answer, then looks for them in all that the gateway left behind."""
    collector_port = free_port()
    collected: list[bytes] = []
    kept_in_the_spool = {"spool": {"segment_s": 60.0}}
    settings: Json = {"expose_pools": False, "journal": {}}
    with running(settings, telemetry=secretive(collector_port), store=kept_in_the_spool) as gateway:
        left: dict[str, bytes] = {}

        @live
        async def talk() -> None:
            async with listening(_collect(collected), port=collector_port):
                await _say_it_all(gateway)
                left.update(contents(gateway.home))
                left["metrics"] = (await admin(gateway, "/metrics", key=None)).body
                await asyncio.to_thread(gateway.process.stop)  # now the last traces are told

        talk()
        left |= contents(gateway.home)
        left |= {"stdout": gateway.process.stdout.encode(), "stderr": gateway.process.stderr.encode()}
        left["traces"] = b"".join(collected)
        names = "\n".join(left)
        for kind in ("spillway.db", "spool", "journal", "stderr", "traces", "metrics"):
            assert any(content for name, content in left.items() if kind in name), f"{kind} is missing in\n{names}"
        answered = word(Prompt([{"content": CANARY}]).start, 0)
        for secret in (CANARY, answered, KEY, PROVIDER_KEY, f"model-{CANARY}"):
            assert [name for name, content in left.items() if secret.encode() in content] == []


def contents(home: Path) -> dict[str, bytes]:
    """Every file below `home`."""
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def _collect(collected: list[bytes]) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            collected.append(await reader.readexactly(length))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    return serve


async def _say_it_all(gateway: Gateway) -> None:
    said = [{"role": "user", "content": CANARY}]
    faults = [
        "cut:2",
        "malformed_chunk:2",
        "500",
        "reject_shape",
        "context_length_exceeded",
        "error_event:2",
        "reset",
        "no_usage",
    ]
    echo = answer(400, b'{"error":{"message":"you said %b","type":"x","code":null}}' % CANARY.encode())
    rules = {"breaker": {"failures": 1000}}
    async with canned([echo, answer(500, CANARY.encode()), b"HTTP/9 %b\r\n\r\n" % CANARY.encode()]) as url:
        sites = [
            Site("east", UpstreamSpec(output_tokens=6), settings={"price": {"output_usd_per_mtok": 1.0}}),
            Site("west"),
        ]
        async with gateway.fleet(*sites, rules=rules) as fleet:
            for stream in (False, True):
                got = await fleet.ask(messages=said, tools=[{"x": CANARY}], stream=stream)
                _shows_no_pool(got, 200)
                for fault in faults:
                    _shows_no_pool(await fleet.ask(messages=said, stream=stream, user=f"fault:{fault}"))
                _shows_no_pool(await fleet.ask(messages=said, model=f"model-{CANARY}", stream=stream), 404)
                _shows_no_pool(await fleet.ask(messages=said, model=[CANARY], stream=stream), 400)
            await _leave_in_the_middle(fleet, said)
        async with gateway.fleet(
            Site("odd", settings={"endpoints": [url], "api_key": PROVIDER_KEY}), rules=rules
        ) as fleet:
            for _ in range(3):
                _shows_no_pool(await fleet.ask(messages=said))
    spool = gateway.home / "spool"
    async with asyncio.timeout(10.0):
        while not any(contents(spool).values()):
            await asyncio.sleep(0.02)


def _shows_no_pool(got: Answer, status: int | None = None) -> None:
    assert status in (None, got.status)
    assert got.headers["x-request-id"]
    assert not [name for name in got.headers if name.startswith("x-spillway")]


async def _leave_in_the_middle(fleet: Fleet, said: list[dict[str, str]]) -> None:
    async with fleet.talk() as talk:
        talk.send(fleet.request(messages=said, stream=True, max_tokens=10_000))
        await talk.head()
