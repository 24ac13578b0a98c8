"""The row function: one line of a batch to one result, whoever executes it. It never raises for what a gateway or a line does.

What an answer means:
1. 2xx and errors that say the line is at fault (400, 401, 403, 404, 409, 413, 415, 422) are results.
2. 429 and 503 mean load: the line waits and comes again, until its time is over.
3. Other errors count as failed attempts, and lost connections as losses; the last of either is its result.
"""

import asyncio
from typing import Protocol

import msgspec

from spillway.batch.jobs import Batch, Result
from spillway.batch.output import NOTHING
from spillway.batch.ports import Reply, Sender
from spillway.batch.settings import Settings
from spillway.core.clock import Clock, Seconds
from spillway.core.rng import Rng
from spillway.core.usage import Usage
from spillway.wire import usage_tail
from spillway.wire.batch_lines import Line

LOAD = frozenset((429, 503))
AT_FAULT = frozenset((400, 401, 403, 404, 405, 409, 413, 415, 422))
FIRST_BACK_S = 0.25
MOST_BACK_S = 30.0
POISON = ("poison", "This request ended its worker each time that it was computed.")


class Places(Protocol):
    """`window.Window`, or what stands for one."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...
    def answered(self) -> None: ...
    def refused(self, now: Seconds) -> None: ...


class Row:
    def __init__(self, sender: Sender, places: Places, settings: Settings, clock: Clock, rng: Rng) -> None:
        self._sender = sender
        self._places = places
        self._settings = settings
        self._clock = clock
        self._rng = rng

    async def compute(self, batch: Batch, number: int, line: Line) -> Result:
        """Waits for a place; returns however it ends. Cancelling it cancels what is on its way."""
        failures = losses = waits = 0
        while True:
            async with self._places:
                reply = await self._sender.send(
                    batch.key, f"{batch.id}/{number}", batch.endpoint, line.body, self._time_left_s(batch)
                )
            if reply.status in LOAD:
                self._places.refused(self._clock.monotonic())
                waits += 1
                await self._back_off(waits, reply.retry_after_s)
                continue
            if reply.status:
                self._places.answered()
            if 200 <= reply.status < 300 or reply.status in AT_FAULT:
                return answered(number, line, reply)
            if reply.status:
                failures += 1
            else:
                losses += 1
            if failures >= self._settings.attempts:
                return answered(number, line, reply)
            if losses >= self._settings.losses:
                return unanswered(number, line, "connection_lost", "Nobody answered this request.")
            await self._back_off(failures + losses, reply.retry_after_s)

    def _time_left_s(self, batch: Batch) -> Seconds:
        return max(1.0, batch.expires_at_s - self._clock.wall())

    async def _back_off(self, times: int, asked_s: Seconds | None) -> None:
        """Exponential with full jitter above what was asked for."""
        most_s = min(MOST_BACK_S, FIRST_BACK_S * 2 ** min(times, 10))
        await asyncio.sleep((asked_s or 0.0) + most_s * self._rng.random())


def answered(number: int, line: Line, reply: Reply) -> Result:
    body = reply.body if _is_json(reply.body) else msgspec.json.encode(reply.body.decode(errors="replace")[:2000])
    usage = (usage_tail.from_body(reply.body) if 200 <= reply.status < 300 else None) or Usage()
    return Result(
        number,
        line.custom_id,
        reply.status,
        reply.request,
        body,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens or 0,
        completion_tokens=usage.completion_tokens,
        cost_nano_usd=reply.cost_nano_usd,
        model=line.model,
        pool=reply.pool,
        version=reply.version,
        attempts=reply.attempts,
    )


def unanswered(number: int, line: Line, code: str, message: str) -> Result:
    return Result(number, line.custom_id, 0, "", NOTHING, code, message)


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(body.strip())
