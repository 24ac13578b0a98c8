"""Keys in a worker's memory follow the parent's, and never wait, write or leave a trace."""

import asyncio
import logging

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.core.errors import StoreError
from spillway.core.ids import ModelName, TenantId
from spillway.core.priority import Priority
from spillway.gateway.ports import Keyring, Principal
from spillway.store.keyring import KeyFeed, Keys, KeysChanged, KeysPatched
from spillway.store.memory import MemoryKeys
from spillway.store.minting import mint
from spillway.store.rows import KeyRow, Revision
from spillway.store.watch import KeyWatch
from spillway.testing.clock import ManualClock
from spillway.testing.rng import SeededRng
from spillway.testing.waiting import eventually

SEAL = b"s" * 32


def minted(seed: int, **changes: object) -> tuple[KeyRow, bytes]:
    row, secret = mint(SeededRng(seed), SEAL, now_s=100.0, tenant=TenantId("acme"))
    return msgspec.structs.replace(row, **changes), secret.encode()


def keys_with(*rows: KeyRow, clock: ManualClock | None = None, max_cached: int = 100) -> Keys:
    feed = KeyFeed()
    feed.update(rows)
    keys = Keys(SEAL, clock or ManualClock(), max_cached=max_cached)
    assert keys.apply(feed.all())
    return keys


def test_a_secret_finds_what_its_key_stands_for() -> None:
    row, secret = minted(1, models=frozenset({ModelName("npc")}), highest_priority=Priority.REALTIME)
    keyring: Keyring = keys_with(row)
    expected = Principal(row.id, row.tenant, frozenset({ModelName("npc")}), Priority.REALTIME)
    assert keyring.find(secret) == expected
    assert keyring.find(secret) == expected  # from the cache


@pytest.mark.parametrize("secret", [b"", b"sk-", b"sk-unknown", b"x" * 100_000, b"\x00\xff"])
def test_an_unknown_secret_is_nobody(secret: bytes) -> None:
    assert keys_with(minted(1)[0]).find(secret) is None


def test_a_key_expires_by_the_clock_also_when_it_was_used_before() -> None:
    clock = ManualClock()
    row, secret = minted(1, expires_at_s=clock.wall() + 10)
    keys = keys_with(row, clock=clock)
    assert keys.find(secret) is not None
    clock.advance(9.9)
    assert keys.find(secret) is not None
    clock.advance(0.1)
    assert keys.find(secret) is None


def test_a_revoked_key_is_gone_at_once_also_when_it_was_used_before() -> None:
    (one, secret), (two, other) = minted(1), minted(2)
    feed = KeyFeed()
    feed.update([one, two])
    keys = Keys(SEAL, ManualClock())
    keys.apply(feed.all())
    assert keys.find(secret) is not None
    change = feed.update([two])
    assert change is not None
    assert keys.apply(change)
    assert keys.find(secret) is None
    assert keys.find(other) is not None


def test_what_is_remembered_stays_bounded_and_right() -> None:
    made = [minted(number) for number in range(20)]
    keys = keys_with(*(row for row, _ in made), max_cached=3)
    for _ in range(2):
        for row, secret in made:
            found = keys.find(secret)
            assert found is not None
            assert found.key == row.id


def test_a_missed_message_is_noticed_and_all_keys_mend_it() -> None:
    (one, _), (two, _), (three, secret) = minted(1), minted(2), minted(3)
    feed = KeyFeed()
    keys = Keys(SEAL, ManualClock())
    keys.apply(feed.all())
    assert feed.update([one]) is not None  # lost on its way
    assert feed.update([one, two]) is not None  # this one too
    change = feed.update([one, two, three])
    assert change is not None
    assert not keys.apply(change)
    assert keys.find(secret) is None
    assert keys.apply(feed.all())
    assert len(keys) == 3
    assert keys.apply(change)  # comes late: it is part of what is known
    assert len(keys) == 3


def test_nothing_changed_is_no_message() -> None:
    row, _ = minted(1)
    feed = KeyFeed()
    assert feed.update([row]) is not None
    assert feed.update([row]) is None


@given(st.lists(st.sets(st.integers(0, 7)), max_size=12))
@settings(deadline=None)
def test_a_worker_that_hears_everything_knows_what_the_parent_knows(steps: list[set[int]]) -> None:
    made = {number: minted(number) for number in range(8)}
    feed = KeyFeed()
    keys = Keys(SEAL, ManualClock())
    keys.apply(feed.all())
    for step in steps:
        change = feed.update(made[number][0] for number in step)
        if change is not None:
            travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=KeysChanged)
            assert keys.apply(travelled)
        assert {number for number, (_, secret) in made.items() if keys.find(secret)} == step


class BrokenKeys(MemoryKeys):
    """A store that can be switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    async def revision(self) -> Revision:
        if self.broken:
            raise StoreError("away")
        return await super().revision()


def test_the_watch_publishes_what_changed_and_keeps_keys_while_the_store_is_away(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    (one, secret), (two, other), (fixed, configured) = minted(1), minted(2), minted(3)
    keys = Keys(SEAL, ManualClock())
    heard = asyncio.Queue[KeysPatched]()

    async def publish(change: KeysPatched) -> None:
        keys.apply(change)
        heard.put_nowait(change)

    async def scenario() -> None:
        store, feed = BrokenKeys(), KeyFeed()
        keys.apply(feed.all())
        watch = KeyWatch(store, feed, publish, clock=ManualClock(), log=log, fixed=(fixed,), every_s=0.001)
        await watch.refresh()
        assert keys.find(configured) is not None
        task = asyncio.create_task(watch.run())
        try:
            async with asyncio.timeout(5):
                await heard.get()
                await store.add(one)
                await heard.get()
                assert keys.find(secret) is not None
                store.broken = True
                await store.add(two)
                await eventually(lambda: "stay in use" in caplog.text)
                assert keys.find(secret) is not None
                assert keys.find(other) is None
                store.broken = False
                await heard.get()
                assert keys.find(other) is not None
            store.broken = True
            with pytest.raises(StoreError):
                await watch.fix(())
            store.broken = False
            await watch.refresh()
            assert keys.find(configured) is not None  # a configuration that was not taken changed nothing
            await watch.fix(())
            assert keys.find(configured) is None
        finally:
            task.cancel()

    asyncio.run(scenario())
    assert caplog.text.count("stay in use") == 1
