"""The journal's form of every event and effect: written, read and told again, it is the same to the last bit."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.testing.storm import Storm, variants
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Effect
from spillway.traffic.events import Arrived, Configured, Event, FirstToken, QuotaSeen, Scraped

KINDS = [kind for kind in get_args(Event) if kind is not Configured]  # whole fleets come with the storm
read_event = msgspec.json.Decoder(tuple[float, Event]).decode


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_every_event_comes_back_as_it_was(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(st.from_type(kind))
    line = msgspec.json.encode((0.1 + 0.2, event))
    if b"null" in line and msgspec.json.decode(line)[1] != msgspec.to_builtins(event):
        return  # not a number: the brain is never told one by its driver
    assert read_event(line) == (0.1 + 0.2, event)


def test_every_fleet_comes_back_as_it_was() -> None:
    for fleet in variants():
        assert read_event(msgspec.json.encode((0.3, Configured(fleet)))) == (0.3, Configured(fleet))


@pytest.mark.parametrize("seed", [11, 12])
def test_a_storm_told_again_from_its_journal_gives_the_same_effects(seed: int) -> None:
    storm = Storm(seed)
    storm.run(15_000)
    history = storm.stage.history
    kinds = {type(event) for _, event in history}
    assert {Configured, Arrived, FirstToken, Scraped, QuotaSeen} <= kinds
    brain, again = Controller(), Controller()
    for now, event in history:
        effects = list(brain.handle(event, now))
        at, read = read_event(msgspec.json.encode((now, event)))
        assert (at, read) == (now, event)
        told: list[Effect] = list(again.handle(read, at))
        assert told == effects
        assert msgspec.json.decode(msgspec.json.encode(told), type=list[Effect]) == effects
