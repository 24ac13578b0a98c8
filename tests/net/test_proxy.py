"""Through an HTTP proxy: the CONNECT that opens the way, and when there is none."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from spillway.core.errors import ConfigError
from spillway.net.connecting import Destination
from spillway.net.ports import ConnectionFault
from spillway.net.proxy import Proxy, bypasses, parse_proxy
from spillway.net.settings import ClientLimits
from spillway.net.tls import client_context, server_context
from tests.net.conftest import Certificates
from tests.net.live import Run, fetch, on_both_loops, origin, serving
from tests.net.played import PlayedService


class PlayedProxy:
    """Opens the way for every CONNECT, or answers what it is told to."""

    def __init__(self, answer: bytes | None = None) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.port = 0

    @property
    def proxy(self) -> Proxy:
        return parse_proxy(f"http://user:pa%40ss@127.0.0.1:{self.port}")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.answer is None:
                await self.relay(head, reader, writer)
            else:
                writer.write(self.answer)
                await reader.read()  # until the other side gives up
        writer.close()

    async def relay(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = head.split(b" ")[1].rpartition(b":")
        far_reader, far_writer = await asyncio.open_connection(host.decode(), int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator["PlayedProxy"]:
        tasks: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.ensure_future(self.serve(reader, writer)))

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await asyncio.wait_for(asyncio.gather(*tasks), 10.0)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@pytest.mark.server
@on_both_loops
def test_an_https_origin_is_reached_through_a_proxy(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        tls = server_context(certificates.server, certificates.key)
        async with PlayedProxy().listening() as played, serving(PlayedService(), tls=tls) as live:
            url = f"https://localhost:{live.port}"
            destination = Destination(url, tls=client_context(certificates.authority), proxy=played.proxy)
            async with origin(destination) as pool:
                for _ in range(3):
                    assert (await fetch(pool)).status == 200
                assert (pool.opened, pool.reused) == (1, 2)
            (head,) = played.heads
            assert head.startswith(b"CONNECT localhost:%d HTTP/1.1\r\nHost: localhost:%d\r\n" % (live.port, live.port))
            assert b"\r\nProxy-Authorization: Basic dXNlcjpwYUBzcw==\r\n" in head

    run(main())


@pytest.mark.server
@on_both_loops
@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n", "the proxy answered 407"),
        (b"SSH-2.0\r\n\r\n", "the proxy does not speak HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "the proxy sent more than an answer"),
        (b"x" * 20_000, "the proxy's answer is too long"),
        (b"HTTP/1.1 200 OK\r\n", "no connection after 0.3 s"),
    ],
)
def test_a_proxy_that_does_not_open_the_way_is_a_fault(
    run: Run, certificates: Certificates, answer: bytes, detail: str
) -> None:
    async def main() -> None:
        async with PlayedProxy(answer).listening() as played:
            destination = Destination(
                "https://localhost:1", tls=client_context(certificates.authority), proxy=played.proxy
            )
            async with origin(destination, ClientLimits(connect_timeout_s=0.3)) as pool:
                receiver = await fetch(pool)
                assert (receiver.fault, receiver.detail) == (ConnectionFault.CONNECT, detail)

    run(main())


@pytest.mark.server
@on_both_loops
def test_a_certificate_is_checked_through_the_proxy_too(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        tls = server_context(certificates.server, certificates.key)
        async with PlayedProxy().listening() as played, serving(PlayedService(), tls=tls) as live:
            url = f"https://127.0.0.1:{live.port}"
            destination = Destination(url, tls=client_context(certificates.authority), proxy=played.proxy)
            async with origin(destination) as pool:
                receiver = await fetch(pool)
                assert receiver.fault is ConnectionFault.CONNECT
                assert "certificate verify failed" in receiver.detail

    run(main())


def test_a_proxy_is_named_by_a_url() -> None:
    assert parse_proxy("http://proxy.example:3128") == Proxy("proxy.example", 3128)
    assert parse_proxy("proxy.example:3128") == Proxy("proxy.example", 3128)
    assert parse_proxy("http://proxy.example") == Proxy("proxy.example", 80)
    assert parse_proxy("http://[::1]:3128/") == Proxy("::1", 3128)
    assert parse_proxy("http://a:b@proxy.example").authorization == "Basic YTpi"


@pytest.mark.parametrize(
    "url", ["https://secret:word@proxy.example", "socks5://proxy.example", "http://", "http://proxy:99999"]
)
def test_a_proxy_that_cannot_be_used_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_proxy(url)
    assert "word" not in str(raised.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        ("", "a.example", 443, False),
        ("*", "a.example", 443, True),
        ("a.example", "a.example", 443, True),
        ("A.Example ", "a.EXAMPLE", 443, True),
        ("a.example", "b.a.example", 443, True),
        (".a.example", "b.a.example", 443, True),
        ("*.a.example", "b.a.example", 443, True),
        ("a.example", "ba.example", 443, False),
        ("other, a.example", "a.example", 443, True),
        ("a.example:8443", "a.example", 443, False),
        ("a.example:8443", "a.example", 8443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "ten.example", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("::1", "::1", 443, True),
        ("[::1]:443", "::1", 443, True),
        ("[::1]:444", "::1", 443, False),
        (",,", "a.example", 443, False),
    ],
)
def test_who_needs_no_proxy(no_proxy: str, host: str, port: int, *, expected: bool) -> None:
    assert bypasses(no_proxy, host, port) is expected


@pytest.mark.parametrize(
    "url", ["localhost:80", "ftp://a.example", "http://", "http://a:99999", "https://a.example", "http://u:p@a.example"]
)
def test_a_destination_that_cannot_be_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        Destination(url)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://a.example", "a.example"),
        ("http://a.example:80/v1", "a.example"),
        ("http://a.example:8080", "a.example:8080"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("https://a.example:443", "a.example"),
        ("https://a.example:80", "a.example:80"),
    ],
)
def test_the_authority_names_the_port_where_it_is_not_the_usual_one(url: str, authority: str) -> None:
    assert Destination(url, tls=client_context()).authority == authority
