"""An origin's pool on real sockets: reuse, staleness, bounds, giving up."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable

import pytest

from spillway.net.ports import ConnectionFault
from spillway.net.settings import ClientLimits
from spillway.testing.waiting import eventually
from tests.net.live import Run, fetch, on_both_loops, origin, serving
from tests.net.played import PlayedService, Receiver

pytestmark = [pytest.mark.server, on_both_loops]

REQUEST = b"GET /auto HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Speak = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


class Scripted:
    """An upstream that reads requests and answers what it is told; `connections` counts those it accepted."""

    def __init__(self, *answers: bytes | None) -> None:
        """One connection after the other: what it answers to its requests in turn; None or nothing more: it closes."""
        self.answers = list(answers)
        self.connections = 0
        self.requests = 0
        self.left = 0
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                answer = self.answers.pop(0) if self.answers else None
                if answer is None:
                    break
                writer.write(answer)
        self.left += 1
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            server.close()
            for writer in self.writers:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()


def test_connections_are_reused(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService()) as live, origin(f"http://127.0.0.1:{live.port}") as pool:
            for _ in range(300):
                assert (await fetch(pool)).status == 200
            assert pool.opened == 1
            assert pool.reused / 300 >= 0.99
            assert (pool.open, pool.idle) == (1, 1)

    run(main())


def test_concurrent_requests_open_connections_and_the_last_used_is_used_first(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live, origin(f"http://127.0.0.1:{live.port}") as pool:
            receivers = [Receiver() for _ in range(20)]
            for receiver in receivers:
                pool.send(REQUEST.replace(b"/auto", b"/hold"), receiver)
            await eventually(lambda: len(service.exchanges) == 20)
            for exchange in service.exchanges:
                exchange.respond(200, b"", b"")
            await eventually(lambda: all(receiver.ended for receiver in receivers))
            assert (pool.opened, pool.open, pool.idle) == (20, 20, 20)
            for _ in range(30):
                await fetch(pool)
            assert pool.opened == 20
            assert pool.reused == 30

    run(main())


def test_idle_connections_are_bounded_in_number_and_time(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        limits = ClientLimits(max_idle=2, idle_timeout_s=0.2)
        async with serving(service) as live, origin(f"http://127.0.0.1:{live.port}", limits) as pool:
            receivers = [Receiver() for _ in range(5)]
            for receiver in receivers:
                pool.send(REQUEST.replace(b"/auto", b"/hold"), receiver)
            await eventually(lambda: len(service.exchanges) == 5)
            for exchange in service.exchanges:
                exchange.respond(200, b"", b"")
            await eventually(lambda: all(receiver.ended for receiver in receivers))
            assert (pool.open, pool.idle) == (2, 2)
            await eventually(lambda: pool.open == 0)
            await eventually(lambda: live.server.connections == 0)
            assert (await fetch(pool)).status == 200

    run(main())


def test_connections_are_bounded_in_all(run: Run) -> None:
    async def main() -> None:
        async with (
            serving(PlayedService()) as live,
            origin(f"http://127.0.0.1:{live.port}", ClientLimits(max_open=1)) as pool,
        ):
            kept, refused = Receiver(), Receiver()
            ticket = pool.send(REQUEST.replace(b"/auto", b"/hold"), kept)
            pool.send(REQUEST, refused)
            assert not refused.over
            await eventually(lambda: refused.over)
            assert (refused.fault, refused.detail) == (ConnectionFault.CONNECT, "too many connections to this origin")
            ticket.cancel()

    run(main())


def test_a_stale_connection_is_replaced_once_without_a_word(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(OK, None, OK)
        async with upstream.listening() as url, origin(url) as pool:
            assert (await fetch(pool)).body == b"ok"
            assert (await fetch(pool)).body == b"ok"
            assert (upstream.connections, upstream.requests) == (2, 3)
            assert (pool.opened, pool.open) == (2, 1)

    run(main())


def test_a_connection_that_was_never_used_before_is_not_stale(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(None, OK)
        async with upstream.listening() as url, origin(url) as pool:
            receiver = await fetch(pool)
            assert receiver.fault is ConnectionFault.LOST
            assert upstream.requests == 1

    run(main())


def test_a_request_is_sent_again_only_once(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(OK, None, None, OK)
        async with upstream.listening() as url, origin(url) as pool:
            await fetch(pool)
            assert (await fetch(pool)).fault is ConnectionFault.LOST
            assert upstream.requests == 3

    run(main())


def test_a_request_is_not_sent_again_once_a_byte_came(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(OK, b"H", None)
        async with upstream.listening() as url, origin(url) as pool:
            await fetch(pool)
            receiver = Receiver()
            pool.send(REQUEST, receiver)
            await eventually(lambda: upstream.requests == 2)
            upstream.writers[0].close()
            await eventually(lambda: receiver.over)
            assert receiver.fault is ConnectionFault.LOST
            assert upstream.requests == 2

    run(main())


def test_a_request_is_not_sent_again_when_its_connection_lived_on(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(OK, b"", OK)
        async with upstream.listening() as url, origin(url, ClientLimits(stale_window_s=0.01)) as pool:
            await fetch(pool)
            receiver = Receiver()
            pool.send(REQUEST, receiver)
            loop = asyncio.get_running_loop()
            sent_s = loop.time()
            await eventually(lambda: upstream.requests == 2 and loop.time() > sent_s + 0.05)
            upstream.writers[0].close()
            await eventually(lambda: receiver.over)
            assert receiver.fault is ConnectionFault.LOST

    run(main())


def test_an_idle_connection_that_the_upstream_closes_is_forgotten(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(OK, OK)
        async with upstream.listening() as url, origin(url) as pool:
            await fetch(pool)
            upstream.writers[0].close()
            await eventually(lambda: pool.open == 0)
            assert pool.idle == 0
            assert (await fetch(pool)).body == b"ok"

    run(main())


def test_an_idle_connection_that_speaks_is_closed(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(OK, OK)
        async with upstream.listening() as url, origin(url) as pool:
            await fetch(pool)
            upstream.writers[0].write(b"HTTP/1.1 408 Timeout\r\ncontent-length: 4\r\n\r\nevil")
            await eventually(lambda: pool.open == 0)
            receiver = await fetch(pool)
            assert (receiver.status, receiver.body) == (200, b"ok")

    run(main())


def test_a_refused_connection_is_a_fault(run: Run) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with origin(f"http://127.0.0.1:{taken.getsockname()[1]}") as pool:
                receiver = await fetch(pool)
                assert receiver.fault is ConnectionFault.CONNECT
                assert receiver.detail

    run(main())


def full_backlog() -> tuple[socket.socket, list[socket.socket]]:
    """A listening socket that takes no more connections: further ones wait."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    waiting: list[socket.socket] = []
    for _ in range(3):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listening.getsockname())
        waiting.append(client)
    return listening, waiting


