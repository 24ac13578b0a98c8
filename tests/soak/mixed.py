"""Load of every kind that a public gateway sees: whole answers, streams, clients that leave or read slowly, mistakes, faults.

Arrivals are Poisson and do not wait for answers; at most `MOST_AT_ONCE` run, what comes on top is skipped and counted. Each
kind knows the statuses that it may end with; anything else is counted as unexpected.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable

from spillway.core.clock import Seconds
from spillway.testing.rng import SeededRng
from tests.soak.client import Answer, Connection, request
from tests.soak.crowd import Crowd

MODEL = "mixed"
MOST_AT_ONCE = 200
KEPT_CONNECTIONS = 32
DEADLINE_S = 60.0
SLOW_READ_BYTES = 512
SLOW_READ_EVERY_S = 0.25
PROMPT = "the keeper of the light trims the wick and counts the ships that come home before the night "
SERVED = frozenset((200, 429, 502, 503))  # the upstreams fail at times, and both pools may be full

Ask = Callable[["MixedLoad"], Awaitable[int]]


class MixedLoad:
    """`await run(seconds)`. `endings`: how requests ended, by kind and status; `unexpected`: those that should not have."""

    def __init__(self, port: int, crowd: Crowd, rng: SeededRng, *, per_s: float, patience_s: Seconds) -> None:
        """`patience_s`: how long a slow reader stays."""
        self.port = port
        self.crowd = crowd
        self.rng = rng
        self.endings: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self.skipped = 0
        self.slow_reads = round(patience_s / SLOW_READ_EVERY_S)
        self._per_s = per_s
        self._running = 0
        self._idle: list[Connection] = []

    async def run(self, seconds: Seconds) -> None:
        loop = asyncio.get_running_loop()
        at_s = loop.time()
        end_s = at_s + seconds
        async with asyncio.TaskGroup() as tasks:
            while (at_s := at_s - math.log(1.0 - self.rng.random()) / self._per_s) < end_s:
                await asyncio.sleep(max(0.0, at_s - loop.time()))
                if self._running >= MOST_AT_ONCE:
                    self.skipped += 1
                    continue
                self._running += 1
                tasks.create_task(self._one(*self._kind()))
        while self._idle:
            await self._idle.pop().close()

    async def exchange(self, data: bytes) -> Answer:
        """A request on a kept connection, or on a new one."""
        connection = self._idle.pop() if self._idle else await Connection.open(self.port)
        while not connection.usable:
            connection.abort()
            connection = self._idle.pop() if self._idle else await Connection.open(self.port)
        try:
            connection.send(data)
            answer = await connection.answer()
        except BaseException:
            connection.abort()
            raise
        if connection.kept and len(self._idle) < KEPT_CONNECTIONS:
            self._idle.append(connection)
        else:
            await connection.close()
        return answer

    def chat(self, *, stream: bool = False, prompt: str = PROMPT, model: str = MODEL, **fields: object) -> bytes:
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}], **fields}
        return request(body, key=self.crowd.anyone().secret)

    def _kind(self) -> tuple[str, Ask, frozenset[int]]:
        dice = self.rng.random() * TOTAL_WEIGHT
        for name, (weight, ask, expected) in KINDS.items():
            dice -= weight
            if dice < 0.0:
                return name, ask, expected
        raise AssertionError("weights do not add up")

    async def _one(self, name: str, ask: Ask, expected: frozenset[int]) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                status = await ask(self)
        except TimeoutError:
            status = -1
        except (OSError, EOFError):
            status = 0
        finally:
            self._running -= 1
        self.endings[f"{name}:{status}"] += 1
        if status not in expected:
            self.unexpected[f"{name}:{status}"] += 1


async def whole(load: MixedLoad) -> int:
    return (await load.exchange(load.chat(max_tokens=20))).status


async def stream(load: MixedLoad) -> int:
    return (await load.exchange(load.chat(stream=True, max_tokens=10 + int(load.rng.random() * 40)))).status


async def long_prompt(load: MixedLoad) -> int:
    return (await load.exchange(load.chat(prompt=PROMPT * 1500, max_tokens=4))).status


async def embedding(load: MixedLoad) -> int:
    body = {"model": MODEL, "input": [PROMPT, "two"]}
    return (await load.exchange(request(body, key=load.crowd.anyone().secret, path="/v1/embeddings"))).status


async def models(load: MixedLoad) -> int:
    ask = request(b"", key=load.crowd.anyone().secret, path="/v1/models", method="GET")
    return (await load.exchange(ask)).status


async def leaves_a_stream(load: MixedLoad) -> int:
    """After some pieces the connection is gone, as of a process that dies."""
    connection = await Connection.open(load.port)
    try:
        connection.send(load.chat(stream=True, max_tokens=200))
        answer = await connection.head()
        for _ in range(int(load.rng.random() * 12)):
            if not await connection.piece(answer):
                break
        return answer.status
    finally:
        connection.abort()


async def leaves_at_once(load: MixedLoad) -> int:
    """Before there is any answer: in the middle of the request, or while the upstream thinks."""
    connection = await Connection.open(load.port)
    data = load.chat(max_tokens=60)
    connection.send(data if load.rng.random() < 0.7 else data[: len(data) // 2])
    await asyncio.sleep(load.rng.random() * 0.3)
    connection.abort()
    return 0


async def reads_slowly(load: MixedLoad) -> int:
    connection = await Connection.open(load.port, receive_bytes=4096)
    try:
        connection.send(load.chat(stream=True, max_tokens=1500))
        answer = await connection.head()
        for _ in range(load.slow_reads if answer.status == 200 else 0):
            if not await connection.trickle(SLOW_READ_BYTES):
                break
            await asyncio.sleep(SLOW_READ_EVERY_S)
        return answer.status
    finally:
        connection.abort()


async def unknown_model(load: MixedLoad) -> int:
    name = load.rng.token_bytes(12).hex()
    return (await load.exchange(load.chat(model=f"model-{name}", max_tokens=4))).status


async def unknown_key(load: MixedLoad) -> int:
    key = f"sk-{load.rng.token_bytes(16).hex()}"
    return (await load.exchange(request({"model": MODEL, "messages": []}, key=key))).status


async def bad_request(load: MixedLoad) -> int:
    bodies = (b'{"model":"mixed","model":"other","messages":[]}', b'{"model":', b"[]", b'{"messages":[]}')
    body = bodies[int(load.rng.random() * len(bodies))]
    return (await load.exchange(request(body, key=load.crowd.anyone().secret))).status


async def too_large(load: MixedLoad) -> int:
    """Half of them by what they announce, half by their headers."""
    key = load.crowd.anyone().secret
    if load.rng.random() < 0.5:
        return (await load.exchange(request(b"{}", key=key, more=f"x-filler: {'x' * 40_000}\r\n"))).status
    announced = request(b"", key=key).replace(b"content-length: 0", b"content-length: 99999999")
    return (await load.exchange(announced)).status


async def no_such_path(load: MixedLoad) -> int:
    path = f"/v1/{load.rng.token_bytes(8).hex()}"
    return (await load.exchange(request(b"{}", key=load.crowd.anyone().secret, path=path))).status


async def bad_http(load: MixedLoad) -> int:
    return (await load.exchange(b"NO HTTP AT ALL\r\n\r\n")).status


async def upstream_refuses(load: MixedLoad) -> int:
    faults = ("context_length_exceeded", "content_filter", "reject_shape")
    fault = faults[int(load.rng.random() * len(faults))]
    return (await load.exchange(load.chat(user=f"fault:{fault}", max_tokens=4))).status


async def upstream_breaks(load: MixedLoad) -> int:
    """The client sees a stream that ends with an error in band, or is cut."""
    faults = (
        "cut:3",
        "reset_mid_stream:3",
        "malformed_chunk:2",
        "error_event:3",
        "no_done",
        "no_usage",
        "bad_framing:2",
    )
    fault = faults[int(load.rng.random() * len(faults))]
    return (await load.exchange(load.chat(stream=True, user=f"fault:{fault}", max_tokens=12))).status


KINDS: dict[str, tuple[float, Ask, frozenset[int]]] = {
    "whole": (28.0, whole, SERVED),
    "stream": (22.0, stream, SERVED | {0}),
    "long_prompt": (1.5, long_prompt, SERVED),
    "embedding": (4.0, embedding, SERVED),
    "models": (4.0, models, frozenset((200,))),
    "leaves_a_stream": (8.0, leaves_a_stream, SERVED | {0}),
    "leaves_at_once": (5.0, leaves_at_once, frozenset((0,))),
    "reads_slowly": (0.5, reads_slowly, SERVED),
    "unknown_model": (7.0, unknown_model, frozenset((404,))),
    "unknown_key": (6.0, unknown_key, frozenset((401,))),
    "bad_request": (5.0, bad_request, frozenset((400,))),
    "too_large": (1.0, too_large, frozenset((413, 431))),
    "no_such_path": (2.0, no_such_path, frozenset((404,))),
    "bad_http": (1.0, bad_http, frozenset((400,))),
    "upstream_refuses": (2.0, upstream_refuses, SERVED | {400}),
    "upstream_breaks": (3.0, upstream_breaks, SERVED | {0}),
}  # fmt: skip
"""name → share, what is done, and the statuses that it may end with (0: the connection ended)."""

TOTAL_WEIGHT = sum(weight for weight, _, _ in KINDS.values())
