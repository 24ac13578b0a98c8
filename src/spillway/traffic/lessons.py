"""What running requests teach: the line of their pool, its adaptive limit, and what was really used."""

from spillway.core.clock import Seconds
from spillway.core.outcome import Outcome
from spillway.traffic.events import Ended, Fault
from spillway.traffic.pools import PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.world import World


class Lessons:
    __slots__ = ("_world",)

    def __init__(self, world: World) -> None:
        self._world = world

    def answered(self, request: RequestState, pool: PoolState, now: Seconds) -> None:
        """The first token came."""
        ttft_s = now - request.sent_at
        pool.line.answered(request.sent_beside, request.arrived.input_tokens, ttft_s)
        if pool.search is not None:
            slo_ms = self._slo(request).ttft_ms
            if slo_ms is not None:
                pool.search.first_token(1000.0 * ttft_s / slo_ms)

    def ended(self, request: RequestState, pool: PoolState, event: Ended, now: Seconds) -> None:
        """After an attempt that began; what failed teaches nothing about speed."""
