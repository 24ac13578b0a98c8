"""Computes batches in threads: one for the model, one beside it for what comes before and after, so that two batches overlap.

An item fails alone: what `preprocess` or `postprocess` raises is its own, and a batch that `predict` raises for is computed again in
halves until the item that is at fault stands alone.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import msgspec

from spillway.core.clock import Clock, Seconds
from spillway.core.errors import SpillwayError
from spillway.engine.micro.batcher import Batcher, Item
from spillway.engine.micro.model import CustomModel
from spillway.engine.micro.settings import BatchRules

log = logging.getLogger(__name__)

Ready = Callable[["Output"], None]


class Output(msgspec.Struct, frozen=True):
    """What came of an item: `value`, or the reason why nothing did (`error` for people, `code`: item_failed, deadline_exceeded)."""

    value: Any = None
    tokens: int = 0
    error: str = ""
    code: str = ""


class FullError(SpillwayError):
    """As much waits as may."""


class Counts(msgspec.Struct):
    """Since the start."""

    batches: int = 0
    items: int = 0
    failed: int = 0
    late: int = 0
    bisections: int = 0
    busy_s: Seconds = 0.0
    sizes: dict[int, int] = {}


class Runner:
    """All on the event loop's thread, but for the model's own work. `submit` gives each item's output to its `ready`, once."""

    def __init__(self, model: CustomModel, rules: BatchRules, clock: Clock) -> None:
        self._model = model
        self._clock = clock
        self._batcher = Batcher(rules)
        self._loop = asyncio.get_running_loop()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="spillway-prepare")
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="spillway-model")
        self._ready: dict[Item, Ready] = {}
        self._batches: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at: Seconds = inf
        self.counts = Counts(sizes={})

    @property
    def waiting(self) -> int:
        return self._batcher.waiting

    @property
    def running(self) -> int:
        """Items that are computed."""
        return len(self._ready) - self._batcher.waiting

    def submit(self, items: list[tuple[Item, Ready]]) -> None:
        """All of them or none. FullError."""
        now, taken = self._clock.monotonic(), list[Item]()
        for item, ready in items:
            if not self._batcher.offer(item, now):
                for one in taken:
                    self.cancel(one)
                raise FullError("as much waits as may")
            taken.append(item)
            self._ready[item] = ready
        self._go_on()

    def cancel(self, item: Item) -> None:
        """Nobody wants it any more. If it is computed already, what comes of it goes nowhere."""
        self._ready.pop(item, None)
        self._batcher.cancel(item)

    async def close(self, within_s: Seconds) -> bool:
        """Waits for what is computed. False: some of it still is."""
        if self._batches:
            await asyncio.wait(self._batches, timeout=within_s)
        self._beside.shutdown(wait=False, cancel_futures=True)
        self._compute.shutdown(wait=False, cancel_futures=True)
        return not self._batches

    def _go_on(self) -> None:
        now = self._clock.monotonic()
        while True:
            batch, late = self._batcher.take(now)
            for item in late:
                self.counts.late += 1
                self._tell(
                    item, Output(error="The deadline would be over before this is done.", code="deadline_exceeded")
                )
            if not batch:
                break
            task = self._loop.create_task(self._run(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        self._wake_no_later_than(self._batcher.wake_at(), now)

    def _wake_no_later_than(self, at: Seconds, now: Seconds) -> None:
        if at >= self._wake_at:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_at = at
        self._wake = self._loop.call_later(max(0.0, at - now), self._woke)

    def _woke(self) -> None:
        self._wake, self._wake_at = None, inf
        self._go_on()

    async def _run(self, batch: list[Item]) -> None:
        began = self._clock.monotonic()
        counts = self.counts
        counts.batches += 1
        counts.items += len(batch)
        counts.sizes[len(batch)] = counts.sizes.get(len(batch), 0) + 1
        try:
            outputs = await self._computed(batch)
            for item, output in zip(batch, outputs, strict=True):
                counts.failed += bool(output.error)
                self._tell(item, output)
        finally:
            took_s = self._clock.monotonic() - began
            counts.busy_s += took_s
            self._batcher.ended(took_s)
            for item in batch:  # where the engine itself broke
                self._tell(item, Output(error="The engine failed.", code="engine_failed"))
            self._go_on()

    async def _computed(self, batch: list[Item]) -> list[Output]:
        """One output for each item, in their order."""
        run = self._loop.run_in_executor
        prepared = await run(self._beside, self._prepare, [item.text for item in batch])
        sound = [index for index, one in enumerate(prepared) if not isinstance(one, Output)]
        raw = await run(self._compute, self._predict, [prepared[index] for index in sound]) if sound else []
        done: list[Output] = await run(self._beside, self._finish, [prepared[index] for index in sound], raw)
        outputs: list[Output] = list(prepared)
        for index, output in zip(sound, done, strict=True):
            outputs[index] = output
        return outputs

    def _tell(self, item: Item, output: Output) -> None:
        ready = self._ready.pop(item, None)
        if ready is not None:
            ready(output)

    # From here on: in the threads. What the user's code raises belongs to its item.

    def _prepare(self, texts: list[str]) -> list[Any]:
        return [_guarded(self._model.preprocess, text) for text in texts]

    def _predict(self, prepared: list[Any]) -> list[Any]:
        try:
            outputs = list(self._model.predict(prepared))
            if len(outputs) != len(prepared):
                raise ValueError(f"predict gave {len(outputs)} outputs for {len(prepared)} items")
        except Exception as error:  # noqa: BLE001  the user's code: it belongs to its items
            if len(prepared) == 1:
                log.warning("an item failed: %s", type(error).__name__)
                return [_failed(error)]
            self.counts.bisections += 1
            half = len(prepared) // 2
            return self._predict(prepared[:half]) + self._predict(prepared[half:])
        return outputs

    def _finish(self, prepared: list[Any], raw: list[Any]) -> list[Output]:
        return [
            output if isinstance(output, Output) else self._finish_one(one, output)
            for one, output in zip(prepared, raw, strict=True)
        ]

    def _finish_one(self, prepared: Any, raw: Any) -> Output:
        value = _guarded(self._model.postprocess, raw)
        if isinstance(value, Output):
            return value
        tokens = getattr(self._model, "tokens", None)
        count = _guarded(tokens, prepared) if callable(tokens) else 0
        return count if isinstance(count, Output) else Output(value, int(count))


def _guarded(step: Callable[[Any], Any], value: Any) -> Any:
    try:
        return step(value)
    except Exception as error:  # noqa: BLE001  the user's code: it belongs to its item
        log.warning("an item failed: %s", type(error).__name__)
        return _failed(error)


def _failed(error: Exception) -> Output:
    """Without what it says: it may hold what a client wrote."""
    return Output(error=f"The model could not compute this input ({type(error).__name__}).", code="item_failed")
