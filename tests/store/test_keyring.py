"""What a worker knows of keys: never waits for one it knows, asks for one it does not, and forgets what it is told to."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.core.ids import KeyId, ModelName, OrganizationId, TenantId
from spillway.core.priority import Priority
from spillway.gateway.ports import Keyring, Principal, Unknown
from spillway.quota.rules import Owner, Quota
from spillway.store.keyring import MAX_MISSES, MAX_NAMED, MISS_S, Entry, Forget, Keys, LookedUp, LookUp
from spillway.store.minting import new_secret
from spillway.testing.clock import ManualClock, ManualTimers
from spillway.testing.rng import SeededRng

SEAL = b"s" * 32
LOOK_UP_S = 0.02


class Made:
    """A key that was minted somewhere, and what it stands for."""

    def __init__(self, number: int, *, organization: str = "", expires_at_s: float | None = None) -> None:
        secret, self.digest = new_secret(SeededRng(number), SEAL)
        self.secret = secret.encode()
        self.principal = Principal(
            KeyId(f"key-{number}"),
            TenantId(f"tenant-{number}"),
            None,
            Priority.REALTIME,
            OrganizationId(organization),
        )
        self.entry = Entry(self.digest, self.principal, expires_at_s)


class Table:
    """A keyring on a table: `asked` is what the parent heard; a test answers."""

    def __init__(self, **bounds: int) -> None:
        self.clock = ManualClock()
        self.timers = ManualTimers()
        self.asked: list[tuple[bytes, ...]] = []
        self.keys = Keys(SEAL, self.clock, self.timers, self._heard, look_up_s=LOOK_UP_S, max_stale_s=100.0, **bounds)

    def _heard(self, look_up: LookUp) -> None:
        self.asked.append(msgspec.msgpack.decode(msgspec.msgpack.encode(look_up), type=LookUp).digests)

    def pass_time(self, by_s: float) -> None:
        self.clock.advance(by_s)
        self.timers.advance(by_s)

    def knows(self, *made: Made) -> None:
        self.keys.take(LookedUp(tuple(one.entry for one in made)))

    def seek(self, made: Made) -> list[Principal | Unknown]:
        found: list[Principal | Unknown] = []
        self.keys.seek(made.secret, found.append)
        return found


ONE, TWO, THREE = Made(1), Made(2), Made(3)


def test_a_key_that_is_known_is_found_at_once() -> None:
    table = Table()
    table.knows(ONE)
    keyring: Keyring = table.keys
    assert keyring.find(ONE.secret) == ONE.principal
    assert keyring.find(ONE.secret) == ONE.principal  # by its secret now
    assert table.asked == []


@pytest.mark.parametrize("secret", [b"", b"sk-", b"sk-unknown", b"x" * 100_000, b"\x00\xff", ONE.secret[:-1] + b"!"])
def test_what_nobody_made_is_refused_and_asks_nobody(secret: bytes) -> None:
    table = Table()
    table.knows(ONE)
    assert table.keys.find(secret) is Unknown.REFUSED


def test_a_flood_of_unknown_keys_costs_a_hash_each_and_leaves_nothing() -> None:
    table = Table()
    for number in range(2000):
        guess = b"sk-" + SeededRng(number).token_bytes(20).hex().encode()
        assert len(guess) == len(ONE.secret)
        assert table.keys.find(guess) is Unknown.REFUSED
    table.pass_time(1.0)
    assert table.asked == []
    assert len(table.keys) == 0


def test_look_ups_of_one_turn_go_together_and_each_key_once() -> None:
    table = Table()
    assert table.keys.find(ONE.secret) is Unknown.UNSEEN
    found = [table.seek(one) for one in (ONE, TWO, ONE)]
    assert table.asked == []  # the turn is not over
    table.timers.advance(0.0)
    assert table.asked == [(ONE.digest, TWO.digest)]
    late = table.seek(ONE)
    table.timers.advance(0.0)
    assert len(table.asked) == 1  # it is on its way
    table.keys.take(LookedUp((ONE.entry,), (TWO.digest,)))
    assert [*found, late] == [[ONE.principal], [Unknown.REFUSED], [ONE.principal], [ONE.principal]]
    assert table.keys.waiting == 0
    assert table.keys.find(ONE.secret) == ONE.principal
    assert table.keys.find(TWO.secret) is Unknown.REFUSED


def test_a_look_up_ends_in_time_and_its_answer_counts_also_when_it_comes_later() -> None:
    table = Table()
    found = table.seek(ONE)
    table.pass_time(LOOK_UP_S * 0.99)
    assert found == []
    table.pass_time(LOOK_UP_S * 0.02)
    assert found == [Unknown.UNAVAILABLE]
    assert table.keys.find(ONE.secret) is Unknown.UNSEEN
    again = table.seek(ONE)
    table.pass_time(LOOK_UP_S * 0.5)
    table.knows(ONE)
    assert again == [ONE.principal]
    assert found == [Unknown.UNAVAILABLE]
    assert table.keys.find(ONE.secret) == ONE.principal


def test_the_end_of_an_older_look_up_is_not_that_of_a_newer_one() -> None:
    table = Table()
    first = table.seek(ONE)
    table.pass_time(LOOK_UP_S / 2)
    table.keys.take(LookedUp(unavailable=(ONE.digest,)))
    assert first == [Unknown.UNAVAILABLE]
    second = table.seek(ONE)
    table.pass_time(LOOK_UP_S * 0.6)
    assert second == []


def test_a_store_that_is_away_refuses_nobody() -> None:
    table = Table()
    found = table.seek(ONE)
    table.pass_time(0.0)
    table.keys.take(LookedUp(unavailable=(ONE.digest,)))
    assert found == [Unknown.UNAVAILABLE]
    assert table.keys.find(ONE.secret) is Unknown.UNSEEN  # nothing was learned


def test_a_miss_is_remembered_for_a_while_and_ends_when_the_key_is_made() -> None:
    table = Table()
    table.keys.take(LookedUp(missing=(ONE.digest, TWO.digest)))
    assert table.keys.find(ONE.secret) is Unknown.REFUSED
    table.keys.forget(Forget(digests=frozenset({ONE.digest})))
    assert table.keys.find(ONE.secret) is Unknown.UNSEEN
    assert table.keys.find(TWO.secret) is Unknown.REFUSED
    table.pass_time(MISS_S)
    assert table.keys.find(TWO.secret) is Unknown.UNSEEN


def test_a_key_expires_by_the_wall_clock_also_when_it_was_used_before() -> None:
    table = Table()
    made = Made(1, expires_at_s=table.clock.wall() + 10)
    table.knows(made)
    assert table.keys.find(made.secret) == made.principal
    table.clock.advance(9.9)
    assert table.keys.find(made.secret) == made.principal
    table.clock.advance(0.1)
    assert table.keys.find(made.secret) is Unknown.REFUSED
    table.clock.set_wall(table.clock.wall() - 100)  # a clock that jumps back brings it back by a look-up only
    assert table.keys.find(made.secret) is Unknown.UNSEEN


def test_a_key_that_ended_on_its_way_here_is_refused() -> None:
    table = Table()
    made = Made(1, expires_at_s=table.clock.wall() - 1)
    found = table.seek(made)
    table.knows(made)
    assert found == [Unknown.REFUSED]


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (Forget(), {1, 2, 3}),
        (Forget(digests=frozenset({ONE.digest})), {2, 3}),
        (Forget(tenants=frozenset({TenantId("tenant-2")})), {1, 3}),
        (Forget(organizations=frozenset({OrganizationId("acme")})), {1, 2}),
        (Forget(tenants=frozenset({TenantId("tenant-1")}), organizations=frozenset({OrganizationId("acme")})), {2}),
        (Forget(everything=True), set[int]()),
    ],
)
@pytest.mark.parametrize("used_before", [True, False])
def test_what_is_forgotten_is_asked_for_again(told: Forget, left: set[int], *, used_before: bool) -> None:
    table = Table()
    made = {1: ONE, 2: TWO, 3: Made(3, organization="acme")}
    table.knows(*made.values())
    if used_before:
        for one in made.values():
            table.keys.find(one.secret)
    table.keys.forget(msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Forget))
    for number, one in made.items():
        assert table.keys.find(one.secret) == (one.principal if number in left else Unknown.UNSEEN)


def test_keys_of_the_configuration_look_like_anything_and_need_nobody() -> None:
    table = Table()
    fixed = {b"a-secret-of-any-shape": ONE.principal, TWO.secret: THREE.principal}
    table.knows(TWO)
    assert table.keys.find(TWO.secret) == TWO.principal
    table.keys.fix(fixed)
    for secret, principal in fixed.items():
        assert table.keys.find(secret) == principal
    table.keys.forget(Forget(everything=True))
    assert table.keys.find(b"a-secret-of-any-shape") == ONE.principal
    table.keys.fix({})
    assert table.keys.find(b"a-secret-of-any-shape") is Unknown.REFUSED
    assert table.keys.find(TWO.secret) is Unknown.UNSEEN


def test_keys_that_nobody_confirms_are_forgotten_when_they_are_too_old() -> None:
    table = Table()
    table.knows(ONE)
    table.pass_time(99.0)
    assert table.keys.sweep()
    table.keys.forget(Forget())  # the store was asked, nothing had changed
    table.pass_time(99.0)
    assert table.keys.sweep()
    assert table.keys.find(ONE.secret) == ONE.principal
    table.keys.forget(Forget(tenants=frozenset({TWO.principal.tenant}), confirms=False))  # the configuration's word
    table.pass_time(1.1)
    assert not table.keys.sweep()
    assert table.keys.find(ONE.secret) is Unknown.UNSEEN
    assert table.keys.sweep()  # said once


def test_the_least_recently_used_key_goes_first() -> None:
    table = Table(max_known=3, max_secrets=1)
    table.knows(ONE, TWO, THREE)
    assert table.keys.find(ONE.secret) == ONE.principal
    table.knows(Made(4))
    assert table.keys.find(TWO.secret) is Unknown.UNSEEN
    for one in (ONE, THREE, Made(4)):
        assert table.keys.find(one.secret) == one.principal
    assert len(table.keys) == 3


def test_who_waits_is_bounded() -> None:
    table = Table(max_waiting=2)
    first, second, third = table.seek(ONE), table.seek(ONE), table.seek(TWO)
    assert third == []  # never before `seek` returns
    table.timers.advance(0.0)
    assert third == [Unknown.UNAVAILABLE]
    assert table.asked == [(ONE.digest,)]
    table.knows(ONE)
    assert first == second == [ONE.principal]
    assert table.seek(TWO) == []
    assert table.keys.waiting == 1


def test_misses_are_bounded() -> None:
    table = Table()
    digests = [number.to_bytes(32) for number in range(MAX_MISSES)]
    table.keys.take(LookedUp(missing=(ONE.digest, *digests)))
    assert table.keys.find(ONE.secret) is Unknown.UNSEEN


def test_quotas_that_are_alike_are_kept_once() -> None:
    table = Table()

    def bounded(number: int) -> Entry:
        made = Made(number)
        owner = Owner(made.principal.tenant, made.principal.organization, Quota(tokens_per_minute=1000))
        return Entry(made.digest, msgspec.structs.replace(made.principal, owner=owner), None)

    answer = LookedUp((bounded(1), bounded(2)))
    table.keys.take(msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=LookedUp))
    one, two = table.keys.find(ONE.secret), table.keys.find(TWO.secret)
    assert isinstance(one, Principal)
    assert isinstance(two, Principal)
    assert one.owner == bounded(1).principal.owner
    assert one.owner is not None
    assert two.owner is not None
    assert one.owner.tenant_quota is two.owner.tenant_quota


def test_a_principal_travels() -> None:
    principal = Principal(
        KeyId("k"),
        TenantId("t"),
        frozenset({ModelName("npc")}),
        Priority.BATCH,
        networks=("10.0.0.0/8",),
        suspended=True,
    )
    answer = LookedUp((Entry(b"d" * 32, principal, 12.5),), (b"m",), (b"u",))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=LookedUp) == answer


def test_forgetting_very_many_tenants_forgets_nobody_else() -> None:
    table = Table()
    table.knows(ONE, TWO)
    for number in range(3):
        names = frozenset(TenantId(f"other-{number}-{one}") for one in range(MAX_NAMED // 2))
        table.keys.forget(Forget(tenants=names | {TWO.principal.tenant}))
        table.knows(Made(3))
    assert table.keys.find(ONE.secret) == ONE.principal
    assert table.keys.find(TWO.secret) is Unknown.UNSEEN
    assert table.keys.find(THREE.secret) == THREE.principal


MANY = [Made(number, organization=f"organization-{number % 2}") for number in range(6)]
VERBS = st.sampled_from(
    ["learn", "find", "find", "forget", "forget_tenant", "forget_organization", "miss", "fix", "unfix"]
)


@given(st.lists(st.tuples(VERBS, st.integers(0, 5)), max_size=60), st.integers(1, 4), st.integers(1, 4))
@settings(deadline=None)
def test_whatever_it_was_told_it_finds_the_latest_word_or_asks(
    steps: list[tuple[str, int]], max_known: int, max_secrets: int
) -> None:
    table = Table(max_known=max_known, max_secrets=max_secrets)
    keys = table.keys
    latest: dict[int, Principal | Unknown] = {}  # what may be found, beside UNSEEN
    fixed: dict[bytes, Principal] = {}
    for version, (verb, number) in enumerate(steps):
        made = MANY[number]
        match verb:
            case "learn":
                principal = msgspec.structs.replace(made.principal, key=KeyId(f"version-{version}"))
                keys.take(LookedUp((Entry(made.digest, principal, None),)))
                latest[number] = principal
            case "miss":
                keys.take(LookedUp(missing=(made.digest,)))
                latest[number] = Unknown.REFUSED
            case "forget":
                keys.forget(Forget(digests=frozenset({made.digest})))
                latest.pop(number, None)
            case "forget_tenant":
                keys.forget(Forget(tenants=frozenset({made.principal.tenant})))
                if latest.get(number) is not Unknown.REFUSED:  # of a miss no tenant is known
                    latest.pop(number, None)
            case "forget_organization":
                keys.forget(Forget(organizations=frozenset({made.principal.organization})))
                for other in range(number % 2, 6, 2):
                    if latest.get(other) is not Unknown.REFUSED:
                        latest.pop(other, None)
            case "fix":
                fixed = {**fixed, made.secret: THREE.principal}
                keys.fix(fixed)
            case "unfix":
                fixed = {}
                keys.fix(fixed)
            case _:
                found = keys.find(made.secret)
                if made.secret in fixed:
                    assert found == THREE.principal
                else:
                    assert found in (latest.get(number), Unknown.UNSEEN)
        assert len(keys) <= max_known + len(fixed)
