"""Clocks moved by hand, seeded chance, and memory twins that really are what they stand for."""

import asyncio

import pytest

from spillway.core.clock import Clock
from spillway.core.ids import EndpointUrl, KeyId, ModelName, PoolName, RequestId, TenantId, random_word
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.core.rng import Rng
from spillway.core.usage import UsageRecord
from spillway.gateway.ports import Keyring, Observer, Principal, Unknown, UsageSink
from spillway.testing.clock import ManualClock, ManualTimers
from spillway.testing.memory import MemoryKeyring, MemoryUsageSink, RecordingObserver
from spillway.testing.rng import SeededRng
from spillway.testing.waiting import eventually
from spillway.traffic.events import Fault


def record(request: str, completion_tokens: int = 2) -> UsageRecord:
    return UsageRecord(
        request=RequestId(request), finished_at_s=1.0, tenant=TenantId("t"), key=KeyId("k"), model=ModelName("m"), version=None,
        pool=None, priority=Priority.REALTIME, outcome=Outcome.OK, attempts=1, spilled=False, streamed=False, prompt_tokens=1,
        cached_tokens=None, completion_tokens=completion_tokens, estimated=False, ttft_s=None, tpot_s=None, duration_s=0.1, cost_usd=0.0,
    )  # fmt: skip


def test_a_clock_that_only_moves_by_hand() -> None:
    clock = ManualClock(monotonic_s=5.0, wall_s=100.0)
    seen: Clock = clock
    clock.advance(1.5)
    assert (seen.monotonic(), seen.wall()) == (6.5, 101.5)
    clock.set_wall(50.0)
    assert (seen.monotonic(), seen.wall()) == (6.5, 50.0)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-0.1)


def test_timers_fire_in_order_and_only_within_the_time_given() -> None:
    timers, fired = ManualTimers(), list[str]()

    def chain() -> None:
        fired.append(f"b@{timers.time()}")
        timers.call_at(timers.time() + 1, lambda: fired.append(f"c@{timers.time()}"))

    timers.call_at(2.0, chain)
    timers.call_at(1.0, lambda: fired.append(f"a@{timers.time()}"))
    timers.call_at(1.5, lambda: fired.append("never")).cancel()
    timers.advance(2.5)
    assert (fired, timers.time()) == (["a@1.0", "b@2.0"], 2.5)
    timers.run()
    assert fired[-1] == "c@3.0"

    def for_ever() -> None:
        timers.call_at(timers.time() + 1, for_ever)

    for_ever()
    with pytest.raises(RuntimeError, match="pending"):
        timers.run(limit=10)


def test_seeded_chance_repeats_itself() -> None:
    first, second = SeededRng(1), SeededRng(1)
    rng: Rng = first
    assert [rng.random(), rng.token_bytes(4)] == [second.random(), second.token_bytes(4)]
    assert random_word(SeededRng(1), 8) != random_word(SeededRng(2), 8)
    drawn = [first.normal(10.0, 2.0) for _ in range(4000)]
    mean = sum(drawn) / len(drawn)
    assert mean == pytest.approx(10.0, abs=0.2)
    assert sum((value - mean) ** 2 for value in drawn) / len(drawn) == pytest.approx(4.0, rel=0.15)


def test_twins_of_the_gateways_ports() -> None:
    keys, sink, observer = MemoryKeyring(), MemoryUsageSink(), RecordingObserver()
    keyring: Keyring = keys
    usage: UsageSink = sink
    watched: Observer = observer
    principal = keys.add(b"sk-1", tenant="studio", models=frozenset({ModelName("m")}))
    assert keyring.find(b"sk-1") == principal
    assert keyring.find(b"sk-2") is Unknown.REFUSED
    keys.unseen.add(b"sk-1")
    assert keyring.find(b"sk-1") is Unknown.UNSEEN
    found: list[Principal | Unknown] = []
    keyring.seek(b"sk-1", found.append)
    assert found == []
    keys.answer()
    assert found == [principal]
    keys.revoke(b"sk-1")
    assert keyring.find(b"sk-1") is Unknown.REFUSED
    for request in ("a", "b", "a"):
        usage.put(record(request))
    assert (sink.duplicates, sink.total.completion_tokens) == (["a"], 6)
    pool, url = PoolName("p"), EndpointUrl("http://e")
    watched.ended(record("a"), 0.001)
    watched.spilled(ModelName("m"), pool, PoolName("q"), "saturated")
    watched.attempt_failed(RequestId("a"), pool, url, Fault.RESET, "gone")
    watched.breaker_changed(pool, url, "open")
    assert [len(notes) for notes in (observer.ends, observer.spills, observer.failures, observer.breakers)] == [1] * 4


def test_waiting_has_a_deadline() -> None:
    async def run() -> None:
        loop, seen = asyncio.get_running_loop(), list[int]()
        loop.call_later(0.02, seen.append, 1)
        await eventually(lambda: seen)
        with pytest.raises(TimeoutError, match="pigs fly"):
            await eventually(lambda: False, deadline_s=0.05, what="that pigs fly")

    asyncio.run(run())
