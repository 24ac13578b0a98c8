"""A million seeded events, and shorter storms; the audit checks the promises of `traffic` with every event."""

import os

import msgspec
import pytest

from spillway.core.clock import Seconds
from spillway.testing.storm import Storm
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Effect
from spillway.traffic.events import Event


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_million_events_break_no_promise() -> None:
    world = Storm(seed=20260101)
    world.run(1_000_000)
    audit, counters = world.stage.audit, world.stage.brain.counters
    assert len(world.stage.history) >= 1_000_000
    assert not audit.alive
    assert not any(audit.places.in_flight.values())
    assert counters.arrived == counters.ended + counters.refused == world.requests
    assert counters.dispatched == audit.sent
    assert audit.longest_wait_s <= 90.0 + 1e-6
    # it was a hard world, or the test shows nothing
    assert counters.anomalies > 100
    assert min(counters.queued, counters.retried, counters.spilled, counters.evicted, counters.owed) > 1000
    assert min(counters.promoted, counters.panics, audit.precedence.owed) > 100
    assert audit.pairs > 10_000


def test_any_storm_breaks_no_promise() -> None:
    """The one that STORM_SEED and STORM_EVENTS name, else a short one."""
    world = Storm(int(os.environ.get("STORM_SEED", "3")))
    world.run(int(os.environ.get("STORM_EVENTS", "30000")))
    assert world.stage.audit.sent > 0


def recorded(seed: int, events: int) -> list[tuple[Seconds, Event]]:
    world = Storm(seed)
    world.run(events)
    return world.stage.history


def replayed(history: list[tuple[Seconds, Event]]) -> list[list[Effect]]:
    brain = Controller()
    return [list(brain.handle(event, now)) for now, event in history]


def test_the_same_events_give_the_same_effects_also_from_a_journal() -> None:
    history = recorded(seed=7, events=20_000)
    effects = replayed(history)
    assert replayed(history) == effects
    journal = msgspec.msgpack.encode(history)
    read = msgspec.msgpack.decode(journal, type=list[tuple[float, Event]])
    assert read == history
    assert replayed(read) == effects
    written = msgspec.json.encode(effects)
    assert msgspec.json.decode(written, type=list[list[Effect]]) == effects
