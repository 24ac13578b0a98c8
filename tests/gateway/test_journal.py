"""The journal of a run, told again to another brain, has the same effects; and it holds nothing that a user wrote."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from spillway.core.clock import Seconds
from spillway.core.errors import StoreError
from spillway.gateway.journal import Journal, read_journal
from spillway.gateway.replay import ReplayResult, replay
from spillway.net.ports import ConnectionFault
from spillway.traffic.controller import Controller
from spillway.traffic.effects import Effect
from spillway.traffic.events import Event, Woke
from tests.gateway.bench import Bench, fleet

CANARY = "canary-7f3a"
BODY = b'{"model":"npc","user":"canary-7f3a","prompt_cache_key":"canary-7f3a","messages":[{"role":"user","content":"canary-7f3a"}]}'


class Overheard(Controller):
    """A brain whose effects are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.effects: list[list[Effect]] = []

    def handle(self, event: Event, now: Seconds) -> Sequence[Effect]:
        effects = super().handle(event, now)
        self.effects.append(list(effects))
        return effects


def busy_hour(bench: Bench) -> None:
    """Answers, faults, waiting, leaving: a bit of everything."""
    for turn in range(40):
        _, call = bench.ask(BODY)
        bench.clock.advance(0.05)
        if turn % 7 == 0 and call is not None:
            call.client_left()
        elif turn % 5 == 0 and bench.running:
            bench.running[0].fail(ConnectionFault.LOST)
        elif turn % 3 == 0 and bench.running:
            bench.running[-1].answer(200, b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    bench.clock.advance(60.0)
    bench.driver.tell(Woke())


def test_the_same_events_have_the_same_effects(tmp_path: Path) -> None:
    async def run() -> list[list[Effect]]:
        journal = Journal(tmp_path / "journal.jsonl", 1 << 20)
        brain = Overheard()
        bench = Bench(limit=4, brain=brain, record=journal.record)
        busy_hour(bench)
        journal.close()
        return brain.effects

    lived = asyncio.run(run())
    told = Overheard()
    text = (tmp_path / "journal.jsonl").read_bytes()
    for now, event, _ in read_journal(text.splitlines(keepends=True)):
        told.handle(event, now)
    assert told.effects == lived
    assert sum(map(len, lived)) > 40
    assert CANARY.encode() not in text
    lines = text.splitlines(keepends=True)
    assert replay(lines) == ReplayResult(len(lines), ())


def test_a_replay_names_the_lines_whose_effects_are_others(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal(tmp_path / "journal.jsonl", 1 << 20)
        busy_hour(Bench(limit=4, record=journal.record))
        journal.close()

    asyncio.run(run())
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    head, _, _ = lines[4].rpartition(b",")
    lines[4] = head + b",12345]\n"
    assert replay(lines) == ReplayResult(len(lines), (5,))


def test_a_journal_stops_at_its_bound_and_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal(tmp_path / "journal.jsonl", 2000)
        busy_hour(Bench(record=journal.record))
        journal.close()

    asyncio.run(run())
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[-1] == b'["full"]\n'
    assert 0 < len(list(read_journal(lines))) == len(lines) - 1


def test_a_torn_last_line_is_left_out_and_other_damage_is_told() -> None:
    whole = b'[1.0,{"type":"Woke"},0]\n'
    assert len(list(read_journal([whole, whole[:9]]))) == 1
    with pytest.raises(StoreError, match="line 2"):
        list(read_journal([whole, whole[:9], whole]))


def test_a_fleet_can_be_written_and_read(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal(tmp_path / "journal.jsonl", 1 << 20)
        Bench(record=journal.record)
        journal.close()

    asyncio.run(run())
    [(_, event, _)] = list(read_journal((tmp_path / "journal.jsonl").read_bytes().splitlines(keepends=True)))
    assert getattr(event, "fleet", None) == fleet(8)
