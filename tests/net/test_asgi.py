"""ASGI applications behind the server: bodies both ways, leaving, breaking, bounds, lifespans."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route as Path

from spillway.net.asgi import Application, AsgiError, AsgiRoute, Message, Receive, Send
from spillway.net.lifespan import Lifespan, LifespanError
from spillway.net.ports import Route
from spillway.testing.waiting import eventually
from tests.net.live import Live, Run, on_both_loops, serving
from tests.net.played import PlayedService

pytestmark = [pytest.mark.server]

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"


class AsgiService(PlayedService):
    """Everything under /app goes to the application, the rest as ever."""

    def __init__(self, app: Application, *, max_running: int = 10) -> None:
        super().__init__()
        self.app = AsgiRoute(app, refuse=self.rejection, max_body_bytes=4 << 20, max_running=max_running)

    def route(self, method: bytes, path: bytes) -> Route:
        return self.app if path.startswith(b"/app") else super().route(method, path)


@contextlib.asynccontextmanager
async def served(app: Application, *, max_running: int = 10) -> AsyncGenerator[tuple[AsgiService, Live]]:
    service = AsgiService(app, max_running=max_running)
    async with serving(service) as live:
        yield service, live
        await service.app.shutdown(5.0)


async def echo(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "bytes": len(body),
            "header": request.headers.get("x-a"),
            "client": request.client.host if request.client else None,
        }
    )


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    return StreamingResponse(pieces(), media_type="text/plain")


STARLETTE = Starlette(routes=[Path("/app/echo", echo, methods=["GET", "POST"]), Path("/app/stream", stream)])


@on_both_loops
def test_a_starlette_application_is_served_between_hot_requests(run: Run) -> None:
    async def main() -> None:
        async with served(STARLETTE) as (_, live):
            talk = await live.talk()
            body = b"b" * 1_000_000
            head = b"POST /app/echo?a=%20b HTTP/1.1\r\nHost: x\r\nX-A: y\r\nContent-Length: 1000000\r\n\r\n"
            talk.send(GET % b"/auto/1" + head + body + GET % b"/auto/2" + GET % b"/app/stream" + GET % b"/auto/3")
            assert (await talk.answer())[1] == b"GET /auto/1? "
            response, answer = await talk.answer("POST")
            assert response.status_code == 200
            assert (b"content-length", b"%d" % len(answer)) in response.headers
            assert b'"bytes":1000000' in answer
            assert b'"query":"a=%20b"' in answer
            assert b'"header":"y"' in answer
            assert b'"client":"127.0.0.1"' in answer
            assert (await talk.answer())[1] == b"GET /auto/2? "
            assert (await talk.answer())[1] == b"012"
            assert (await talk.answer())[1] == b"GET /auto/3? "
            talk.send(b"HEAD /app/echo HTTP/1.1\r\nHost: x\r\n\r\n" + GET % b"/app/none")
            assert (await talk.answer("HEAD"))[1] == b""
            assert (await talk.answer())[0].status_code == 404
            await talk.close()

    run(main())


async def until_left(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.body", "body": b"to nobody"})


@on_both_loops
def test_an_application_learns_that_its_client_left(run: Run) -> None:
    async def main() -> None:
        async with served(until_left) as (service, live):
            talk = await live.talk()
            talk.send(GET % b"/app")
            await talk.reader.readuntil(b"begun")
            assert service.app.running == 1
            await talk.close()
            await eventually(lambda: service.app.running == 0)

    run(main())


@on_both_loops
def test_an_application_that_writes_more_than_is_read_waits(run: Run) -> None:
    sent_bytes = 0

    async def floods(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent_bytes
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(240):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            sent_bytes += 100_000
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        nonlocal sent_bytes
        sent_bytes = 0
        async with served(floods) as (_, live):
            talk = await live.talk()
            talk.send(GET % b"/app")
            seen = -1
            await eventually(lambda: sent_bytes)
            while seen != sent_bytes:
                seen = sent_bytes
                for _ in range(50):
                    await asyncio.sleep(0)
            assert sent_bytes < 20_000_000
            assert len((await talk.answer())[1]) == 24_000_000
            await talk.close()

    run(main())


@on_both_loops
def test_a_body_waits_for_an_application_that_does_not_read_it(run: Run) -> None:
    async def main() -> None:
        go = asyncio.Event()
        read_bytes = 0

        async def reads_late(scope: Message, receive: Receive, send: Send) -> None:
            nonlocal read_bytes
            await go.wait()
            more = True
            while more:
                message = await receive()
                read_bytes += len(message["body"])
                assert len(message["body"]) < 700_000
                more = message["more_body"]
            await PlainTextResponse("done")(scope, receive, send)

        async with served(reads_late) as (service, live):
            talk = await live.talk()
            talk.send(b"POST /app HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"b" * 4_000_000)
            await eventually(lambda: service.app.running == 1)
            (connection,) = live.server._shared.open  # pyright: ignore[reportPrivateUsage]
            await eventually(lambda: connection._reading_paused)  # pyright: ignore[reportPrivateUsage]
            go.set()
            assert (await talk.answer("POST"))[1] == b"done"
            assert read_bytes == 4_000_000
            await talk.close()

    run(main())


async def raises(scope: Message, receive: Receive, send: Send) -> None:
    raise ValueError("the application is broken")


async def raises_late(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("the application is broken")


async def returns(scope: Message, receive: Receive, send: Send) -> None:
    pass


async def splits(scope: Message, receive: Receive, send: Send) -> None:
    headers = [(b"x-a", b"b\r\nset-cookie: evil")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def body_first(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b""})


async def starts_twice(scope: Message, receive: Receive, send: Send) -> None:
    for _ in range(2):
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def says_nonsense(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})


@on_both_loops
@pytest.mark.parametrize("app", [raises, returns, splits, body_first, starts_twice, says_nonsense])
def test_an_application_that_breaks_is_500_and_the_connection_stays(run: Run, app: Application) -> None:
    async def main() -> None:
        async with served(app) as (_, live):
            talk = await live.talk()
            talk.send(GET % b"/app" + GET % b"/auto")
            response, body = await talk.answer()
            assert (response.status_code, body) == (500, b"internal")
            assert (await talk.answer())[0].status_code == 200
            await talk.close()

    run(main())


@on_both_loops
def test_an_application_that_breaks_in_its_answer_is_cut(run: Run) -> None:
    async def main() -> None:
        async with served(raises_late) as (_, live):
            talk = await live.talk()
            talk.send(GET % b"/app")
            received = b""
            with contextlib.suppress(ConnectionError):
                received = await talk.reader.read(65536)
                received += await talk.reader.read()
            assert not received.endswith(b"0\r\n\r\n")
            await talk.close()

    run(main())


@on_both_loops
def test_requests_over_the_bound_are_503_and_shutdown_cancels_what_does_not_end(run: Run) -> None:
    async def main() -> None:
        service = AsgiService(until_left, max_running=1)
        async with serving(service) as live:
            first, second = await live.talk(), await live.talk()
            first.send(GET % b"/app")
            await first.reader.readuntil(b"begun")
            second.send(GET % b"/app")
            assert (await second.answer())[0].status_code == 503
            assert service.app.running == 1
            await service.app.shutdown(0.01)
            assert service.app.running == 0
            with contextlib.suppress(ConnectionError):
                assert not (await first.reader.read()).endswith(b"0\r\n\r\n")
            for talk in (first, second):
                await talk.close()

    run(main())


def test_a_lifespan_leaves_its_state_for_requests() -> None:
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, str]]:
        events.append("begun")
        yield {"greeting": "hello"}
        events.append("ended")

    async def greet(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    async def main() -> None:
        app = Starlette(routes=[Path("/app", greet)], lifespan=lifespan)
        life = Lifespan(app)
        await life.startup()
        async with served(app) as (service, live):
            service.app.state = life.state
            talk = await live.talk()
            talk.send(GET % b"/app")
            assert (await talk.answer())[1] == b"hello"
            await talk.close()
        assert events == ["begun"]
        await life.shutdown()
        assert events == ["begun", "ended"]

    asyncio.run(main())


def test_an_application_that_does_not_start_is_an_error() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        raise ValueError("no room")
        yield

    async def main() -> None:
        with pytest.raises(LifespanError, match="no room"):
            await Lifespan(Starlette(lifespan=lifespan)).startup()

    asyncio.run(main())


def test_an_application_without_a_lifespan_is_left_alone() -> None:
    async def only_http(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise AsgiError("only http")

    async def main() -> None:
        life = Lifespan(only_http)
        await life.startup()
        await life.shutdown()
        assert life.state == {}

    asyncio.run(main())


def test_a_lifespan_that_hangs_has_a_deadline() -> None:
    async def hangs(scope: Message, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(LifespanError, match="no answer within"):
            await Lifespan(hangs, deadline_s=0.02).startup()

    asyncio.run(main())
