"""The fake engine's inside: sequences that run together, those that wait, and the KV blocks they share.

Rules
- At most `max_num_seqs` run; the rest wait in order of arrival, at most `max_waiting_queue_length` of them, then `EngineFullError`.
- A sequence starts when the blocks of its tokens so far and of the next one are free. Output grows block by block; when none is free the
  youngest running sequence is preempted: it loses its blocks, goes to the head of the line and prefills again later.
- All running sequences advance at one pace, 1 / stretch(b). The engine keeps a clock of its own that runs at this pace
  (`_pace_s`), so each token's time is fixed in that clock when the one before it is made, and one timer is enough.
  Between two tokens b is constant; so the simulation is exact however late the real timer fires.
"""

import heapq
from collections import deque
from typing import Protocol

from spillway.core.clock import Seconds, Timer, Timers
from spillway.core.errors import SpillwayError
from spillway.testing.latency import Latency
from spillway.testing.spec import UpstreamSpec

_ROUNDING_S = 1e-9


class EngineFullError(SpillwayError):
    """The waiting queue is full."""


class SequenceListener(Protocol):
    def generated(self, count: int) -> None:
        """`count` more output tokens. Called once for all that fell due together."""
        ...

    def completed(self) -> None:
        """All output tokens were generated and told of."""
        ...


class Sequence:
    """One request inside the engine."""

    __slots__ = (
        "blocks", "epoch", "generated", "input_tokens", "listener", "order", "output_tokens", "running", "started_at_s",
    )  # fmt: skip

    def __init__(self, input_tokens: int, output_tokens: int, listener: SequenceListener) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.listener: SequenceListener | None = listener  # None: over
        self.generated = 0
        self.started_at_s: Seconds | None = None  # of the first start
        self.running = False
        self.order = 0
        self.epoch = 0  # goes up when it stops running, so that its entry in the heap is known to be stale
        self.blocks = 0


