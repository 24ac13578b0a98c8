"""One run of load: sends what is due, as long as there is room, and writes down every request exactly once.

Nothing here waits for an answer before the clock is asked what is due next (open loop). When the cap is reached, arrivals are
not dropped and not moved: they are sent late and their latency counts from when they were due. There is no task and no
coroutine per request.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from spillway.core.clock import Clock, Seconds
from spillway.load.arrivals import Arrivals
from spillway.load.meter import ResponseMeter
from spillway.load.record import INTERRUPTED, NOT_SENT, TIMEOUT, UNFINISHED, RequestRecord
from spillway.load.sizes import Size
from spillway.load.target import RequestMaker
from spillway.net.ports import Origin

TICK_S: Seconds = 0.1
TIMER_GRAIN_S: Seconds = 0.0005
"""Timers of the event loop are good to a millisecond: what is due within half of one goes out now."""

SENT_AT_ONCE = 64
"""Then the answers are read before more is sent: else a generator that is behind would never see an answer."""

_RECENT = 256


class Limits(msgspec.Struct, frozen=True):
    """`max_concurrency`: most requests in flight. `timeout_s`: of one request, from its sending. `drain_s`: how long after
    `duration_s` everything may still take; what then runs is UNFINISHED, what was never sent NOT_SENT. Without a duration
    the time-outs of the requests end the run."""

    max_concurrency: int
    duration_s: Seconds | None = None
    warmup_s: Seconds = 0.0
    timeout_s: Seconds = 120.0
    drain_s: Seconds = 120.0


class RunView(msgspec.Struct, frozen=True):
    """What a progress display shows. `recent_ttft_s`: of the last requests that had content."""

    elapsed_s: Seconds
    sent: int
    ended: int
    errors: int
    in_flight: int
    recent_ttft_s: tuple[Seconds, ...]


class LoadRun:
    """`run` once. `sink` is told every record when it is complete; `stop` ends the run at once, with what there is."""

    def __init__(
        self,
        origin: Origin,
        arrivals: Arrivals,
        sizes: Iterator[Size],
        maker: RequestMaker,
        limits: Limits,
        clock: Clock,
        sink: Callable[[RequestRecord], None],
        *,
        step: int = 0,
    ) -> None:
        self._origin = origin
        self._arrivals = arrivals
        self._sizes = sizes
        self._maker = maker
        self._limits = limits
        self._clock = clock
        self._sink = sink
        self._step = step
        self._records: list[RequestRecord] = []
        self._in_flight: dict[int, tuple[RequestRecord, ResponseMeter]] = {}  # in the order of sending
        self._started_s = clock.monotonic()
        self._errors = 0
        self._recent_ttft_s: deque[Seconds] = deque(maxlen=_RECENT)
        self._wake = asyncio.Event()
        self.stopped = False

    async def run(self) -> list[RequestRecord]:
        """All records, in the order of their schedule. Cancelling it cancels what is in flight."""
        self._started_s = self._clock.monotonic()
        try:
            while (pause_s := self._pump()) is not None:
                await self._woken(pause_s)
        finally:
            self._give_up_all(INTERRUPTED)
        return self._records

    def stop(self) -> None:
        self.stopped = True
        self._wake.set()

    def view(self) -> RunView:
        in_flight, begun = len(self._in_flight), len(self._records)
        return RunView(self._now_s(), begun, begun - in_flight, self._errors, in_flight, tuple(self._recent_ttft_s))

    def _pump(self) -> Seconds | None:
        """Ends what is overdue and sends what is due; how long nothing else is to be done, or None at the end of the run."""
        now_s = self._now_s()
        if self.stopped:
            return None
        if self._limits.duration_s is not None and now_s >= self._limits.duration_s + self._limits.drain_s:
            self._give_up_all(UNFINISHED)
            self._write_off(now_s)
            return None
        self._end_overdue(now_s)
        for _ in range(SENT_AT_ONCE):
            if len(self._in_flight) >= self._limits.max_concurrency:
                return TICK_S
            due_s = self._arrivals.due_s(now_s)
            if due_s is None:
                return TICK_S if self._in_flight else None
            if due_s > now_s + TIMER_GRAIN_S:
                return min(due_s - now_s, TICK_S)
            self._send(due_s)
            now_s = self._now_s()
        return 0.0

    async def _woken(self, pause_s: Seconds) -> None:
        timer = asyncio.get_running_loop().call_later(pause_s, self._wake.set)
        await self._wake.wait()
        timer.cancel()
        self._wake.clear()

    def _send(self, due_s: Seconds) -> None:
        self._arrivals.take()
        record, request = self._planned(due_s)
        sent_s = self._now_s()
        record.sent_s = sent_s
        record.intended_s = min(due_s, sent_s)
        meter = ResponseMeter(record, self._clock, self._started_s, self._over)
        self._in_flight[record.index] = (record, meter)
        meter.ticket = self._origin.send(request, meter)

    def _planned(self, due_s: Seconds) -> tuple[RequestRecord, bytes]:
        size = next(self._sizes)
        client = self._maker.client()
        record = RequestRecord(
            index=len(self._records),
            client=client.label,
            intended_s=due_s,
            input_tokens=size.input_tokens,
            max_tokens=size.output_tokens,
            step=self._step,
            warmup=due_s < self._limits.warmup_s,
            clipped=size.clipped,
        )
        self._records.append(record)
        return record, self._maker.request(client, size)

    def _over(self, record: RequestRecord) -> None:
        self._in_flight.pop(record.index, None)
        if record.error is not None:
            self._errors += 1
        elif record.ttft_s is not None:
            self._recent_ttft_s.append(record.ttft_s)
        self._sink(record)
        self._wake.set()

    def _end_overdue(self, now_s: Seconds) -> None:
        while self._in_flight:
            record, meter = next(iter(self._in_flight.values()))
            if record.sent_s is None or now_s - record.sent_s < self._limits.timeout_s:
                return
            meter.give_up(TIMEOUT)

    def _give_up_all(self, error: str) -> None:
        for _, meter in list(self._in_flight.values()):
            meter.give_up(error)

    def _write_off(self, now_s: Seconds) -> None:
        """Every arrival that was due and never sent is a request that failed."""
        while (due_s := self._arrivals.due_s(now_s)) is not None:
            self._arrivals.take()
            record, _ = self._planned(due_s)
            record.error = NOT_SENT
            self._errors += 1
            self._sink(record)

    def _now_s(self) -> Seconds:
        return self._clock.monotonic() - self._started_s
