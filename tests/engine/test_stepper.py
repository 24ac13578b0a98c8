"""The stepper with a played pipeline: batches, stops, cancels, a loop that is behind, and a pipeline that breaks."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from spillway.app.system import SystemClock
from spillway.engine.pacing import Pace
from spillway.engine.ports import Finish, Sampling
from spillway.engine.stepper import MAX_REBUILDS_IN_A_ROW, Generation, Stepper
from tests.engine.conftest import eventually
from tests.engine.played import BytesTokenizer, Heard, PlayedLoop, PlayedPipeline


class Bench:
    """A running stepper, the loop it tells, and the pipelines it built."""

    def __init__(self, make: Callable[[], PlayedPipeline], *, max_sequences: int, pace: Pace) -> None:
        self.built: list[PlayedPipeline] = []
        self.loop = PlayedLoop()
        self.ready = False
        self.dead: BaseException | None = None

        def build() -> PlayedPipeline:
            self.built.append(make())
            return self.built[-1]

        self.stepper = Stepper(
            build, BytesTokenizer(), self.loop, SystemClock(), max_sequences=max_sequences, pace=pace,
            on_ready=self._on_ready, on_dead=self._on_dead,
        )  # fmt: skip

    def _on_ready(self) -> None:
        self.ready = True

    def _on_dead(self, error: BaseException) -> None:
        self.dead = error

    @property
    def pipeline(self) -> PlayedPipeline:
        return self.built[-1]

    def submit(self, *stops: str, max_tokens: int = 100, schema: str | None = None) -> tuple[Generation, Heard]:
        heard = Heard()
        generation = Generation([5, 6], Sampling(max_tokens=max_tokens, schema=schema), stops, heard)
        self.stepper.submit(generation)
        return generation, heard

    def run_until(self, *heard: Heard) -> None:
        self.loop.run_until(lambda: all(one.finish is not None for one in heard))


@contextmanager
def bench(
    script: str = "Hello there.", *, max_sequences: int = 8, pace: Pace | None = None,
    make: Callable[[], PlayedPipeline] | None = None,
) -> Generator[Bench]:  # fmt: skip
    made = Bench(make or (lambda: PlayedPipeline(script)), max_sequences=max_sequences, pace=pace or Pace(0, 0))
    made.stepper.start()
    made.loop.run_until(lambda: made.ready or made.dead is not None)
    yield made
    assert made.stepper.stop(5.0)


def test_a_generation_tells_its_text_its_tokens_and_its_end() -> None:
    with bench() as made:
        _, heard = made.submit()
        made.run_until(heard)
    assert (heard.text, heard.tokens, heard.finish) == ("Hello there.", 13, Finish.STOP)
    assert made.stepper.counters.prompt_tokens == 2
    assert made.stepper.counters.output_tokens == 13


def test_the_length_ends_it_too() -> None:
    with bench() as made:
        _, heard = made.submit(max_tokens=5)
        made.run_until(heard)
    assert (heard.text, heard.tokens, heard.finish) == ("Hello", 5, Finish.LENGTH)


def test_a_stop_string_ends_it_at_its_token_and_frees_its_place() -> None:
    with bench("one two three" * 20) as made:
        _, heard = made.submit("two", max_tokens=500)
        made.run_until(heard)
        eventually(lambda: not made.pipeline.batch)
    assert (heard.text, heard.tokens, heard.finish) == ("one ", 7, Finish.STOP)


def test_what_may_begin_a_stop_is_told_at_the_end() -> None:
    with bench("one tw") as made:
        _, heard = made.submit("two")
        made.run_until(heard)
    assert (heard.text, heard.finish) == ("one tw", Finish.STOP)


def test_characters_come_whole() -> None:
    with bench("a😀é") as made:
        _, heard = made.submit()
        made.run_until(heard)
    assert heard.text == "a😀é"
    assert not any("\ufffd" in piece for piece in heard.pieces)


def test_many_share_the_batch_and_the_rest_wait() -> None:
    with bench(max_sequences=3) as made:
        heard = [made.submit()[1] for _ in range(10)]
        made.run_until(*heard)
        assert made.pipeline.widest <= 3
    assert {one.text for one in heard} == {"Hello there."}


def test_a_loop_that_is_behind_gets_larger_pieces() -> None:
    with bench("x" * 300) as made:
        _, heard = made.submit(max_tokens=301)
        eventually(lambda: made.stepper.counters.output_tokens >= 301)  # the loop takes nothing meanwhile
        made.run_until(heard)
    assert heard.text == "x" * 300
    assert len(heard.pieces) <= 3


def test_cancelling_frees_the_place_at_once_and_is_not_answered() -> None:
    with bench("x" * 100_000, max_sequences=1) as made:
        generation, heard = made.submit(max_tokens=100_000)
        made.loop.run_until(lambda: heard.tokens > 0)
        made.stepper.cancel(generation)
        eventually(lambda: made.stepper.counters.running == 0 and not made.pipeline.batch)
        steps = made.pipeline.steps
        _, second = made.submit(max_tokens=5)
        made.run_until(second)
        assert made.pipeline.steps - steps < 50
    assert heard.finish is None
    assert second.text == "xxxxx"


def test_cancelling_one_that_waits() -> None:
    with bench("x" * 1000, max_sequences=1) as made:
        made.pipeline.gate.clear()
        _, first = made.submit(max_tokens=10)
        generation, waiting = made.submit()
        _, third = made.submit(max_tokens=3)
        made.stepper.cancel(generation)
        made.pipeline.gate.set()
        made.run_until(first, third)
    assert waiting.tokens == 0


def test_plain_broken_plain() -> None:
    with bench() as made:
        _, before = made.submit()
        made.run_until(before)
        made.pipeline.gate.clear()
        _, beside = made.submit()
        _, broken = made.submit(schema="broken")
        eventually(lambda: len(made.pipeline.schemas) >= 2)
        made.pipeline.gate.set()
        made.run_until(beside, broken)
        _, after = made.submit()
        made.run_until(after)
    assert [before.finish, broken.finish, after.finish] == [Finish.STOP, Finish.FAILED, Finish.STOP]
    assert after.text == "Hello there."
    assert len(made.built) == 2
    assert made.stepper.counters.failures == 1


def test_those_who_wait_outlive_a_broken_pipeline() -> None:
    with bench(max_sequences=1) as made:
        made.pipeline.gate.clear()
        _, broken = made.submit(schema="broken")
        _, waiting = made.submit()
        made.pipeline.gate.set()
        made.run_until(broken, waiting)
    assert (broken.finish, waiting.finish) == (Finish.FAILED, Finish.STOP)


def test_it_gives_up_when_new_pipelines_break_as_well() -> None:
    def always_broken() -> PlayedPipeline:
        pipeline = PlayedPipeline()
        pipeline.schemas.append("broken")
        return pipeline

    with bench(make=always_broken) as made:
        for _ in range(MAX_REBUILDS_IN_A_ROW):
            _, heard = made.submit()
            made.loop.run_until(lambda heard=heard: made.dead is not None or heard.finish is Finish.FAILED)
    assert isinstance(made.dead, RuntimeError)
    assert len(made.built) == MAX_REBUILDS_IN_A_ROW


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    def fail() -> PlayedPipeline:
        raise OSError("no such model")

    with bench(make=fail) as made:
        assert isinstance(made.dead, OSError)
        assert not made.ready


def test_one_that_cannot_join_fails_alone() -> None:
    class Picky(PlayedPipeline):
        def add(self, prompt: list[int], sampling: Sampling):
            if sampling.schema == "no":
                raise ValueError("not this one")
            return super().add(prompt, sampling)

    with bench(make=Picky) as made:
        _, refused = made.submit(schema="no")
        _, fine = made.submit()
        made.run_until(refused, fine)
    assert (refused.finish, fine.finish) == (Finish.FAILED, Finish.STOP)


def test_an_answer_that_cannot_be_written_ends_alone() -> None:
    class Broken(Heard):
        def progress(self, text: str, tokens: int, finish: Finish | None) -> None:
            raise OSError("no way out")

    with bench("x" * 100_000) as made:
        made.stepper.submit(Generation([5], Sampling(max_tokens=100_000), (), Broken()))
        _, fine = made.submit(max_tokens=50)
        made.run_until(fine)
        eventually(lambda: not made.pipeline.batch)
    assert fine.tokens == 50


@pytest.mark.server  # measures time
def test_a_paced_step_lasts_as_long_as_it_was_told() -> None:
    with bench("x" * 29, pace=Pace(0.004, 0.001)) as made:
        began = time.monotonic()
        heard = [made.submit()[1] for _ in range(2)]
        made.run_until(*heard)
        took = time.monotonic() - began
    least = 0.004 * 30 + 0.001 * 2 * 29  # the last step is not waited for by those who hear of it
    assert took > 0.8 * least
    assert made.stepper.counters.step_s == pytest.approx(took, rel=0.5)
