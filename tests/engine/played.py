"""A pipeline, a tokenizer and a loop that are played, so that the stepper and the front can be tested without a model.

The played tokenizer knows one id per byte (value + 10) and the special ids below; a played generation writes the bytes of its script, one
token a step, and then its end token.
"""

import queue
import threading
from collections.abc import Callable, Sequence

from spillway.engine.ports import Finish, Sampling

END, USER, ASSISTANT = 2, 3, 4
SPECIAL = {"<|end|>": END, "<|user|>": USER, "<|assistant|>": ASSISTANT}
FIRST_BYTE_ID = 10
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['role'] }}:{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WAIT_S = 10.0


class BytesTokenizer:
    """Reads special texts as special ids wherever they stand, as real tokenizers do."""

    longest_token_bytes = 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(text.encode()) for text in texts]

    def _encode(self, text: bytes) -> list[int]:
        ids: list[int] = []
        at = 0
        while at < len(text):
            special = next((name for name in SPECIAL if text.startswith(name.encode(), at)), None)
            ids.append(SPECIAL[special] if special else text[at] + FIRST_BYTE_ID)
            at += len(special) if special else 1
        return ids

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        kept = [[number - FIRST_BYTE_ID for number in row if number >= FIRST_BYTE_ID] for row in rows]
        return [bytes(row).decode(errors="replace") for row in kept]


class PlayedRunning:
    def __init__(self, ids: list[int], sampling: Sampling) -> None:
        self._ids = ids[: sampling.max_tokens]
        self._cut = len(ids) > sampling.max_tokens
        self._ready: list[int] = []
        self.cancelled = False
        self.failing = False

    @property
    def done(self) -> bool:
        return self.cancelled or not self._ids

    def advance(self) -> None:
        if not self.done:
            self._ready.append(self._ids.pop(0))

    def take(self) -> tuple[Sequence[int], Finish | None]:
        ids, self._ready = self._ready, []
        if self.failing:
            return ids, Finish.FAILED
        return ids, (Finish.LENGTH if self._cut else Finish.STOP) if not self._ids else None

    def cancel(self) -> None:
        self.cancelled = True


class PlayedPipeline:
    """`script`: the text that every generation writes. `broken`: a schema with which a step raises, as the library does."""

    def __init__(self, script: str = "Hello there.", *, broken: str = "broken") -> None:
        self.script = script
        self.broken = broken
        self.batch: list[PlayedRunning] = []
        self.schemas: list[str | None] = []
        self.steps = 0
        self.widest = 0
        self.gate = threading.Event()  # a step waits for it
        self.gate.set()

    def add(self, prompt: list[int], sampling: Sampling) -> PlayedRunning:
        ids = [byte + FIRST_BYTE_ID for byte in self.script.encode()] + [END]
        running = PlayedRunning(ids, sampling)
        self.batch.append(running)
        self.schemas.append(sampling.schema)
        return running

    def step(self) -> None:
        assert self.gate.wait(WAIT_S)
        if self.broken in self.schemas:
            raise RuntimeError("a grammar cannot be compiled")
        self.steps += 1
        self.widest = max(self.widest, len(self.batch))
        for running in self.batch:
            running.advance()
        self.batch = [running for running in self.batch if not running.done]

    def kv_usage(self) -> float:
        return len(self.batch) / 100


class PlayedLoop:
    """Calls wait until the test runs them, in its own thread."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = queue.SimpleQueue()

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: object) -> None:
        self._calls.put((callback, args))

    def run_until(self, done: Callable[[], bool]) -> None:
        """Raises queue.Empty when nothing comes for WAIT_S."""
        while not done():
            callback, args = self._calls.get(timeout=WAIT_S)
            callback(*args)


class Heard:
    """A generation's listener that remembers."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.tokens = 0
        self.finish: Finish | None = None

    def progress(self, text: str, tokens: int, finish: Finish | None) -> None:
        assert self.finish is None
        self.pieces.append(text)
        self.tokens = tokens
        self.finish = finish

    @property
    def text(self) -> str:
        return "".join(self.pieces)
