"""The summary model of an engine: O(log n) for a request, whatever its length.

All sequences advance together: a clock of *tokens* runs at 1 / (base + sequence · n + context · held) a second while the engine
decodes and stands still while it computes a prompt. Prompts are computed one after the other, each whole, before decoding goes on; the
first token comes a step later, and half a step more where one was under way. So a request's residence is n_out · base + b ·
(n_out · sequence + n_in · prefill) with b of its kind: the line T(b) = x + y·b.

What it leaves out: prompts that are computed in pieces, in steps that decode too (gaps between tokens are lumpier here), preemption
(a request waits until its KV tokens are free), and rounding to steps.
"""

from collections import deque
from heapq import heappop, heappush, heapreplace

from spillway.core.clock import Seconds
from spillway.planner.engine import NEVER, Job, PrefixCache, room_for
from spillway.planner.scenario import EngineSpec, StepCosts

HALF_A_STEP = 0.5


class SummaryEngine:
    __slots__ = (
        "_at", "_cache", "_factor", "_kv", "_left_s", "_paced", "_prompts", "_running", "_sequence", "_spec", "_tokens",
        "_waiting", "due", "held", "holds",
    )  # fmt: skip

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._paced = spec.pace != StepCosts(0.0)
        self._factor = 1.0
        self._cache = PrefixCache(spec.prefix_tokens)
        self._waiting: deque[Job] = deque()  # for a sequence, or for KV tokens
        self._prompts: deque[Job] = deque()  # the first one is being computed
        self._left_s: Seconds = 0.0  # of the first prompt
        self._running: list[tuple[float, int, Job]] = []  # by the reading of the token clock at which they end
        self._sequence = 0
        self._tokens = 0.0  # the token clock
        self._at: Seconds = 0.0
        self._kv = 0  # of what has a sequence
        self.held = 0.0  # tokens in the context of what decodes, on the mean
        self.due: Seconds = NEVER
        self.holds = 0

    def start(self, job: Job, now: Seconds) -> bool:
        if len(self._waiting) >= self._spec.queue and not self._fits(job):
            return False
        self._advance(now)
        self.holds += 1
        if self._waiting or not self._fits(job):
            self._waiting.append(job)
            return True
        self._begin(job)
        self._plan()
        return True

    def happen(self, now: Seconds) -> list[tuple[Job, bool]]:
        self._advance(now)
        happened: list[tuple[Job, bool]] = []
        if self._prompts:
            job = self._prompts.popleft()
            under_way = HALF_A_STEP if self._running else 0.0
            self._sequence += 1
            heappush(self._running, (self._tokens + 1.0 + under_way, self._sequence, job))
            self.held += _held(job)
            if self._prompts:
                self._left_s = self._prefill_s(self._prompts[0])
        elif self._running:
            at, sequence, job = self._running[0]
            if not job.first:
                job.first = True
                happened.append((job, True))
                if job.output_tokens > 1:
                    heapreplace(self._running, (at + job.output_tokens - 1, sequence, job))
                    self._plan()
                    return happened
            heappop(self._running)
            self.held -= _held(job)
            self._over(job)
            happened.append((job, False))
        self._plan()
        return happened

    def cancel(self, job: Job, now: Seconds) -> None:
        self._advance(now)
        if job in self._waiting:
            self._waiting.remove(job)
            self.holds -= 1
        elif job in self._prompts:
            first = self._prompts[0] is job
            self._prompts.remove(job)
            if first and self._prompts:
                self._left_s = self._prefill_s(self._prompts[0])
            self._over(job)
        else:
            self._running = [entry for entry in self._running if entry[2] is not job]
            self._running.sort()  # a sorted list is a heap
            self.held -= _held(job)
            self._over(job)
        self._plan()

    def slow(self, factor: float, now: Seconds) -> None:
        self._advance(now)
        if self._prompts and 0.0 < self._factor < NEVER and factor < NEVER:
            self._left_s *= factor / self._factor
        self._factor = factor
        self._plan()

    def fail(self, now: Seconds) -> list[Job]:
        self._advance(now)
        lost = [*self._waiting, *self._prompts, *(entry[2] for entry in self._running)]
        self._waiting.clear()
        self._prompts.clear()
        self._running.clear()
        self._kv, self.held, self.holds, self.due = 0, 0.0, 0, NEVER
        self._cache = PrefixCache(self._spec.prefix_tokens)
        return lost

    def kv_usage(self) -> float | None:
        return None if self._spec.kv_tokens is None else min(1.0, self._kv / self._spec.kv_tokens)

    def _fits(self, job: Job) -> bool:
        spec = self._spec
        if len(self._prompts) + len(self._running) >= spec.max_sequences:
            return False
        return spec.kv_tokens is None or self._kv + room_for(spec, job) <= spec.kv_tokens

    def _begin(self, job: Job) -> None:
        """It has a sequence: its prompt is next in line."""
        self._kv += room_for(self._spec, job)
        job.warm = self._cache.compute(job.arrival)
        self._prompts.append(job)
        if len(self._prompts) == 1:
            self._left_s = self._prefill_s(job)

    def _over(self, job: Job) -> None:
        self.holds -= 1
        self._kv -= room_for(self._spec, job)
        while self._waiting and self._fits(self._waiting[0]):
            self._begin(self._waiting.popleft())

    def _prefill_s(self, job: Job) -> Seconds:
        """What a prompt adds to the steps: nothing while it fits into what a paced step has left."""
        spec, running = self._spec, len(self._running)
        prefill_s = (job.input_tokens - job.warm) * spec.costs.prefill_s
        slack_s = spec.pace.step_s(running, self.held) - spec.costs.step_s(running, self.held)
        factor = self._factor if self._factor < NEVER else 1.0
        return factor * (prefill_s if slack_s <= 0.0 else max(0.0, prefill_s - slack_s))

    def _token_s(self) -> Seconds:
        spec, running = self._spec, len(self._running)
        step_s = spec.costs.step_s(running, self.held)
        return self._factor * (max(step_s, spec.pace.step_s(running, self.held)) if self._paced else step_s)

    def _advance(self, now: Seconds) -> None:
        passed = now - self._at
        if passed <= 0.0:
            return
        self._at = now
        if self._factor == NEVER:
            return
        if self._prompts:
            self._left_s -= passed
        elif self._running:
            self._tokens += passed / self._token_s()

    def _plan(self) -> None:
        if self._factor == NEVER:
            self.due = NEVER
        elif self._prompts:
            self.due = self._at + max(0.0, self._left_s)
        elif self._running:
            self.due = self._at + max(0.0, self._running[0][0] - self._tokens) * self._token_s()
        else:
            self.due = NEVER


def _held(job: Job) -> float:
    return job.input_tokens + job.output_tokens / 2
