"""The summary model of an engine: O(log n) for a request, whatever its length.

All sequences advance together: a clock of *tokens* runs at 1 / (base + sequence · n + context · held) a second while the engine
decodes and stands still while it computes a prompt. Prompts are computed one after the other, each whole, before decoding goes on; the
first token comes a step later, and half a step more where one was under way; prompts stand in line for the `prefill_chunk` tokens that a
step computes at most, by the clock of tokens too. So a request's residence is n_out · base + b ·
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
        "_at",
        "_cache",
        "_factor",
        "_kv",
        "_line",
        "_paced",
        "_prompts_s",
        "_running",
        "_sequence",
        "_spec",
        "_token_s",
        "_tokens",
        "_waiting",
        "due",
        "held",
        "holds",
    )  # fmt: skip

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._paced = spec.pace != StepCosts(0.0)
        self._factor = 1.0
        self._cache = PrefixCache(spec.prefix_tokens)
        self._waiting: deque[Job] = deque()  # for a sequence, or for KV tokens
        self._running: list[tuple[float, int, Job]] = []  # by what the token clock shows at their next news
        self._sequence = 0
        self._prompts_s: Seconds = 0.0  # what is left of prompts: so long the token clock stands still
        self._tokens = 0.0  # the token clock
        self._token_s: Seconds = 0.0  # what it takes to advance by one
        self._line = 0.0  # what it shows when the prompts that are here will have had their parts of steps
        self._at: Seconds = 0.0
        self._kv = 0  # of what has a sequence
        self.held = 0.0  # tokens in the context of what decodes, on the mean
        self.due: Seconds = NEVER
        self.holds = 0

    def start(self, job: Job, now: Seconds) -> bool:
        fits = not self._waiting and self._fits(job)
        if not fits and len(self._waiting) >= self._spec.queue:
            return False
        self.holds += 1
        if not fits:
            self._waiting.append(job)
            return True
        self._advance(now)
        self._begin(job)
        self._plan()
        return True

    def happen(self, now: Seconds) -> list[tuple[Job, bool]]:
        self._advance(now)
        if not self._running:
            return []
        happened: list[tuple[Job, bool]] = []
        at, sequence, job = self._running[0]
        if not job.first:
            job.first = True
            happened.append((job, True))
        if job.output_tokens > 1 and happened:
            heapreplace(self._running, (at + job.output_tokens - 1, sequence, job))
        else:
            heappop(self._running)
            self._over(job)
            happened.append((job, False))
        self._plan()
        return happened

    def cancel(self, job: Job, now: Seconds) -> None:
        self._advance(now)
        if job in self._waiting:
            self._waiting.remove(job)
            self.holds -= 1
            return
        self._running = [entry for entry in self._running if entry[2] is not job]
        self._running.sort()  # a sorted list is a heap
        self._over(job)
        self._plan()

    def slow(self, factor: float, now: Seconds) -> None:
        self._advance(now)
        if self._factor < NEVER and factor < NEVER:
            self._prompts_s *= factor / self._factor
        self._factor = factor
        self._plan()

    def fail(self, now: Seconds) -> list[Job]:
        self._advance(now)
        lost = [*self._waiting, *(entry[2] for entry in self._running)]
        self._waiting.clear()
        self._running.clear()
        self._kv, self.held, self.holds, self._prompts_s, self._line, self.due = 0, 0.0, 0, 0.0, 0.0, NEVER
        self._cache = PrefixCache(self._spec.prefix_tokens)
        return lost

    def kv_usage(self) -> float | None:
        return None if self._spec.kv_tokens is None else min(1.0, self._kv / self._spec.kv_tokens)

    def _fits(self, job: Job) -> bool:
        spec = self._spec
        if len(self._running) >= spec.max_sequences:
            return False
        return spec.kv_tokens is None or self._kv + room_for(spec, job) <= spec.kv_tokens

    def _begin(self, job: Job) -> None:
        """It has a sequence: everybody waits for its prompt."""
        self._kv += room_for(self._spec, job)
        job.warm = self._cache.compute(job.arrival)
        self._prompts_s += self._prefill_s(job)
        under_way = HALF_A_STEP if self._running else 0.0
        room = max(1, self._spec.prefill_chunk - len(self._running))
        self._line = max(self._line, self._tokens) + (job.input_tokens - job.warm) / room
        self._sequence += 1
        heappush(self._running, (max(self._line, self._tokens + 1.0) + under_way, self._sequence, job))
        self.held += job.input_tokens + job.output_tokens / 2

    def _over(self, job: Job) -> None:
        self.holds -= 1
        self.held -= job.input_tokens + job.output_tokens / 2
        self._kv -= room_for(self._spec, job)
        while self._waiting and self._fits(self._waiting[0]):
            self._begin(self._waiting.popleft())

    def _prefill_s(self, job: Job) -> Seconds:
        """What a prompt adds to the steps: nothing while it fits into what a paced step has left."""
        spec, running = self._spec, len(self._running)
        prefill_s = (job.input_tokens - job.warm) * spec.costs.prefill_s
        if self._paced:
            slack_s = spec.pace.step_s(running, self.held) - spec.costs.step_s(running, self.held)
            prefill_s = max(0.0, prefill_s - max(0.0, slack_s))
        return prefill_s * (self._factor if self._factor < NEVER else 1.0)

    def _advance(self, now: Seconds) -> None:
        passed, self._at = now - self._at, now
        if passed <= 0.0 or self._factor == NEVER or not self._running:
            return
        if self._prompts_s > 0.0:
            passed -= self._prompts_s
            self._prompts_s = -passed if passed < 0.0 else 0.0
        if passed > 0.0:
            self._tokens += passed / self._token_s

    def _plan(self) -> None:
        """After every change: how fast it goes from here, and what comes next."""
        running = self._running
        if not running or self._factor == NEVER:
            self.due = NEVER
            return
        spec = self._spec
        step_s = spec.costs.step_s(len(running), self.held)
        if self._paced:
            step_s = max(step_s, spec.pace.step_s(len(running), self.held))
        self._token_s = step_s = step_s * self._factor
        left = running[0][0] - self._tokens
        self.due = self._at + self._prompts_s + (left * step_s if left > 0.0 else 0.0)
