"""Engines are asked for their load, and what others sent there is told apart from our own."""

import asyncio
from collections.abc import Iterator

import pytest

from spillway.backends.gauges import MAX_BYTES, Scraper, foreign_of
from spillway.backends.probes import ProbeTarget
from spillway.backends.settings import GaugeSettings
from spillway.core.clock import Seconds
from spillway.core.ids import EndpointUrl
from spillway.net.ports import ConnectionFault, Receiver
from spillway.testing.virtual_loop import VirtualLoop
from spillway.traffic.events import Scraped
from spillway.wire.engine_metrics import EngineLoad

ENGINE = EndpointUrl("http://127.0.0.1:1")
BUSY = b"vllm:num_requests_running 20\nvllm:num_requests_waiting 4\nvllm:kv_cache_usage_perc 0.5\n"


class PlayedTicket:
    def cancel(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class PlayedEngine:
    """An origin that answers with `text`; None: it closes, and stays silent where `silent`."""

    def __init__(self) -> None:
        self.text: bytes | None = BUSY
        self.silent = False
        self.asked_at: list[Seconds] = []

    def send(self, request: bytes, receiver: Receiver) -> PlayedTicket:
        loop = asyncio.get_running_loop()
        self.asked_at.append(loop.time())
        if not self.silent:
            loop.call_later(0.01, self._answer, receiver)
        return PlayedTicket()

    def _answer(self, receiver: Receiver) -> None:
        if self.text is None:
            receiver.response_failed(ConnectionFault.LOST, "gone")
            return
        receiver.response_head(200, [])
        for start in range(0, len(self.text), 1 << 20):
            receiver.response_body(b"", [self.text[start : start + (1 << 20)]])
        receiver.response_end()


class Watch:
    def __init__(self) -> None:
        self.engine = PlayedEngine()
        self.own = [6]
        self.told: list[Scraped] = []
        self.scraper = Scraper(self.targets, GaugeSettings(), self.in_flight, self.told.append)

    def targets(self) -> Iterator[ProbeTarget]:
        yield ProbeTarget(ENGINE, self.engine, b"GET /metrics HTTP/1.1\r\n\r\n")

    def in_flight(self, url: EndpointUrl) -> int:
        return self.own.pop(0) if len(self.own) > 1 else self.own[0]

    def run_for(self, seconds: Seconds) -> None:
        async def scenario() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(self.scraper.run(), seconds)

        loop = VirtualLoop()
        try:
            loop.run_until_complete(scenario())
        finally:
            loop.close()


def test_what_others_sent_is_what_is_left_of_the_larger_of_our_own_books() -> None:
    watch = Watch()
    watch.own = [6, 8]
    watch.run_for(3.0)
    [told] = watch.told
    assert (told.endpoint, told.foreign, told.kv_usage) == (ENGINE, 16.0, 0.5)
    assert 0.0 < told.age_s < 1.0


def test_an_engine_is_not_asked_more_often_than_every_two_seconds() -> None:
    watch = Watch()
    watch.run_for(21.0)
    gaps = [later - earlier for earlier, later in zip(watch.engine.asked_at, watch.engine.asked_at[1:], strict=False)]
    assert len(gaps) >= 7
    assert min(gaps) >= 2.0


@pytest.mark.parametrize("text", [None, b"", b"process_cpu_seconds_total 4\n", BUSY + b"# " + b"x" * MAX_BYTES])
def test_who_says_nothing_is_asked_less_and_less_often(text: bytes | None) -> None:
    watch = Watch()
    watch.engine.text = text
    watch.run_for(300.0)
    assert watch.told == []
    gaps = [later - earlier for earlier, later in zip(watch.engine.asked_at, watch.engine.asked_at[1:], strict=False)]
    assert gaps[0] < gaps[1] < gaps[2]
    assert max(gaps) <= 63.0
    assert len(gaps) < 12


def test_who_is_silent_is_given_up_and_who_comes_back_is_heard() -> None:
    watch = Watch()
    watch.engine.silent = True
    watch.run_for(4.0)
    assert watch.told == []
    watch.engine.silent = False
    watch.run_for(20.0)
    assert len(watch.told) > 2


@pytest.mark.parametrize(
    ("load", "own", "foreign"),
    [
        (EngineLoad(7, 2, None), 0, 9.0),
        (EngineLoad(7, None, None), 7, 0.0),
        (EngineLoad(12, 0, None), 9, 0.0),  # three more than ours: on their way
        (EngineLoad(13, 0, None), 9, 4.0),
        (EngineLoad(3, 0, None), 9, 0.0),
    ],
)
def test_foreign(load: EngineLoad, own: int, foreign: float) -> None:
    assert foreign_of(load, own) == foreign
