"""The fake engine's inside, in virtual time: what it takes is what its parameters say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.testing.clock import ManualTimers
from spillway.testing.latency import latency_of
from spillway.testing.rng import SeededRng
from spillway.testing.sequences import EngineFullError, Sequence, Sequences
from spillway.testing.spec import LatencyLine, UpstreamSpec, duration_s


class Client:
    """Notes when its tokens come."""

    def __init__(self, timers: ManualTimers, input_tokens: int = 200, output_tokens: int = 80) -> None:
        self.timers = timers
        self.begun_s = timers.time()
        self.first_s: float | None = None
        self.ended_s: float | None = None
        self.tokens = 0
        self.sequence = Sequence(input_tokens, output_tokens, self)

    def generated(self, count: int) -> None:
        assert count > 0
        assert self.ended_s is None
        if self.first_s is None:
            self.first_s = self.timers.time()
        self.tokens += count

    def completed(self) -> None:
        assert self.ended_s is None
        self.ended_s = self.timers.time()

    @property
    def residence_s(self) -> float:
        assert self.ended_s is not None
        return self.ended_s - self.begun_s


def engine(spec: UpstreamSpec) -> tuple[Sequences, ManualTimers]:
    timers = ManualTimers()
    return Sequences(spec, latency_of(spec, SeededRng(spec.seed)), timers), timers


@pytest.mark.parametrize("concurrency", [1, 4, 32])
def test_residence_is_the_latency_line(concurrency: int) -> None:
    sequences, timers = engine(UpstreamSpec(latency_line=LatencyLine(0.9, 0.02)))
    clients = [Client(timers) for _ in range(concurrency)]
    for client in clients:
        sequences.submit(client.sequence)
    timers.run()
    for client in clients:
        assert client.residence_s == pytest.approx(0.9 + 0.02 * concurrency)


def test_residence_stays_the_line_while_others_come_and_go() -> None:
    """A closed loop: b is constant although requests of different lengths overlap."""
    sequences, timers = engine(UpstreamSpec(latency_line=LatencyLine(0.5, 0.05)))
    done: list[Client] = []

    class Looping(Client):
        def completed(self) -> None:
            super().completed()
            done.append(self)
            if len(done) < 200:
                self.follow()

        def follow(self) -> None:
            sequences.submit(Looping(timers).sequence)

    for number in range(8):
        timers.call_at(number * 0.05, Looping(timers).follow)
    timers.run()
    steady = [client.residence_s for client in done[20:180]]
    assert min(steady) == pytest.approx(max(steady)) == pytest.approx(0.5 + 0.05 * 8)


def test_work_of_another_shape_takes_its_share() -> None:
    sequences, timers = engine(UpstreamSpec(latency_line=LatencyLine(1.0, 0.04, input_tokens=200, output_tokens=80)))
    client = Client(timers, input_tokens=200, output_tokens=210)  # 200 + 4 · 210 = 2 · (200 + 4 · 80)
    sequences.submit(client.sequence)
    timers.run()
    assert client.residence_s == pytest.approx(2 * 1.04)
    assert client.first_s == pytest.approx(1.04 * 204 / 520)


def test_late_timers_change_nothing() -> None:
    """The loop was busy for seconds: tokens come late and together, but the next ones on time."""
    sequences, timers = engine(UpstreamSpec(inter_token_latency_s=0.1, time_to_first_token_s=1.0))
    client = Client(timers, output_tokens=50)
    sequences.submit(client.sequence)
    timers.advance(1.05)
    sequences.close()
    timers.advance(2.0)
    assert client.tokens == 1
    sequences.submit(Client(timers, output_tokens=1).sequence)
    assert client.tokens == 21
    timers.run()
    assert client.ended_s == pytest.approx(1.0 + 49 * 0.1)


def test_simulator_parameters() -> None:
    spec = UpstreamSpec(
        prefill_overhead_s=0.1, prefill_time_per_token_s=0.001, inter_token_latency_s=0.02,
        time_factor_under_load=3.0, max_num_seqs=5,
    )  # fmt: skip
    sequences, timers = engine(spec)
    alone = Client(timers, input_tokens=400, output_tokens=11)
    sequences.submit(alone.sequence)
    timers.run()
    assert alone.first_s == pytest.approx(0.1 + 0.4)
    assert alone.residence_s == pytest.approx(0.5 + 10 * 0.02)
    full = [Client(timers, input_tokens=400, output_tokens=11) for _ in range(5)]
    for client in full:
        sequences.submit(client.sequence)
    timers.run()
    assert {round(client.residence_s, 9) for client in full} == {round(3 * alone.residence_s, 9)}


def test_jitter_is_bounded_and_seeded() -> None:
    spec = UpstreamSpec(time_to_first_token_s=1.0, time_to_first_token_std_dev_s=0.3, seed=7)
    latency, again = latency_of(spec, SeededRng(7)), latency_of(spec, SeededRng(7))
    drawn = [latency.first_token_s(10) for _ in range(2000)]
    assert drawn == [again.first_token_s(10) for _ in range(2000)]
    assert min(drawn) >= 0.3
    assert max(drawn) <= 1.7
    assert sum(drawn) / len(drawn) == pytest.approx(1.0, abs=0.03)


def test_more_than_fits_waits_in_order_and_the_waiting_room_is_bounded() -> None:
    spec = UpstreamSpec(time_to_first_token_s=1.0, max_num_seqs=2, max_waiting_queue_length=3)
    sequences, timers = engine(spec)
    clients = [Client(timers, output_tokens=1) for _ in range(5)]
    for client in clients:
        sequences.submit(client.sequence)
    assert (sequences.running, sequences.waiting) == (2, 3)
    with pytest.raises(EngineFullError):
        sequences.submit(Client(timers).sequence)
    timers.run()
    assert [client.ended_s for client in clients] == [1.0, 1.0, 2.0, 2.0, 3.0]


def test_cancelled_frees_its_place_and_hears_nothing() -> None:
    sequences, timers = engine(UpstreamSpec(time_to_first_token_s=1.0, inter_token_latency_s=1.0, max_num_seqs=1))
    first, second, third = (Client(timers, output_tokens=5) for _ in range(3))
    for client in (first, second, third):
        sequences.submit(client.sequence)
    timers.advance(2.0)
    sequences.cancel(second.sequence)
    sequences.cancel(first.sequence)
    timers.run()
    assert (first.tokens, second.tokens, third.tokens) == (2, 0, 5)
    assert third.ended_s == pytest.approx(2.0 + 5.0)
    assert first.ended_s is second.ended_s is None


def test_a_listener_may_cancel_and_submit_while_it_is_told() -> None:
    sequences, timers = engine(UpstreamSpec(inter_token_latency_s=0.1))
    follower = Client(timers, output_tokens=3)

    class Leaving(Client):
        def generated(self, count: int) -> None:
            super().generated(count)
            sequences.cancel(self.sequence)
            sequences.submit(follower.sequence)

    leaving = Leaving(timers, output_tokens=10)
    sequences.submit(leaving.sequence)
    timers.run()
    assert (leaving.tokens, follower.tokens, sequences.running) == (1, 3, 0)


def test_preemption_when_the_cache_is_full() -> None:
    """Two of 40 + 80 tokens fit at the start, not at the end: the younger one is put back, and loses nothing."""
    sequences, timers = engine(UpstreamSpec(kv_cache_size=12, block_size=16, inter_token_latency_s=0.01))
    older, younger = Client(timers, 40, 80), Client(timers, 40, 80)
    sequences.submit(older.sequence)
    sequences.submit(younger.sequence)
    timers.run()
    assert sequences.preemptions >= 1
    assert (older.tokens, younger.tokens) == (80, 80)
    assert older.residence_s < younger.residence_s
    assert sequences.kv_usage == 0.0


@given(
    requests=st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 40), st.floats(0, 3), st.booleans()), min_size=1, max_size=25
    ),
    kv_blocks=st.one_of(st.none(), st.integers(7, 30)),
    max_num_seqs=st.integers(1, 6),
    step_s=st.sampled_from([0.0, 0.01, 0.3]),
)
@settings(max_examples=150, deadline=None)
def test_every_request_gets_its_tokens_and_no_bound_is_passed(
    requests: list[tuple[int, int, float, bool]], kv_blocks: int | None, max_num_seqs: int, step_s: float
) -> None:
    spec = UpstreamSpec(
        kv_cache_size=kv_blocks, block_size=16, max_num_seqs=max_num_seqs, inter_token_latency_s=step_s, time_to_first_token_s=step_s
    )  # fmt: skip
    sequences, timers = engine(spec)
    clients: list[tuple[Client, bool]] = []

    class Watching(Client):
        def generated(self, count: int) -> None:
            super().generated(count)
            assert sequences.running <= max_num_seqs
            assert 0.0 <= sequences.kv_usage <= 1.0

    for input_tokens, output_tokens, at_s, leaves in requests:
        client = Watching(timers, input_tokens, output_tokens)
        clients.append((client, leaves))
        timers.call_at(at_s, lambda client=client: sequences.submit(client.sequence))
        if leaves:
            timers.call_at(at_s + 0.05, lambda client=client: sequences.cancel(client.sequence))
    timers.run()
    assert (sequences.running, sequences.waiting, sequences.kv_usage) == (0, 0, 0.0)
    for (client, leaves), (_, output_tokens, _, _) in zip(clients, requests, strict=True):
        assert client.tokens <= output_tokens
        assert leaves or (client.tokens == output_tokens and client.ended_s is not None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("1.5s", 1.5), ("750us", 0.00075), ("2m", 120.0), ("0", 0.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["100", "ms", "-1s", "1e99h", "nans", ""])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|could not convert"):
        duration_s(text)
