"""The step-accurate model of an engine: continuous batching as vLLM and openvino-genai do it, one event for each step.

A step decodes one token for each running sequence and fills the same pass up to `prefill_chunk` tokens with prompts (chunked prefill),
oldest prompt first; it takes base + sequence · n + context · (tokens held) + prefill · (prompt tokens computed). A prompt's first token comes
with the step that completes it. A sequence needs KV room for every token it holds: where it runs out, the sequence that came last gives
up its memory, goes back to the head of the line, and computes what it had anew (preemption by recomputation).

Running sequences advance together, so a step costs O(1) and O(log n) for each sequence that ends in it.
"""

from collections import deque
from heapq import heapify, heappop, heappush

from spillway.core.clock import Seconds
from spillway.planner.engine import NEVER, Job, PrefixCache
from spillway.planner.scenario import EngineSpec


class _Prompt:
    """A job whose prompt (and what it had generated before a preemption) is being computed."""

    __slots__ = ("done", "job", "left", "needed")

    def __init__(self, job: Job, done: int) -> None:
        self.job = job
        self.done = done  # output tokens that it had already
        self.needed = job.input_tokens + done
        self.left = self.needed


class SteppedEngine:
    __slots__ = (
        "_cache", "_factor", "_finishing", "_held", "_order", "_prompts", "_reserved", "_running", "_sequence", "_spec",
        "_step", "_under_way", "_waiting", "due", "holds", "preempted",
    )  # fmt: skip

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._factor = 1.0
        self._cache = PrefixCache(spec.prefix_tokens)
        self._waiting: deque[_Prompt] = deque()
        self._prompts: deque[_Prompt] = deque()
        self._running: list[tuple[int, int, Job]] = []  # by the step in which they end
        self._order: dict[
            int, tuple[Job, int, int]
        ] = {}  # sequence number → (job, step of its first token, tokens it has then)
        self._step = 0
        self._sequence = 0
        self._held = 0  # tokens in the context of running sequences
        self._reserved = 0  # tokens of prompts that are being computed
        self._finishing: list[_Prompt] = []  # prompts that are complete with the step under way
        self._under_way = False
        self.due: Seconds = NEVER
        self.holds = 0
        self.preempted = 0

    def start(self, job: Job, now: Seconds) -> bool:
        if len(self._waiting) >= self._spec.queue:
            return False
        self.holds += 1
        self._waiting.append(_Prompt(job, 0))
        if not self._under_way:
            self._begin_step(now)
        return True

    def happen(self, now: Seconds) -> list[tuple[Job, bool]]:
        happened: list[tuple[Job, bool]] = []
        self._under_way = False
        self._step += 1
        self._held += len(self._order)
        while self._running and self._running[0][0] <= self._step:
            _, number, job = heappop(self._running)
            if number in self._order:
                self._forget(number)
                self.holds -= 1
                happened.append((job, False))
        for prompt in self._finishing:
            self._decode(prompt, happened)
        self._finishing.clear()
        self._begin_step(now)
        return happened

    def cancel(self, job: Job, now: Seconds) -> None:
        for queue in (self._waiting, self._prompts):
            for prompt in queue:
                if prompt.job is job:
                    queue.remove(prompt)
                    self._reserved -= prompt.needed if queue is self._prompts else 0
                    self.holds -= 1
                    return
        for prompt in self._finishing:
            if prompt.job is job:
                self._finishing.remove(prompt)
                self._reserved -= prompt.needed
                self.holds -= 1
                return
        for number, (running, _, _) in self._order.items():
            if running is job:
                self._forget(number)
                self._sweep()
                self.holds -= 1
                return

    def slow(self, factor: float, now: Seconds) -> None:
        self._factor = factor
        if factor == NEVER:
            self.due = NEVER
        elif not self._under_way:
            self._begin_step(now)
        elif self.due == NEVER:
            self.due = now  # the step that was held up ends; one that runs ends when it would have

    def fail(self, now: Seconds) -> list[Job]:
        lost = [prompt.job for prompt in (*self._waiting, *self._prompts, *self._finishing)]
        lost += [job for job, _, _ in self._order.values()]
        self._waiting.clear()
        self._prompts.clear()
        self._finishing.clear()
        self._running.clear()
        self._order.clear()
        self._held = self._reserved = self.holds = 0
        self._under_way, self.due = False, NEVER
        self._cache = PrefixCache(self._spec.prefix_tokens)
        return lost

    def kv_usage(self) -> float | None:
        kv_tokens = self._spec.kv_tokens
        return None if kv_tokens is None else min(1.0, (self._held + self._reserved) / kv_tokens)

    def _begin_step(self, now: Seconds) -> None:
        if self._factor == NEVER:
            self.due = NEVER
            return
        self._make_room()
        self._admit()
        spec, computed = self._spec, 0
        budget = max(1, spec.prefill_chunk - len(self._order))
        while self._prompts and budget:
            prompt = self._prompts[0]
            part = min(budget, prompt.left)
            prompt.left -= part
            budget -= part
            computed += part
            if not prompt.left:
                self._finishing.append(self._prompts.popleft())
        if not self._order and not computed and not self._finishing:
            self.due = NEVER
            return
        sequences = len(self._order) + len(self._finishing)
        step_s = max(part.step_s(sequences, self._held, computed) for part in (spec.costs, spec.pace))
        self._under_way = True
        self.due = now + self._factor * step_s

    def _admit(self) -> None:
        """Prompts get a sequence in order of arrival while there is memory for them."""
        spec = self._spec
        while self._waiting:
            taken = len(self._prompts) + len(self._finishing) + len(self._order)
            if taken >= spec.max_sequences:
                return
            prompt = self._waiting[0]
            if spec.kv_tokens is not None and taken and self._held + self._reserved + prompt.needed > spec.kv_tokens:
                return
            self._waiting.popleft()
            if not prompt.done:
                prompt.job.warm = self._cache.compute(prompt.job.arrival)
                prompt.left = prompt.needed - prompt.job.warm
            self._reserved += prompt.needed
            self._prompts.append(prompt)

    def _decode(self, prompt: _Prompt, happened: list[tuple[Job, bool]]) -> None:
        """Its prompt is computed, and with it came a token."""
        job = prompt.job
        self._reserved -= prompt.needed
        if not job.first:
            job.first = True
            happened.append((job, True))
        have = prompt.done + 1
        if have >= job.output_tokens:
            self.holds -= 1
            happened.append((job, False))
            return
        self._sequence += 1
        self._order[self._sequence] = (job, self._step, have)
        self._held += job.input_tokens + have
        heappush(self._running, (self._step + job.output_tokens - have, self._sequence, job))

    def _make_room(self) -> None:
        """Each running sequence needs one more token: who came last gives way."""
        kv_tokens = self._spec.kv_tokens
        if kv_tokens is None:
            return
        while len(self._order) > 1 and self._held + self._reserved + len(self._order) > kv_tokens:
            number = next(reversed(self._order))
            job, step, had = self._order[number]
            self._forget(number)
            self._waiting.appendleft(_Prompt(job, had + self._step - step))
            self.preempted += 1
        self._sweep()

    def _forget(self, number: int) -> None:
        job, step, had = self._order.pop(number)
        self._held -= job.input_tokens + had + self._step - step

    def _sweep(self) -> None:
        if len(self._running) > 2 * len(self._order) + 64:
            self._running = [entry for entry in self._running if entry[1] in self._order]
            heapify(self._running)
