"""What the simulation needs of an engine, and what its models share: requests, their places, the prefix cache."""

from collections import OrderedDict
from math import inf
from typing import Protocol

from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl, PoolName
from spillway.planner.arrival import Arrival
from spillway.planner.scenario import EngineSpec


class Job:
    """One attempt, from its dispatch to its end. `gateway`: the number of the one that sent it."""

    __slots__ = ("arrival", "ended", "first", "first_at", "gateway", "input_tokens", "inside", "output_tokens", "pool", "sent_at", "spilled",
                 "url", "warm")  # fmt: skip

    def __init__(
        self, arrival: Arrival, gateway: int, pool: PoolName, url: EndpointUrl, sent_at: Seconds, *, spilled: bool
    ) -> None:
        self.arrival = arrival
        self.gateway = gateway
        self.pool = pool
        self.url = url
        self.spilled = spilled
        self.sent_at = sent_at
        self.input_tokens = arrival.arrived.input_tokens
        self.output_tokens = arrival.output_tokens
        self.warm = 0  # input tokens that were in the prefix cache
        self.first = False  # its first token left the engine
        self.first_at: Seconds = 0.0  # when the gateway saw it
        self.inside = False  # the engine holds it
        self.ended = False  # the gateway is done with it


class Engine(Protocol):
    """Time is told to every method and never goes back. After any of them `due` may have changed."""

    due: Seconds  # when something happens next; `inf`: nothing does
    holds: int  # requests that run or wait in it

    def start(self, job: Job, now: Seconds) -> bool:
        """False: its queue is full."""
        ...

    def happen(self, now: Seconds) -> list[tuple[Job, bool]]:
        """What falls due now: (job, True) gave its first token, (job, False) its last. A first one of a job with a single
        token is followed by its last."""
        ...

    def cancel(self, job: Job, now: Seconds) -> None: ...

    def slow(self, factor: float, now: Seconds) -> None:
        """Every step takes so many times as long; `inf`: nothing proceeds."""
        ...

    def fail(self, now: Seconds) -> list[Job]:
        """All it holds is lost."""
        ...

    def kv_usage(self) -> float | None:
        """0–1; None where its memory has no bound."""
        ...


class PrefixCache:
    """The blocks of prompts that were computed last, `tokens` of them in all; the oldest is forgotten."""

    __slots__ = ("_blocks", "_held", "_tokens")

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._blocks: OrderedDict[int, int] = OrderedDict()
        self._held = 0

    def compute(self, arrival: Arrival) -> int:
        """The prompt is computed here. Returns how many of its tokens were there already: whole leading blocks, never all."""
        arrived, blocks = arrival.arrived, self._blocks
        if not self._tokens or not arrived.prefix:
            return 0
        warm = 0
        for block in arrived.prefix:
            if block not in blocks:
                break
            warm += 1
        for block in reversed(arrived.prefix):
            if block in blocks:
                blocks.move_to_end(block)
            else:
                blocks[block] = arrived.block_tokens
                self._held += arrived.block_tokens
        while self._held > self._tokens:
            self._held -= blocks.popitem(last=False)[1]
        return min(warm * arrived.block_tokens, max(0, arrived.input_tokens - 1))


def room_for(spec: EngineSpec, job: Job) -> int:
    """KV tokens that a job holds in the end, at most all there are: one that is larger runs alone."""
    tokens = job.input_tokens + job.output_tokens
    return tokens if spec.kv_tokens is None else min(tokens, spec.kv_tokens)


NEVER: Seconds = inf
