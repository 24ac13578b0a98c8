"""Health probes: each endpoint is asked every `interval_s`; the brain decides what the answers mean."""

import asyncio
from collections.abc import Callable, Iterable

from spillway.backends.settings import ProbeSettings
from spillway.core.ids import EndpointUrl
from spillway.net.ports import ConnectionFault, Headers, Origin


class ProbeTarget:
    """One endpoint to ask, with the bytes to ask with."""

    __slots__ = ("endpoint", "origin", "request")

    def __init__(self, endpoint: EndpointUrl, origin: Origin, request: bytes) -> None:
        self.endpoint = endpoint
        self.origin = origin
        self.request = request


class _Answer:
    """`net.ports.Receiver`: healthy is a 2xx status."""

    def __init__(self) -> None:
        self.healthy: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._status = 0

    def response_head(self, status: int, headers: Headers) -> None:
        self._status = status

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        pass

    def response_end(self) -> None:
        self._answer(200 <= self._status < 300)

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        self._answer(False)

    def _answer(self, healthy: bool) -> None:
        if not self.healthy.done():
            self.healthy.set_result(healthy)


async def probe(target: ProbeTarget, timeout_s: float) -> bool:
    answer = _Answer()
    ticket = target.origin.send(target.request, answer)
    try:
        async with asyncio.timeout(timeout_s):
            return await answer.healthy
    except TimeoutError:
        ticket.cancel()
        return False


async def probe_forever(
    targets: Callable[[], Iterable[ProbeTarget]], settings: ProbeSettings, tell: Callable[[EndpointUrl, bool], None]
) -> None:
    """Asks all targets side by side, waits, and asks again; `targets` is read anew each time."""
    while True:
        chosen = list(targets())
        results = await asyncio.gather(*(probe(target, settings.timeout_s) for target in chosen))
        for target, healthy in zip(chosen, results, strict=True):
            tell(target.endpoint, healthy)
        await asyncio.sleep(settings.interval_s)
