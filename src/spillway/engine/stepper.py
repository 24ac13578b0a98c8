"""The thread that owns the pipeline: it lets generations in, steps, reads tokens, decodes, and tells the event loop.

Rules. The event loop hands over with two deques and an event; nothing else is shared but plain counters that one side writes.
What steps brought goes to the loop in one call, at most every TELL_EVERY_S and not before it has taken the last lot: tokens that come
faster share one piece of text. A first token and an end do not wait for that. Only generations with stop strings are decoded at
every step, so that a stop ends them at its token. If a step raises, everything in the batch fails and the pipeline is built again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from spillway.core.clock import Clock
from spillway.engine.pacing import Pace
from spillway.engine.ports import Finish, GenerationListener, Pipeline, Running, Sampling, Tokenizer
from spillway.engine.text import StopScanner, TextWindow

_log = logging.getLogger(__name__)

TELL_EVERY_S = 0.004
"""Nobody reads faster, and an event costs as much as the token in it. Paced engines step more slowly than this."""
MAX_REBUILDS_IN_A_ROW = 3
"""Pipelines that fail in their first step. Then the thread gives up."""


class Generation:
    """One request on its way through the stepper. Made on the loop, then the stepper's until its listener was told the end."""

    __slots__ = (
        "cancelled",
        "finish",
        "listener",
        "prompt",
        "running",
        "sampling",
        "scanner",
        "text",
        "tokens",
        "told",
        "window",
    )

    def __init__(
        self, prompt: list[int], sampling: Sampling, stops: Sequence[str], listener: GenerationListener
    ) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.listener = listener
        self.scanner = StopScanner(stops) if stops else None
        self.window = TextWindow()
        self.running: Running | None = None
        self.text = ""  # decoded and not told
        self.told = False  # something was
        self.tokens = 0
        self.finish: Finish | None = None
        self.cancelled = False  # written by the loop


Progress = list[tuple[Generation, str, int, Finish | None]]


