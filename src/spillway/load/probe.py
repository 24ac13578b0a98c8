"""A few requests before the run, to learn how many characters a token has in this model."""

import asyncio

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import SpillwayError
from spillway.load.corpus import Yardstick, yardstick_from
from spillway.load.meter import ResponseMeter
from spillway.load.record import TIMEOUT, RequestRecord
from spillway.load.target import RequestMaker
from spillway.net.ports import Origin

PROBE_CHARS = (200, 1200) * 4
PROBE_TIMEOUT_S: Seconds = 30.0


class ProbeError(SpillwayError):
    """No probe was answered: the run would fail as a whole."""


async def probe(origin: Origin, maker: RequestMaker, clock: Clock, timeout_s: Seconds) -> Yardstick:
    """Sends the probes one after the other. Where the server reports no usage, the yardstick is the unmeasured default.
    Raises ProbeError when none was answered well."""
    answered: list[tuple[int, RequestRecord]] = []
    error = None
    for chars in PROBE_CHARS:
        record = await _ask(origin, maker.probe(chars), clock, timeout_s)
        if record.error is None:
            answered.append((chars, record))
        else:
            error = record.error
            if record.status == 0:
                break  # nobody answers: the next ones would wait as long
    if not answered:
        raise ProbeError(f"the target answers {error!r} to a first request (--chars-per-token goes without)")
    reported = [(chars, record.prompt_tokens) for chars, record in answered if record.prompt_tokens]
    return yardstick_from(reported) or Yardstick()


async def _ask(origin: Origin, request: bytes, clock: Clock, timeout_s: Seconds) -> RequestRecord:
    ended: asyncio.Future[RequestRecord] = asyncio.get_running_loop().create_future()
    record = RequestRecord(index=0, client="", intended_s=0.0, input_tokens=0, max_tokens=1)
    meter = ResponseMeter(record, clock, clock.monotonic(), ended.set_result)
    try:
        meter.ticket = origin.send(request, meter)
        await asyncio.wait({ended}, timeout=min(timeout_s, PROBE_TIMEOUT_S))
    finally:
        meter.give_up(TIMEOUT)
    return record
