"""What the gateway tells the brain beside the life of a request: beginnings of prompts, and what providers say is left."""

from collections.abc import Sequence

from spillway.core.clock import Seconds
from spillway.traffic.effects import Effect
from spillway.traffic.events import Arrived, Event, QuotaSeen
from tests.gateway.bench import EAST, JSON, NPC, Bench

LONG = b'{"model":"npc","messages":[{"role":"user","content":"%b"}]}' % (b"canary-" * 600)
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
LEFT = [*JSON, (b"x-ratelimit-remaining-requests", b"59"), (b"x-ratelimit-reset-requests", b"20ms")]


class Heard:
    """Keeps what the brain was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, now: Seconds, event: Event, effects: Sequence[Effect]) -> None:
        self.events.append(event)

    def arrivals(self) -> list[Arrived]:
        return [event for event in self.events if isinstance(event, Arrived)]

    def quotas(self) -> list[QuotaSeen]:
        return [event for event in self.events if isinstance(event, QuotaSeen)]


def test_beginnings_are_told_only_where_there_is_a_choice() -> None:
    heard = Heard()
    bench = Bench(record=heard.record)
    bench.ask(LONG)
    bench.pipeline.models_with_choice = frozenset((NPC,))
    bench.ask(LONG)
    bench.ask(LONG.replace(b'canary-"', b'canary!"'))
    plain, told, other = heard.arrivals()
    assert plain.prefix == ()
    assert len(told.prefix) == 4
    assert told.block_tokens == 256
    assert told.prefix == other.prefix  # they differ behind the last whole block


def test_what_a_provider_says_is_left_is_told_and_a_cluster_is_not_listened_to() -> None:
    heard = Heard()
    bench = Bench(record=heard.record)
    bench.ask(LONG)
    bench.last.answer(200, ANSWER, LEFT)
    assert heard.quotas() == []
    bench.backends.hosted = True
    bench.ask(LONG)
    bench.last.answer(200, ANSWER, LEFT)
    assert heard.quotas() == [QuotaSeen(EAST, 59, None, 0.02)]
    bench.ask(LONG)
    bench.last.answer(200, ANSWER)
    assert len(heard.quotas()) == 1


def test_a_refusal_for_load_tells_what_is_left_too() -> None:
    heard = Heard()
    bench = Bench(record=heard.record)
    bench.backends.hosted = True
    client, _ = bench.ask(LONG)
    bench.last.answer(429, b"{}", [*JSON, (b"x-ratelimit-remaining-tokens", b"0")])
    bench.last.answer(200, ANSWER)
    assert heard.quotas() == [QuotaSeen(EAST, None, 0, None)]
    assert client.status == 200