class Sequences:
    def __init__(self, spec: UpstreamSpec, latency: Latency, timers: Timers) -> None:
        self._spec = spec
        self._latency = latency
        self._timers = timers
        self._timer: Timer | None = None
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # by order of start: the last one is the youngest
        self._due: list[tuple[float, int, int, Sequence]] = []  # (pace clock, order, epoch, sequence)
        self._pace_s = 0.0
        self._at_s = timers.time()  # the real time that belongs to `_pace_s`
        self._orders = 0
        self._blocks_used = 0
        self._busy = False
        self.preemptions = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks in use, 0–1; 0 where they are unlimited."""
        return self._blocks_used / self._spec.kv_cache_size if self._spec.kv_cache_size else 0.0

    def submit(self, sequence: Sequence) -> None:
        """Its tokens must fit `longest_request_tokens`. Its listener may be called before this returns.

        Raises EngineFullError at the bound of the waiting queue.
        """
        self._pump()
        if len(self._waiting) >= self._spec.max_waiting_queue_length and not self._has_room():
            raise EngineFullError("the waiting queue is full")
        self._waiting.append(sequence)
        self._pump()

    def cancel(self, sequence: Sequence) -> None:
        """Stop generating; its listener is not called again. Nothing happens to one that is over or was not submitted."""
        self._pump()
        sequence.listener = None
        if sequence.running:
            self._stop(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        self._pump()

    def close(self) -> None:
        """No timer fires after this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def reconfigure(self, spec: UpstreamSpec, latency: Latency) -> None:
        """Another speed and room from now on. What runs keeps running, also above a limit that shrank."""
        self._pump()
        self._spec, self._latency = spec, latency
        self._pump()

    def _has_room(self) -> bool:
        return not self._waiting and len(self._running) < self._spec.max_num_seqs

    def _pump(self) -> None:
        """Make the tokens that fell due, start what can start, tell of both, set the timer.

        Listeners may submit and cancel meanwhile: that finds `_busy` and is seen to by the loop here.
        """
        if self._busy:
            return
        self._busy = True
        try:
            while True:
                news = self._collect_due(self._timers.time())
                started = self._admit()
                for sequence, count in news.items():
                    _tell(sequence, count)
                if not news and not started:
                    break
        finally:
            self._busy = False
        self._arm()

    def _collect_due(self, now_s: Seconds) -> dict[Sequence, int]:
        """Lets the pace clock run up to `now_s`, token by token. Each sequence that advanced, and by how many tokens."""
        news: dict[Sequence, int] = {}
        while (due_s := self._next_due_s()) is not None and due_s <= now_s + _ROUNDING_S:
            pace_s, _, _, sequence = heapq.heappop(self._due)
            self._pace_s, self._at_s = pace_s, due_s
            if self._advance(sequence):
                news[sequence] = news.get(sequence, 0) + (1 if sequence.output_tokens else 0)
            self._admit()
        if self._running:
            self._pace_s += max(now_s - self._at_s, 0.0) / self._stretch()
        self._at_s = max(now_s, self._at_s)
        return news

    def _advance(self, sequence: Sequence) -> bool:
        """One token, or the end of a sequence that has no output. False: it was preempted instead."""
        if sequence.output_tokens:
            if not self._grow(sequence):
                return False
            sequence.generated += 1
        if sequence.generated == sequence.output_tokens:
            self._stop(sequence)
        else:
            self._push(sequence, self._latency.next_token_s())
        return True

    def _admit(self) -> bool:
        started = False
        while self._waiting and len(self._running) < self._spec.max_num_seqs:
            sequence = self._waiting[0]
            blocks = self._blocks_for_next_token(sequence)
            if not self._fits(blocks):
                break
            self._waiting.popleft()
            self._orders += 1
            sequence.order, sequence.running, sequence.blocks = self._orders, True, blocks
            self._blocks_used += blocks
            self._running[sequence.order] = sequence
            if sequence.started_at_s is None:
                sequence.started_at_s = self._at_s
            self._push(sequence, self._latency.first_token_s(sequence.input_tokens + sequence.generated))
            started = True
        return started

    def _grow(self, sequence: Sequence) -> bool:
        """Room for one more token, if need be at the cost of the youngest. False: it was itself the youngest."""
        needed = self._blocks_for_next_token(sequence) - sequence.blocks
        while needed and not self._fits(needed):
            youngest = self._running[next(reversed(self._running))]
            self.preemptions += 1
            self._stop(youngest)
            self._waiting.appendleft(youngest)
            if youngest is sequence:
                return False
        sequence.blocks += needed
        self._blocks_used += needed
        return True

    def _stop(self, sequence: Sequence) -> None:
        del self._running[sequence.order]
        self._blocks_used -= sequence.blocks
        sequence.blocks, sequence.running = 0, False
        sequence.epoch += 1

    def _blocks_for_next_token(self, sequence: Sequence) -> int:
        """With the token to come: a sequence that starts must not be preempted before it made one."""
        tokens = min(sequence.generated + 1, sequence.output_tokens) + sequence.input_tokens
        return -(-tokens // self._spec.block_size)

    def _fits(self, blocks: int) -> bool:
        return self._spec.kv_cache_size is None or self._blocks_used + blocks <= self._spec.kv_cache_size

    def _push(self, sequence: Sequence, cost_s: float) -> None:
        heapq.heappush(self._due, (self._pace_s + cost_s, sequence.order, sequence.epoch, sequence))

    def _stretch(self) -> float:
        return max(self._latency.stretch(len(self._running)), _ROUNDING_S)

    def _drop_stale(self) -> None:
        while self._due and self._due[0][2] != self._due[0][3].epoch:
            heapq.heappop(self._due)

    def _next_due_s(self) -> Seconds | None:
        """The real time of the next token, if b stays as it is."""
        self._drop_stale()
        if not self._due:
            return None
        return self._at_s + (self._due[0][0] - self._pace_s) * self._stretch()

    def _arm(self) -> None:
        self.close()
        due_s = self._next_due_s()
        if due_s is not None:
            self._timer = self._timers.call_at(due_s, self._pump)


def _tell(sequence: Sequence, count: int) -> None:
    """A listener that cancels, or a sequence that is over, hears nothing more."""
    if count and sequence.listener is not None:
        sequence.listener.generated(count)
    if sequence.listener is not None and sequence.generated == sequence.output_tokens and not sequence.running:
        listener, sequence.listener = sequence.listener, None
        listener.completed()
