"""Which endpoint of a pool: prefixes, sessions, the bound on what locality may cost, and what is remembered."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.ids import EndpointUrl, ModelName, RequestId, TenantId
from spillway.core.priority import Priority
from spillway.traffic.affinity import BLOCKS, BOUND, FEW, HOLDERS, Affinity, least_of_two
from spillway.traffic.events import Arrived


class Server:
    """An endpoint, as affinity sees it."""

    def __init__(self, number: int, work: float = 0.0) -> None:
        self.url = EndpointUrl(f"http://10.0.0.{number}:8000")
        self.work = work
        self.in_flight = 0


def servers(count: int) -> tuple[Server, ...]:
    return tuple(Server(number) for number in range(count))


def affinity(ready: tuple[Server, ...]) -> Affinity[Server]:
    made = Affinity[Server]()
    made.configure(server.url for server in ready)
    return made


def arrival(session: str = "", prefix: tuple[int, ...] = (), input_tokens: int = 10_000, block: int = 512) -> Arrived:
    return Arrived(
        RequestId("r"),
        ModelName("m"),
        TenantId("t"),
        Priority.INTERACTIVE,
        input_tokens,
        session=session,
        prefix=prefix,
        block_tokens=block,
    )


def homes(made: Affinity[Server], ready: tuple[Server, ...], sessions: int = 3000) -> dict[str, EndpointUrl]:
    found = {f"s{number}": made.near(ready, 0.0, arrival(f"s{number}")) for number in range(sessions)}
    return {session: server.url for session, server in found.items() if server is not None}


# Sessions


@pytest.mark.parametrize("count", [2, 8, 64])
def test_sessions_spread_over_all_endpoints_and_each_has_one_home(count: int) -> None:
    ready = servers(count)
    made = affinity(ready)
    where = homes(made, ready)
    assert where == homes(made, ready) == homes(affinity(ready), ready)
    shares = Counter(where.values())
    assert len(shares) == count
    assert max(shares.values()) <= 1.8 * len(where) / count


@given(st.integers(3, 40), st.integers(0, 39))
def test_when_an_endpoint_leaves_only_its_sessions_move(count: int, leaving: int) -> None:
    ready = servers(count)
    made = affinity(ready)
    gone = ready[leaving % count]
    before = homes(made, ready, 500)
    after = homes(made, tuple(server for server in ready if server is not gone), 500)
    assert all(after[session] == url for session, url in before.items() if url != gone.url)
    assert gone.url not in after.values()
    assert homes(made, ready, 500) == before  # and they return with it


def test_when_one_joins_it_takes_about_its_share_and_nothing_else_moves() -> None:
    ready = servers(9)
    before = homes(affinity(ready[:8]), ready[:8])
    after = homes(affinity(ready), ready)
    moved = {session for session, url in after.items() if before[session] != url}
    assert all(after[session] == ready[8].url for session in moved)
    assert len(moved) / len(after) == pytest.approx(1 / 9, abs=0.05)


# The bound


@given(st.integers(0, 10_000), st.integers(2, 32), st.booleans())
def test_locality_never_costs_more_than_the_bound(seed: int, count: int, prefixed: bool) -> None:
    rng = random.Random(seed)
    ready = servers(count)
    made = affinity(ready)
    for step in range(300):
        prefix = (rng.randrange(5), step) if prefixed else ()
        arrived = arrival(f"s{int(rng.paretovariate(0.5)) % 50}", prefix)
        work = rng.uniform(1.0, 1000.0)
        total = sum(server.work for server in ready) + work
        server = made.near(ready, total, arrived)
        if server is not None:
            assert server.work <= BOUND * total / count
        else:
            server = least_of_two(ready, step)
        made.sent(arrived, server.url)
        server.work += work
        if rng.random() < 0.5:
            server.work = 0.0


def test_a_session_whose_home_is_full_walks_on_to_the_same_next_one() -> None:
    ready = servers(8)
    made = affinity(ready)
    home = made.near(ready, 0.0, arrival("s"))
    assert home is not None
    home.work = 100.0
    others = {made.near(ready, 110.0, arrival("s")) for _ in range(5)}
    assert len(others) == 1
    assert home not in others


# Prefixes


def test_the_longest_known_prefix_wins_over_the_session_and_over_shorter_ones() -> None:
    ready = servers(16)
    made = affinity(ready)
    made.sent(arrival(prefix=(1, 2)), ready[3].url)
    made.sent(arrival(prefix=(1, 2, 3, 4)), ready[7].url)
    for session in ("", "a", "b"):
        assert made.near(ready, 0.0, arrival(session, (1, 2, 3, 4, 5))) is ready[7]
        assert made.near(ready, 0.0, arrival(session, (1, 2, 3, 9))) is ready[7]


def test_of_the_holders_the_least_loaded_takes_it_and_absent_ones_are_passed_by() -> None:
    ready = servers(8)
    made = affinity(ready)
    for server in ready[:3]:
        made.sent(arrival(prefix=(1,)), server.url)
    ready[0].work, ready[1].work, ready[2].work = 5.0, 3.0, 4.0
    assert made.near(ready, 100.0, arrival(prefix=(1,))) is ready[1]
    assert made.near((ready[0], *ready[2:]), 100.0, arrival(prefix=(1,))) is ready[2]
    assert made.near(ready[3:], 100.0, arrival(prefix=(1,))) is None


def test_an_unknown_prefix_goes_home_with_its_session_or_says_nothing() -> None:
    ready = servers(8)
    made = affinity(ready)
    assert made.near(ready, 0.0, arrival("s", (1, 2))) is made.near(ready, 0.0, arrival("s"))
    assert made.near(ready, 0.0, arrival("", (1, 2))) is None


def test_warm_tokens_are_those_of_known_blocks_and_never_more_than_the_input() -> None:
    made = affinity(servers(4))
    one, other = servers(2)
    assert made.warm_tokens(arrival(prefix=(1, 2, 3))) == 0
    assert made.sent(arrival(prefix=(1, 2, 3), block=100), one.url) == 0
    assert made.warm_tokens(arrival(prefix=(1, 2, 9), block=100)) == 200
    assert made.warm_tokens(arrival(prefix=(1, 2, 3, 4), input_tokens=250, block=100)) == 250
    assert made.sent(arrival(prefix=(1, 2, 3, 4), block=100), one.url) == 300
    assert made.sent(arrival(prefix=(1, 2, 3, 4), block=100), other.url) == 0  # warm in the pool, not there
    assert made.sent(arrival(prefix=(1, 2, 3, 4), block=100), other.url) == 400


@given(st.integers(0, 10_000))
def test_what_is_known_of_chains_is_what_a_plain_walk_finds(seed: int) -> None:
    """Also while old blocks are forgotten: a block goes before those that it continues."""
    rng = random.Random(seed)
    made = affinity(servers(2))
    for _ in range(BLOCKS // 50):
        conversation = rng.randrange(2000)
        prefix = tuple(conversation * 1000 + block for block in range(rng.randrange(1, 200)))
        walked = 0
        while walked < len(prefix) and made.warm_tokens(arrival(prefix=prefix[: walked + 1], block=1)) == walked + 1:
            walked += 1
        assert made.warm_tokens(arrival(prefix=prefix, block=1)) == walked
        made.sent(arrival(prefix=prefix), servers(1)[0].url)


def test_what_is_remembered_is_bounded() -> None:
    made = affinity(servers(8))
    for number in range(BLOCKS // 8):
        for server in servers(8):
            made.sent(arrival(prefix=tuple(range(number * 16, number * 16 + 16))), server.url)
    assert len(made.blocks) == BLOCKS
    assert max(map(len, made.blocks.values())) == HOLDERS


@given(st.lists(st.lists(st.integers(), max_size=6), max_size=30), st.integers(), st.integers(), st.floats())
def test_no_input_breaks_it(prefixes: list[list[int]], tokens: int, block: int, work: float) -> None:
    ready = servers(3)
    made = affinity(ready)
    for prefix in prefixes:
        arrived = arrival("s", tuple(prefix), tokens, block)
        assert 0 <= made.warm_tokens(arrived) <= max(0, tokens)
        server = made.near(ready, work, arrived)
        assert server is None or server in ready
        assert 0 <= made.sent(arrived, ready[0].url) <= max(0, tokens)


# Everybody else


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=64), st.integers(0, 1 << 32))
def test_of_few_the_least_and_of_many_the_lesser_of_two(works: list[float], draw: int) -> None:
    ready = tuple(Server(number, work) for number, work in enumerate(works))
    picked = least_of_two(ready, draw)
    above = sum(server.work >= picked.work for server in ready)
    assert above >= (len(ready) if len(ready) <= FEW else 2)
