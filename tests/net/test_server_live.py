"""The server on real sockets: kept connections, leaving, backpressure, draining."""

import asyncio
import os
import socket

import pytest

from spillway.net.ports import Exchange, Rejection
from spillway.net.settings import ServerLimits
from spillway.testing.waiting import eventually
from tests.net.live import Run, on_both_loops, serving
from tests.net.played import Listener, PlayedService

pytestmark = [pytest.mark.server, on_both_loops]

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_connection_is_kept_for_many_requests(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService()) as live:
            talk = await live.talk()
            for number in range(50):
                talk.send(GET % b"/auto%d" % number)
                response, body = await talk.answer()
                assert (response.status_code, body) == (200, b"GET /auto%d? " % number)
            assert live.server.connections == 1
            await talk.close()
            await eventually(lambda: live.server.connections == 0)

    run(main())


def test_pipelined_requests_and_a_large_body(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService(max_body_bytes=4 << 20)) as live:
            talk = await live.talk()
            body = b"b" * (3 << 20)
            talk.send(GET % b"/auto1" + b"POST /auto2 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            talk.send(body + GET % b"/auto3")
            answers = [(await talk.answer())[1] for _ in range(3)]
            assert [answer[:11] for answer in answers] == [b"GET /auto1?", b"POST /auto2", b"GET /auto3?"]
            assert len(answers[1]) > len(body)
            await talk.close()

    run(main())


def test_small_writes_leave_at_once(run: Run) -> None:
    """A second small write must not wait for the acknowledgement of the first."""

    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live:
            talk = await live.talk()
            talk.send(GET % b"/a")
            await eventually(lambda: service.exchanges)
            (connection,) = live.server._shared.open  # pyright: ignore[reportPrivateUsage]
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            await talk.close()

    run(main())


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_client_that_leaves_before_its_answer_is_noticed(run: Run, how: str) -> None:
    async def main() -> None:
        service, listener = PlayedService(), Listener()
        async with serving(service) as live:
            talk = await live.talk()
            talk.send(GET % b"/slow" + GET % b"/behind")
            await eventually(lambda: service.exchanges)
            service.exchanges[0].listener = listener
            if how == "half-close":
                talk.writer.write_eof()
            elif how == "reset":
                talk.writer.transport.abort()
            else:
                talk.writer.close()
            await eventually(lambda: listener.told)
            service.exchanges[0].respond(200, b"", b"late")
            await eventually(lambda: live.server.connections == 0)
            assert listener.told == ["left"]
            assert len(service.exchanges) == 1
            await talk.close()

    run(main())


def test_what_was_answered_before_a_half_close_still_arrives(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService()) as live:
            talk = await live.talk()
            talk.send(GET % b"/auto" * 3)
            talk.writer.write_eof()
            assert (await talk.reader.read()).count(b"HTTP/1.1 200 OK") == 3
            await talk.close()

    run(main())


class Pumps(Listener):
    """Writes without end, but only while the client takes it."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.sent_bytes = 0
        self.slow = False

    def client_slow(self) -> None:
        super().client_slow()
        self.slow = True

    def client_ready(self) -> None:
        super().client_ready()
        self.slow = False

    def pump(self) -> None:
        while not self.slow and self.sent_bytes < 64 << 20:
            self.exchange.write([b"x" * 10_000])
            self.sent_bytes += 10_000


def test_a_slow_reader_stops_its_producer(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service, ServerLimits(write_buffer_bytes=100_000)) as live:
            talk = await live.talk()
            talk.send(GET % b"/a")
            await eventually(lambda: service.exchanges)
            exchange = service.exchanges[0]
            exchange.listener = pumps = Pumps(exchange)
            exchange.start(200, b"")
            pumps.pump()
            assert pumps.told == ["slow"]
            assert pumps.sent_bytes < 32 << 20  # what the kernel's buffers take, and not all there is
            (connection,) = live.server._shared.open  # pyright: ignore[reportPrivateUsage]
            assert connection.transport.get_write_buffer_size() < 200_000
            read = 0
            while "ready" not in pumps.told:
                read += len(await talk.reader.read(1 << 20))
            exchange.finish()
            while data := await talk.reader.read(1 << 20):
                read += len(data)
                if data.endswith(b"0\r\n\r\n"):
                    break
            assert read > pumps.sent_bytes
            await talk.close()

    run(main())


def test_a_client_that_reads_nothing_is_cut(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service, ServerLimits(write_timeout_s=0.3)) as live:
            talk = await live.talk()
            talk.send(GET % b"/a")
            await eventually(lambda: service.exchanges)
            exchange = service.exchanges[0]
            exchange.listener = pumps = Pumps(exchange)
            exchange.start(200, b"")
            pumps.pump()
            await eventually(lambda: "left" in pumps.told)
            await talk.close()

    run(main())


def test_slow_heads_and_bodies_are_408_and_idle_connections_closed(run: Run) -> None:
    async def main() -> None:
        limits = ServerLimits(head_timeout_s=0.2, body_timeout_s=0.2, idle_timeout_s=0.2, linger_s=0.2)
        service = PlayedService()
        async with serving(service, limits) as live:
            head, body, idle = await live.talk(), await live.talk(), await live.talk()
            head.send(b"GET / HTT")
            body.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na")
            assert (await head.answer())[0].status_code == 408
            assert (await body.answer("POST"))[0].status_code == 408
            assert await idle.ended()
            assert service.rejections == [Rejection.TOO_SLOW] * 2
            for talk in (head, body, idle):
                await talk.close()

    run(main())


def test_an_answer_before_the_body_reaches_a_client_that_is_still_sending(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService(max_body_bytes=1000)) as live:
            talk = await live.talk()
            talk.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
            talk.send(b"x" * 3_000_000)
            assert (await talk.answer("POST"))[0].status_code == 413
            await talk.close()

    run(main())


def test_over_the_bound_of_connections(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService(), ServerLimits(max_connections=2)) as live:
            first, second, third = await live.talk(), await live.talk(), await live.talk()
            assert (await third.answer())[0].status_code == 503
            assert await third.ended()
            await third.close()
            await first.close()
            await eventually(lambda: live.server.connections == 1)
            fourth = await live.talk()
            fourth.send(GET % b"/auto")
            assert (await fourth.answer())[0].status_code == 200
            for talk in (second, fourth):
                await talk.close()

    run(main())


def test_draining_answers_what_has_come_and_returns_when_all_is_done(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live:
            idle, busy, streaming = await live.talk(), await live.talk(), await live.talk()
            idle.send(GET % b"/auto")
            await idle.answer()
            busy.send(GET % b"/busy")
            await eventually(lambda: len(service.exchanges) == 2)
            streaming.send(GET % b"/streaming")
            await eventually(lambda: len(service.exchanges) == 3)
            service.exchanges[2].start(200, b"")
            service.exchanges[2].write([b"a"])
            live.listening.close()
            draining = asyncio.ensure_future(live.server.drain(10.0))
            assert await idle.ended()
            assert not draining.done()
            service.exchanges[1].respond(200, b"", b"")
            assert (b"connection", b"close") in (await busy.answer())[0].headers
            service.exchanges[2].write([b"b"])
            service.exchanges[2].finish()
            assert (await streaming.answer())[1] == b"ab"
            assert await draining == 0
            for talk in (idle, busy, streaming):
                await talk.close()

    run(main())


def test_a_request_that_is_in_the_kernel_when_draining_begins_is_served(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService()) as live:
            talk = await live.talk()
            talk.send(GET % b"/auto")
            await talk.answer()
            os.write(
                talk.writer.get_extra_info("socket").fileno(), GET % b"/auto"
            )  # past the loop: it has not read this yet
            assert await live.server.drain(10.0) == 0
            response, _ = await talk.answer()
            assert response.status_code == 200
            assert (b"connection", b"close") in response.headers
            await talk.close()

    run(main())


def test_patient_draining_answers_a_request_that_comes_late_and_closes_who_stays_silent(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService(), ServerLimits(linger_s=0.3)) as live:
            late, silent = await live.talk(), await live.talk()
            for talk in (late, silent):
                talk.send(GET % b"/auto")
                await talk.answer()
            draining = asyncio.ensure_future(live.server.drain(10.0, patient=True))
            await eventually(lambda: live.server._shared.draining)  # pyright: ignore[reportPrivateUsage]
            late.send(GET % b"/auto")
            assert (b"connection", b"close") in (await late.answer())[0].headers
            assert await draining == 0
            assert await silent.ended()
            for talk in (late, silent):
                await talk.close()

    run(main())


def test_draining_gives_up_at_its_deadline(run: Run) -> None:
    async def main() -> None:
        service = PlayedService()
        async with serving(service) as live:
            stuck, unfinished = await live.talk(), await live.talk()
            stuck.send(GET % b"/stuck")
            unfinished.send(b"GET /half HTTP/1.1\r\n")
            await eventually(lambda: service.exchanges)
            service.exchanges[0].listener = listener = Listener()
            assert await live.server.drain(0.1) == 2
            assert (await unfinished.answer())[0].status_code == 503
            live.server.close()
            assert await stuck.ended()
            await eventually(lambda: listener.told == ["left"])
            for talk in (stuck, unfinished):
                await talk.close()

    run(main())


def test_a_connection_accepted_while_draining_is_served_once(run: Run) -> None:
    async def main() -> None:
        async with serving(PlayedService()) as live:
            await live.server.drain(1.0)
            talk = await live.talk()
            talk.send(GET % b"/auto")
            assert (b"connection", b"close") in (await talk.answer())[0].headers
            assert await talk.ended()
            await talk.close()

    run(main())