def test_connecting_has_a_deadline_and_can_be_cancelled(run: Run) -> None:
    async def main() -> None:
        listening, waiting = full_backlog()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            async with origin(url, ClientLimits(connect_timeout_s=0.2)) as pool:
                receiver = await fetch(pool)
                assert (receiver.fault, receiver.detail) == (ConnectionFault.CONNECT, "no connection after 0.2 s")
            async with origin(url, ClientLimits(connect_timeout_s=30)) as pool:
                cancelled = Receiver()
                ticket = pool.send(REQUEST, cancelled)
                await eventually(lambda: pool.connecting == 1)
                ticket.cancel()
                await eventually(lambda: pool.connecting == 0)
                assert not cancelled.over
        finally:
            for each in (listening, *waiting):
                each.close()

    run(main())


def test_cancel_at_any_step_of_connecting_leaks_no_connection(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live, origin(f"http://127.0.0.1:{live.port}") as pool:
            for steps in range(12):
                receiver = Receiver()
                ticket = pool.send(REQUEST, receiver)
                for _ in range(steps):
                    await asyncio.sleep(0)
                ticket.cancel()
                await eventually(lambda: pool.connecting == 0 and pool.open == pool.idle)
            await eventually(lambda: live.server.connections == pool.open)

    run(main())


def test_cancel_tells_the_upstream_at_once(run: Run) -> None:
    async def main() -> None:
        upstream = Scripted(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        async with upstream.listening() as url, origin(url) as pool:
            receiver = Receiver()
            ticket = pool.send(REQUEST, receiver)
            await eventually(lambda: receiver.pieces)
            ticket.cancel()
            await eventually(lambda: upstream.left == 1)
            assert pool.open == 0
            assert not receiver.over

    run(main())


def test_a_paused_response_waits_in_the_kernel(run: Run) -> None:
    async def main() -> None:
        body = b"x" * (32 << 20)
        upstream = Scripted(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        async with upstream.listening() as url, origin(url) as pool:
            receiver = Receiver()
            ticket = pool.send(REQUEST, receiver)
            await eventually(lambda: receiver.pieces)
            ticket.pause()
            seen = -1
            while seen != len(receiver.body):  # what was read already may still come
                seen = len(receiver.body)
                await asyncio.sleep(0)
            assert seen < len(body)
            ticket.resume()
            await eventually(lambda: receiver.over)
            assert receiver.body == body

    run(main())


def test_a_closed_origin_finishes_what_runs_and_takes_nothing_new(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live, origin(f"http://127.0.0.1:{live.port}") as pool:
            await fetch(pool)
            running, late = Receiver(), Receiver()
            pool.send(REQUEST.replace(b"/auto", b"/hold"), running)
            await eventually(lambda: len(service.exchanges) == 2)
            pool.close()
            pool.send(REQUEST, late)
            service.exchanges[1].respond(200, b"", b"done")
            await eventually(lambda: running.over and late.over)
            assert running.body == b"done"
            assert (late.fault, late.detail) == (ConnectionFault.CONNECT, "the origin is closed")
            await eventually(lambda: pool.open == 0)

    run(main())


def test_an_aborted_origin_fails_what_runs(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live, origin(f"http://127.0.0.1:{live.port}") as pool:
            running, connecting = Receiver(), Receiver()
            pool.send(REQUEST.replace(b"/auto", b"/hold"), running)
            await eventually(lambda: service.exchanges)
            pool.send(REQUEST, connecting)
            pool.abort()
            await eventually(lambda: running.over and connecting.over)
            assert (running.fault, connecting.fault) == (ConnectionFault.LOST, ConnectionFault.CONNECT)

    run(main())
