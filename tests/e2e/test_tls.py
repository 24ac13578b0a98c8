"""TLS on both sides, with an authority of one's own, and the way out through a proxy."""

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from spillway.testing.spec import UpstreamSpec
from tests.e2e.canned import Serve, forward, listening
from tests.e2e.gateway import Fleet, Gateway, Site, free_port, live, running
from tests.e2e.talking import Json, Talk

pytestmark = pytest.mark.server

SHORT = UpstreamSpec(output_tokens=8)


class Authority:
    """Certificates for `localhost`, and contexts that trust them."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._leaf = self._ca.issue_cert("localhost", "127.0.0.1")
        self.file, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self._ca.cert_pem.write_to_path(str(self.file))
        self._leaf.private_key_pem.write_to_path(str(self.key))
        self.cert.write_bytes(b"".join(blob.bytes() for blob in self._leaf.cert_chain_pems))

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.file)

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def proxy_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(authority: Authority, proxy_port: int) -> Iterator[Gateway]:
    tls = {"tls": {"cert": str(authority.cert), "key": str(authority.key)}}
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env["HTTPS_PROXY"] = f"http://user:word@127.0.0.1:{proxy_port}"
    with running(tls, env=env) as started:
        yield started


def in_front_of(fleet: Fleet) -> Serve:
    """Ends TLS and passes on to the double `east`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await forward(reader, writer, fleet["east"].port)

    return serve


async def point_to(fleet: Fleet, pool: Json, *, name: str = "far") -> None:
    """Gives the fleet's model this one pool instead of those it has."""
    await fleet.gateway.configure(
        {"pools": {name: {"model": "fake", "limit": 4, **pool}}, "models": {fleet.model: {"tiers": [[name]]}}}
    )
    await fleet.shows_only(name)


@live
async def test_clients_speak_tls(gateway: Gateway, authority: Authority) -> None:
    async with gateway.fleet(Site("east", SHORT), tls=authority.client()) as fleet, fleet.talk() as talk:
        for _ in range(3):
            talk.send(fleet.request())
            assert (await talk.answer()).status == 200
            talk.send(fleet.request(stream=True))
            answer = await talk.answer()
            assert answer.events[-1] == "[DONE]"
            assert len(answer.text.split()) == 8


@live
async def test_a_cut_stream_is_cut_under_tls_too(gateway: Gateway, authority: Authority) -> None:
    async with gateway.fleet(Site("east", SHORT, rules=("cut:3",)), tls=authority.client()) as fleet:
        answer = await fleet.ask(stream=True)
        assert answer.cut
        assert "stream_cut" in answer.events[-1]


@live
async def test_who_does_not_speak_tls_harms_nobody(gateway: Gateway, authority: Authority) -> None:
    async with gateway.fleet(Site("east", SHORT), tls=authority.client()) as fleet:
        async with Talk(gateway.port) as plain:
            plain.send(fleet.request())
            assert b"HTTP/1.1 200" not in await plain.reader.read(65536)
        with pytest.raises(ssl.SSLError):
            async with Talk(gateway.port, tls=ssl.create_default_context()):
                pass
        assert (await fleet.ask()).status == 200


@live
async def test_endpoints_speak_tls_with_an_authority_of_their_own(gateway: Gateway, authority: Authority) -> None:
    async with (
        gateway.fleet(Site("east", SHORT), tls=authority.client()) as fleet,
        listening(in_front_of(fleet), tls=authority.server()) as port,
    ):
        endpoint = {"cluster": "here", "endpoints": [f"https://localhost:{port}"], "probe_path": ""}
        await point_to(fleet, {**endpoint, "ca_file": str(authority.file)})
        for stream in (False, True):
            answer = await fleet.ask(stream=stream)
            assert (answer.status, answer.headers["x-spillway-pool"]) == (200, "far")
        assert fleet["east"].log.arrived == 2


@live
async def test_an_endpoint_that_nobody_vouches_for_gets_nothing(gateway: Gateway, authority: Authority) -> None:
    async with (
        gateway.fleet(Site("east", SHORT), tls=authority.client()) as fleet,
        listening(in_front_of(fleet), tls=authority.server()) as port,
    ):
        await point_to(fleet, {"cluster": "here", "endpoints": [f"https://localhost:{port}"], "probe_path": ""})
        answer = await fleet.ask()
        assert (answer.status, answer.error["code"]) == (502, "upstream_error")
        assert fleet["east"].log.arrived == 0


@live
async def test_hosted_providers_are_reached_through_the_proxy_of_the_environment(
    gateway: Gateway, authority: Authority, proxy_port: int
) -> None:
    asked: list[bytes] = []
    async with gateway.fleet(Site("east", SHORT), tls=authority.client()) as fleet:
        async with listening(in_front_of(fleet), tls=authority.server()) as port:

            async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await forward(reader, writer, port)

            hosted = {"provider": "openai", "base_url": f"https://localhost:{port}/v1", "ca_file": str(authority.file)}
            async with listening(proxy, port=proxy_port):
                await point_to(fleet, hosted)
                for stream in (False, True):
                    assert (await fleet.ask(stream=stream)).status == 200
            assert fleet["east"].log.arrived == 2
        assert asked[0].startswith(b"CONNECT localhost:%d HTTP/1.1\r\n" % port)
        assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n" in asked[0]


@live
async def test_a_proxy_that_refuses_is_a_fault_of_the_pool_and_not_gone_around(
    gateway: Gateway, authority: Authority, proxy_port: int
) -> None:
    async with gateway.fleet(Site("east", SHORT), tls=authority.client()) as fleet:

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()

        async with (
            listening(in_front_of(fleet), tls=authority.server()) as port,
            listening(refuse, port=proxy_port),
        ):
            hosted = {"provider": "openai", "base_url": f"https://localhost:{port}/v1", "ca_file": str(authority.file)}
            await point_to(fleet, hosted)
            answer = await fleet.ask()
            assert (answer.status, answer.error["code"]) == (502, "upstream_error")
            assert "127.0.0.1" not in answer.error["message"]
            assert fleet["east"].log.arrived == 0
            await point_to(fleet, {**hosted, "proxy": "direct"}, name="direct")
            assert (await fleet.ask()).status == 200
