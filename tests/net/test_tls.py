"""TLS on both sides, and everything that must not pass for it."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trustme
import uvloop

from spillway.core.errors import ConfigError
from spillway.net.connecting import Destination
from spillway.net.ports import ConnectionFault
from spillway.net.settings import ClientLimits
from spillway.net.tls import client_context, server_context
from spillway.testing.waiting import eventually
from tests.net.conftest import Certificates
from tests.net.live import Live, Run, fetch, on_both_loops, origin, serving
from tests.net.played import PlayedService, Receiver

pytestmark = [pytest.mark.server]

REQUEST = b"POST /auto HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"


def secured(live: Live, certificates: Certificates, name: str = "localhost") -> Destination:
    return Destination(f"https://{name}:{live.port}", tls=client_context(certificates.authority))


@on_both_loops
def test_requests_over_tls_reuse_one_connection(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        tls = server_context(certificates.server, certificates.key)
        async with serving(PlayedService(), tls=tls) as live, origin(secured(live, certificates)) as pool:
            for size in (0, 10, 500_000):
                receiver = await fetch(pool, REQUEST % (size, b"b" * size))
                assert receiver.status == 200
                assert receiver.body.endswith(b"b" * size)
            assert (pool.opened, pool.reused) == (1, 2)

    run(main())


@on_both_loops
def test_a_client_that_leaves_over_tls_is_noticed(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        service = PlayedService()
        tls = server_context(certificates.server, certificates.key)
        async with serving(service, tls=tls) as live, origin(secured(live, certificates)) as pool:
            ticket = pool.send(b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n", Receiver())
            await eventually(lambda: service.exchanges)
            ticket.cancel()
            await eventually(lambda: live.server.connections == 0)

    run(main())


@on_both_loops
def test_a_name_or_an_authority_that_does_not_fit_is_a_fault(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)

    async def main() -> None:
        tls = server_context(certificates.server, certificates.key)
        async with serving(PlayedService(), tls=tls) as live:
            async with origin(secured(live, certificates, "127.0.0.1")) as wrong_name:
                receiver = await fetch(wrong_name)
                assert receiver.fault is ConnectionFault.CONNECT
                assert "certificate verify failed" in receiver.detail
            async with origin(Destination(f"https://localhost:{live.port}", tls=client_context(other))) as untrusting:
                receiver = await fetch(untrusting)
                assert receiver.fault is ConnectionFault.CONNECT
                assert "certificate verify failed" in receiver.detail

    run(main())


@on_both_loops
def test_plain_http_and_tls_do_not_mix(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        tls = server_context(certificates.server, certificates.key)
        async with serving(PlayedService()) as plain, origin(secured(plain, certificates)) as pool:
            assert (await fetch(pool)).fault is ConnectionFault.CONNECT
        async with serving(PlayedService(), tls=tls) as live, origin(f"http://127.0.0.1:{live.port}") as pool:
            assert (await fetch(pool)).fault is ConnectionFault.LOST

    run(main())


@on_both_loops
def test_a_handshake_that_hangs_has_a_deadline(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            destination = Destination(
                f"https://localhost:{silent.getsockname()[1]}", tls=client_context(certificates.authority)
            )
            async with origin(destination, ClientLimits(connect_timeout_s=0.2)) as pool:
                receiver = await fetch(pool)
                assert (receiver.fault, receiver.detail) == (ConnectionFault.CONNECT, "no connection after 0.2 s")

    run(main())


def say_and_hang_up(listening: socket.socket, context: ssl.SSLContext, *, politely: bool) -> None:
    """Answers one connection with a body that ends with it; without `politely` the end is a cut of the TCP connection."""
    accepted, _ = listening.accept()
    with context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=True) as spoken:
        spoken.recv(65536)
        spoken.sendall(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        if politely:
            with contextlib.suppress(OSError):
                spoken.unwrap().close()
        else:
            spoken.shutdown(socket.SHUT_RDWR)


@on_both_loops
@pytest.mark.parametrize("politely", [True, False])
def test_a_body_without_a_length_that_was_cut_is_not_taken_for_whole(
    run: Run, certificates: Certificates, *, politely: bool
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"https://localhost:{listening.getsockname()[1]}"
            context = server_context(certificates.server, certificates.key)
            async with origin(Destination(url, tls=client_context(certificates.authority))) as pool:
                server = asyncio.create_task(asyncio.to_thread(say_and_hang_up, listening, context, politely=politely))
                receiver = await fetch(pool)
                await server
                assert receiver.body == b"half"
                if politely or run is uvloop.run:  # asyncio's own loop cannot tell the two apart
                    assert receiver.ended is politely

    run(main())


def test_old_tls_is_not_spoken(certificates: Certificates) -> None:
    server = server_context(certificates.server, certificates.key)
    client = client_context(certificates.authority)
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2
    assert client.check_hostname
    assert client.verify_mode is ssl.CERT_REQUIRED
    assert client_context().verify_mode is ssl.CERT_REQUIRED


def test_files_that_cannot_be_used_are_configuration_errors(certificates: Certificates, tmp_path: Path) -> None:
    absent, nonsense = tmp_path / "absent.pem", tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"there is no TLS certificate at .*absent"):
        server_context(absent, certificates.key)
    with pytest.raises(ConfigError, match=r"there is no TLS key at .*absent"):
        server_context(certificates.server, absent)
    with pytest.raises(ConfigError, match=r"nonsense\.pem"):
        server_context(nonsense, certificates.key)
    with pytest.raises(ConfigError, match="cannot be used"):
        server_context(certificates.server, nonsense)
    with pytest.raises(ConfigError, match="absent"):
        client_context(absent)
    with pytest.raises(ConfigError, match="nonsense"):
        client_context(nonsense)


def test_a_key_of_another_certificate_is_a_configuration_error(certificates: Certificates, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(other)
    with pytest.raises(ConfigError, match=r"(?i)mismatch"):
        server_context(certificates.server, other)
