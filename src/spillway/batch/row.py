"""The row function: one line of a batch to one result, whoever executes it. It never raises for what a gateway or a line does.

What an answer means:
1. 2xx and errors that say the line is at fault (400, 401, 403, 404, 409, 413, 415, 422) are results.
2. 429 and 503 mean load: the line waits and comes again, until its time is over.
3. Other errors count as failed attempts, and lost connections as losses; the last of either is its result.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from spillway.batch.jobs import Batch, Part, Result, item_of
from spillway.batch.output import NOTHING
from spillway.batch.ports import Reply, Sender
from spillway.batch.settings import Settings
from spillway.core.clock import Clock, Seconds
from spillway.core.rng import Rng
from spillway.core.usage import Usage
from spillway.wire import usage_tail
from spillway.wire.batch_lines import Line
from spillway.wire.slices import Slices, sliced

CHAT = "/v1/chat/completions"
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
    """`continues`: public names of models whose long generations may come in slices."""

    def __init__(
        self,
        sender: Sender,
        places: Places,
        settings: Settings,
        clock: Clock,
        rng: Rng,
        continues: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._sender = sender
        self._places = places
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._continues = continues

    async def compute(self, batch: Batch, number: int, line: Line) -> Result:
        """Waits for a place; returns however it ends. Cancelling it cancels what is on its way."""
        slices = None
        if batch.endpoint == CHAT and line.model in self._continues():
            slices = sliced(line.body, self._settings.slice_tokens)
        if slices is not None:
            return await self._in_slices(batch, number, line, slices)
        reply = await self._reply(batch, item_of(number, 0), line.body)
        return answered(number, line, reply.body, [reply])

    async def _in_slices(self, batch: Batch, number: int, line: Line, slices: Slices) -> Result:
        """A slice that yields loses only itself."""
        replies: list[Reply] = []
        while True:
            reply = await self._reply(batch, item_of(number, len(replies)), slices.next_body())
            if not 200 <= reply.status < 300:
                if replies and b"context_length_exceeded" in reply.body:  # it went on as far as it could
                    return answered(number, line, slices.whole(), replies)
                return answered(number, line, reply.body, [reply])
            replies.append(reply)
            if slices.took(reply.body):
                return answered(number, line, slices.whole() if slices.count else reply.body, replies)

    async def _reply(self, batch: Batch, name: str, body: bytes) -> Reply:
        """What is said in the end."""
        failures = losses = waits = 0
        while True:
            async with self._places:
                reply = await self._sender.send(
                    batch.key, f"{batch.id}/{name}", batch.endpoint, body, self._time_left_s(batch)
                )
            if reply.status in LOAD:
                self._places.refused(self._clock.monotonic())
                waits += 1
                await self._back_off(waits, reply.retry_after_s)
                continue
            if reply.status:
                self._places.answered()
            if 200 <= reply.status < 300 or reply.status in AT_FAULT:
                return reply
            failures, losses = (failures + 1, losses) if reply.status else (failures, losses + 1)
            if failures >= self._settings.attempts or losses >= self._settings.losses:
                return reply
            await self._back_off(failures + losses, reply.retry_after_s)

    def _time_left_s(self, batch: Batch) -> Seconds:
        return max(1.0, batch.expires_at_s - self._clock.wall())

    async def _back_off(self, times: int, asked_s: Seconds | None) -> None:
        """Exponential with full jitter above what was asked for."""
        most_s = min(MOST_BACK_S, FIRST_BACK_S * 2 ** min(times, 10))
        await asyncio.sleep((asked_s or 0.0) + most_s * self._rng.random())


def answered(number: int, line: Line, body: bytes, replies: list[Reply]) -> Result:
    """Of the replies of one line, the last of which says how it ended."""
    last = replies[-1]
    if not last.status:
        return unanswered(number, line, "connection_lost", "Nobody answered this request.")
    said = body if _is_json(body) else msgspec.json.encode(body.decode(errors="replace")[:2000])
    parts = tuple(_part(place, reply) for place, reply in enumerate(replies))
    return Result(number, line.custom_id, last.status, last.request, said, model=line.model, parts=parts)


def _part(place: int, reply: Reply) -> Part:
    """The prompt is billed with the first."""
    usage = (usage_tail.from_body(reply.body) if 200 <= reply.status < 300 else None) or Usage()
    return Part(
        reply.request,
        0 if place else usage.prompt_tokens,
        0 if place else usage.cached_tokens or 0,
        usage.completion_tokens,
        reply.cost_nano_usd,
        reply.pool,
        reply.version,
        reply.attempts,
    )


def unanswered(number: int, line: Line, code: str, message: str) -> Result:
    return Result(number, line.custom_id, 0, "", NOTHING, code, message)


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(body.strip())
