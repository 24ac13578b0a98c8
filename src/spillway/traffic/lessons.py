"""What running requests teach: the line of their pool, its adaptive limit, and what those that waited really used."""

from math import inf

from spillway.core.clock import Seconds
from spillway.core.outcome import Outcome
from spillway.traffic.events import Ended, Fault
from spillway.traffic.fleet import Slo
from spillway.traffic.parties import BATCH_RANK
from spillway.traffic.pools import PoolState
from spillway.traffic.requests import RequestState
from spillway.traffic.waiting import settle
from spillway.traffic.world import World

NO_SLO = Slo()


class Lessons:
    __slots__ = ("_world",)

    def __init__(self, world: World) -> None:
        self._world = world

    def answered(self, request: RequestState, pool: PoolState, now: Seconds) -> None:
        """The first token came."""
        ttft_s = now - request.sent_at
        cold_tokens = request.arrived.input_tokens - request.warm_tokens
        pool.line.answered(request.sent_beside + pool.others, cold_tokens, ttft_s)
        if pool.search is not None or pool.batch:
            slo_ms = self._slo(request).ttft_ms
            most_ms = inf if slo_ms is None else slo_ms * pool.line.stretch(cold_tokens)
            self._tell(request, pool, 1000.0 * ttft_s / most_ms, first=True)

    def ended(self, request: RequestState, pool: PoolState, event: Ended, now: Seconds) -> None:
        """An attempt that was answered to its end. What failed or was cut teaches nothing about speed."""
        settle(request, event.input_tokens, event.output_tokens)
        if event.outcome is not Outcome.OK:
            return
        beside = 0.5 * (request.sent_beside + pool.in_flight + 1) + pool.others
        pool.line.completed(beside, now - request.sent_at, event.input_tokens, event.output_tokens)
        pool.bound_search()
        if (pool.search is not None or pool.batch) and request.answered_at is not None and event.output_tokens > 1:
            slo_ms = self._slo(request).tpot_ms
            if slo_ms is not None:
                tpot_ms = 1000.0 * (now - request.answered_at) / (event.output_tokens - 1)
                self._tell(request, pool, tpot_ms / slo_ms, first=False)

    def _tell(self, request: RequestState, pool: PoolState, ratio: float, *, first: bool) -> None:
        """A time over its objective."""
        if pool.search is not None:
            (pool.search.first_token if first else pool.search.output)(ratio)
        if request.rank < BATCH_RANK:
            pool.backfill.seen(missed=ratio > 1.0)

    def _slo(self, request: RequestState) -> Slo:
        """A model that is gone, or has no objectives, is well as long as its pool does not refuse."""
        model = self._world.fleet.models.get(request.arrived.model)
        return NO_SLO if model is None else model.slo

    def failed(self, pool: PoolState, fault: Fault, now: Seconds) -> None:
        """Overload and silence say that the limit is too high."""
        if pool.search is not None and (fault.is_load or fault is Fault.TIMEOUT):
            pool.search.overloaded(now)
