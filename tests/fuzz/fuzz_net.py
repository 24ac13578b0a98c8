"""Coverage-guided fuzzing of both ends of `net`: `python tests/fuzz/fuzz_net.py [-max_total_time=SECONDS] [CORPUS…]`.

Not collected by pytest. A finding is an exception that escapes; a cut of the same bytes that gives other requests or another
response; requests that h11 frames otherwise; or a chunk that is passed on although it is not one.
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["spillway.net"]):  # pyright: ignore[reportAttributeAccessIssue]
    import h11
    from tests.net.played import Client, PlayedService, Upstream

    from spillway.net.ports import Exchange

REQUESTS = (
    b"%b /auto HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /auto HTTP/1.1\r\nHost: x\r\n%b\r\n\r\nGET /auto HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /streamed HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n%b",
    b"POST /streamed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%b",
    b"POST /auto HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%b",
)
RESPONSES = (
    b"HTTP/1.1 %b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%b",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b",
)


class Collects:
    """Answers a streamed request with its body when that is complete."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body = b""

    def body_piece(self, data: bytes) -> None:
        self._body += data

    def body_end(self) -> None:
        self._exchange.respond(200, b"", self._body)


class Answering(PlayedService):
    def __init__(self) -> None:
        super().__init__(max_body_bytes=10_000)
        self.streamed.handle = self.collect

    def collect(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.sink = Collects(exchange)


def one_input(noise: bytes) -> None:
    if not noise:
        return
    each = noise[0] % 16 + 1
    for data in (noise, *(shape.replace(b"%b", noise[1:]) for shape in REQUESTS)):
        fuzz_requests(data, each)
    for data in (noise, *(shape.replace(b"%b", noise[1:]) for shape in RESPONSES)):
        fuzz_response(data, each)


def fuzz_requests(data: bytes, each: int) -> None:
    seen: list[tuple[object, ...]] = []
    for size in (None, each):
        client = Client(Answering())
        client.send(data, each=size)
        requests = [
            (request.method, request.path, request.headers, request.body)
            for request in client.exchanges
            if not request.path.startswith(b"/streamed")  # handed over before its body turns out bad, or not
        ]
        seen.append((requests, client.service.rejections, client.transport.sent))
    assert seen[0] == seen[1], data
    auto = [request for request in client.exchanges if request.path == b"/auto"]
    if len(auto) == len(client.exchanges):
        for ours, reference in zip(auto, by_h11(data), strict=False):
            assert (ours.method, ours.body) == reference, data


def by_h11(data: bytes) -> list[tuple[bytes, bytes]]:
    """Method and body of the requests in `data`, as far as h11 takes them."""
    found: list[tuple[bytes, bytes]] = []
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    method, body = b"", b""
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, body))
                parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                parser.send(h11.EndOfMessage())
                parser.start_next_cycle()
            else:
                return found
    except h11.ProtocolError:
        return found


def fuzz_response(data: bytes, each: int) -> None:
    bodies: list[tuple[object, ...]] = []
    for size in (None, each):
        upstream = Upstream()
        upstream.send(data, each=size)
        receiver = upstream.receiver
        for framed in receiver.framed:
            assert_whole_chunks(framed)
        if not upstream.transport.closed:
            upstream.hang_up()
        assert receiver.over
        if receiver.ended:
            bodies.append((receiver.status, receiver.headers, receiver.body))
        else:
            bodies.append((receiver.fault,))
    assert bodies[0] == bodies[1], data


def assert_whole_chunks(framed: bytes) -> None:
    while framed:
        size, _, rest = framed.partition(b"\r\n")
        length = int(size, 16)
        assert length
        assert size == b"%x" % length or size == b"%X" % length or size.lower() == b"%x" % length
        assert rest[length : length + 2] == b"\r\n"
        framed = rest[length + 2 :]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