class Counters:
    """For metrics. Written by the stepper only; the first three are of this moment, the rest only grows.

    `step_s`: all the time in which there was something to step, so that `step_s / steps` is how long a step takes.
    """

    __slots__ = ("failures", "kv_usage", "output_tokens", "prompt_tokens", "running", "step_s", "steps", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self.kv_usage = 0.0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.steps = 0
        self.step_s = 0.0
        self.failures = 0


class Loop(Protocol):
    """Of the event loop, what the stepper needs."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: object) -> object: ...


class Stepper:
    """`start`, then `submit` and `cancel` from the event loop, then `stop`."""

    def __init__(
        self,
        build: Callable[[], Pipeline],
        tokenizer: Tokenizer,
        loop: Loop,
        clock: Clock,
        *,
        max_sequences: int,
        pace: Pace,
        on_ready: Callable[[], None],
        on_dead: Callable[[BaseException], None],
    ) -> None:
        self._build = build
        self._tokenizer = tokenizer
        self._loop = loop
        self._clock = clock
        self._max_sequences = max_sequences
        self._pace = pace
        self._on_ready = on_ready
        self._on_dead = on_dead
        self.counters = Counters()
        self._inbox: deque[Generation] = deque()
        self._cancels: deque[Generation] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lot: Progress | None = None  # with the loop, not taken yet
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._untold: dict[Generation, None] = {}  # in order, each once
        self._urgent = False  # a first token or an end is among them
        self._told_s = 0.0
        self._since_s = 0.0  # the end of the last step, or of idleness
        self._pipeline: Pipeline | None = None
        self._dropped = False  # something was cancelled, and the pipeline frees it in its next step
        self._fruitless = 0
        self._thread = threading.Thread(target=self._main, name="stepper", daemon=True)

    # on the event loop

    def start(self) -> None:
        self._thread.start()

    def submit(self, generation: Generation) -> None:
        self._inbox.append(generation)
        self._wake.set()

    def cancel(self, generation: Generation) -> None:
        """Its listener is not called any more; its place is free with the next step."""
        generation.cancelled = True
        self._cancels.append(generation)
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread between two steps; what runs is dropped. False when it is still in a step after the time."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _take_lot(self) -> None:
        lot, self._lot = self._lot, None
        self._wake.set()  # there may be more to tell, and no step to tell it after
        for generation, text, tokens, finish in lot or ():
            if generation.cancelled:
                continue
            try:
                generation.listener.progress(text, tokens, finish)
            except Exception:  # noqa: BLE001  one request's boundary: the others in the lot are still told
                _log.exception("an answer cannot be written")
                self.cancel(generation)

    # on the thread

    def _main(self) -> None:
        try:
            self._pipeline = self._build()
            self._loop.call_soon_threadsafe(self._on_ready)
            while not self._stopping.is_set():
                self._round()
        except BaseException as error:  # noqa: BLE001  a thread's boundary: whoever composed the engine ends it
            _log.error("the stepper ended: %s", type(error).__name__)
            self._loop.call_soon_threadsafe(self._on_dead, error)

    def _round(self) -> None:
        self._wake.clear()
        self._take_cancels()
        self._let_in()
        self._tell()
        if self._running:
            self._step()
        elif self._dropped:
            self._run_step()
        else:
            self._wake.wait()
            self._since_s = self._clock.monotonic()
            self._pace.resume(self._since_s)

    def _step(self) -> None:
        sequences = len(self._running)
        if not self._run_step():
            return
        self._read_tokens()
        if self._pace.enabled:
            self._stopping.wait(self._pace.wait_s(sequences, self._clock.monotonic()))
        now = self._clock.monotonic()
        self.counters.step_s += now - self._since_s
        self._since_s = now

    def _run_step(self) -> bool:
        pipeline = self._pipeline
        assert pipeline is not None
        try:
            pipeline.step()
        except Exception as error:  # noqa: BLE001  the library raises what it likes, and the pipeline is lost
            self._recover(error)
            return False
        self._fruitless = 0
        self._dropped = False
        self.counters.steps += 1
        self.counters.kv_usage = pipeline.kv_usage() if self._running else 0.0
        return True

    def _take_cancels(self) -> None:
        while self._cancels:
            generation = self._cancels.popleft()
            self._untold.pop(generation, None)
            if generation in self._waiting:
                self._waiting.remove(generation)
            elif generation.running is not None and generation in self._running:
                self._drop(generation.running)
                self._running.remove(generation)

    def _let_in(self) -> None:
        pipeline = self._pipeline
        assert pipeline is not None
        while self._inbox:
            generation = self._inbox.popleft()
            if not generation.cancelled:
                self._waiting.append(generation)
        while self._waiting and len(self._running) < self._max_sequences:
            generation = self._waiting.popleft()
            try:
                generation.running = pipeline.add(generation.prompt, generation.sampling)
            except Exception as error:  # noqa: BLE001  one request's fault is not the others'
                _log.error("a request cannot join the batch: %s", type(error).__name__)
                self._end(generation, Finish.FAILED)
                continue
            self._running.append(generation)
            self.counters.prompt_tokens += len(generation.prompt)
        self.counters.running = len(self._running)
        self.counters.waiting = len(self._waiting)
        if not self._running:
            self.counters.kv_usage = 0.0

    def _read_tokens(self) -> None:
        untold = self._untold
        scanned: list[Generation] = []
        ended = False
        total = 0
        for generation in self._running:
            assert generation.running is not None
            ids, finish = generation.running.take()
            if ids:
                total += len(ids)
                if not generation.tokens:
                    self._urgent = True
                generation.tokens += len(ids)
                generation.window.extend(ids)
                untold[generation] = None
                if generation.scanner is not None:
                    scanned.append(generation)
            if finish is not None:
                ended = True
                self._end(generation, finish)
        self.counters.output_tokens += total
        if scanned:
            ended |= self._scan(scanned)
        if ended:
            self._running = [generation for generation in self._running if generation.finish is None]

    def _scan(self, generations: list[Generation]) -> bool:
        """Decodes and ends those in whose text a stop string is complete."""
        self._decode(generations)
        stopped = False
        for generation in generations:
            if generation.finish is None and generation.scanner is None:
                assert generation.running is not None
                self._drop(generation.running)
                self._end(generation, Finish.STOP)
                stopped = True
        return stopped

    def _drop(self, running: Running) -> None:
        running.cancel()
        self._dropped = True

    def _end(self, generation: Generation, finish: Finish) -> None:
        generation.finish = finish
        self._untold[generation] = None
        self._urgent = True

    def _decode(self, generations: Sequence[Generation]) -> None:
        """Moves what is new from ids to text. A generation whose stop string came has no scanner afterwards."""
        rows: list[Sequence[int]] = []
        for generation in generations:
            rows += generation.window.rows()
        texts = self._tokenizer.decode(rows)
        for i, generation in enumerate(generations):
            final = generation.finish is not None
            text = generation.window.accept(texts[2 * i], texts[2 * i + 1], final=final)
            scanner = generation.scanner
            if scanner is not None:
                text, stopped = scanner.feed(text)
                if stopped:
                    generation.scanner = None
                    generation.window = TextWindow()
                    generation.finish = Finish.STOP if final else None
                elif final:
                    text += scanner.rest()
            generation.text += text

    def _tell(self) -> None:
        """Gives the loop all that is new, if it has taken what it was given before."""
        if not self._untold or self._lot is not None:
            return
        now = self._clock.monotonic()
        if self._running and now - self._told_s < TELL_EVERY_S:
            if not self._urgent:
                return
            due = [generation for generation in self._untold if not generation.told or generation.finish is not None]
        else:
            due = list(self._untold)
            self._told_s = now
        self._urgent = False
        self._decode([generation for generation in due if generation.window.pending])
        lot: Progress = []
        for generation in due:
            del self._untold[generation]
            if generation.text or generation.finish is not None:
                generation.told = True
                lot.append((generation, generation.text, generation.tokens, generation.finish))
                generation.text = ""
        if lot:
            self._lot = lot
            self._loop.call_soon_threadsafe(self._take_lot)

    def _recover(self, error: Exception) -> None:
        """Everything in the batch fails, and so does the thread when new pipelines fail as well."""
        self._fruitless += 1
        self.counters.failures += 1
        _log.error(
            "a step failed (%s): %d requests fail, the pipeline is built again",
            type(error).__name__,
            len(self._running),
        )
        if self._fruitless >= MAX_REBUILDS_IN_A_ROW:
            raise error
        for generation in self._running:
            if generation.running is not None:
                generation.running.cancel()
                generation.running = None
            self._end(generation, Finish.FAILED)
        self._running = []
        self._pipeline = None  # frees its cache before the next one takes as much
        self._tell()
        self._pipeline = self._build()
