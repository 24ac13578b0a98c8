"""A trace as arrivals: what it says is kept, what it doesn't say is drawn by seed."""

import numpy as np

from spillway.core.ids import ModelName
from spillway.core.priority import Priority
from spillway.planner.playback import Cast, play
from spillway.wire.traces import TraceRecord

CAST = Cast(
    ModelName("m"), tenants=10, priorities=((Priority.REALTIME, 1.0), (Priority.BATCH, 3.0)), regions=("east", "west")
)
RECORDS = [TraceRecord(float(n), 100 + n, 10) for n in range(4000)]


def test_the_same_seed_gives_the_same_arrivals() -> None:
    first, again, other = (list(play(RECORDS, CAST, np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_speed_and_an_end() -> None:
    played = list(play(RECORDS, CAST, np.random.default_rng(1), speed=4.0, until_s=100.0))
    assert [arrival.at_s for arrival in played[:3]] == [0.0, 0.25, 0.5]
    assert len(played) == 400


def test_shares_are_kept() -> None:
    played = list(play(RECORDS, CAST, np.random.default_rng(1)))
    batch = sum(arrival.arrived.priority is Priority.BATCH for arrival in played)
    first = sum(arrival.arrived.tenant == "tenant-0" for arrival in played)
    assert abs(batch / len(played) - 0.75) < 0.03
    assert abs(first / len(played) - 1 / sum(1 / k for k in range(1, 11))) < 0.03
    assert {arrival.region for arrival in played} == {"east", "west"}


def test_what_the_trace_says_is_kept() -> None:
    record = TraceRecord(
        0.0, 64, 5, (1, 2), 16, tenant="t", organization="o", user="u", session="s", priority=Priority.REALTIME,
        region="west", deadline_s=9.0,
    )  # fmt: skip
    (arrival,) = play([record], CAST, np.random.default_rng(1))
    arrived = arrival.arrived
    assert (arrival.region, arrived.tenant, arrived.organization, arrived.user) == ("west", "t", "o", "u")
    assert (arrived.session, arrived.priority, arrived.deadline_s) == ("s", Priority.REALTIME, 9.0)
    assert (arrived.prefix, arrived.block_tokens) == ((1, 2), 16)
