"""What the stepper takes for granted about the real library, and that it survives what the library does at its worst."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.app.system import SystemClock
from spillway.engine.model_folder import ModelFolder, read_model_folder
from spillway.engine.pacing import Pace
from spillway.engine.pipeline import OpenvinoPipeline, OpenvinoTokenizer, SchemaCompiler
from spillway.engine.ports import Finish, Sampling
from spillway.engine.prompt import Message, Prompts
from spillway.engine.settings import EngineSettings
from spillway.engine.stepper import Generation, Stepper
from spillway.engine.text import TextWindow
from tests.engine.conftest import MODEL
from tests.engine.played import Heard, PlayedLoop

pytestmark = pytest.mark.server

SETTINGS = EngineSettings(model=str(MODEL), name="npc", kv_cache_tokens=4096, threads=1)
GREEDY = Sampling(max_tokens=40, temperature=0.0)


@pytest.fixture(scope="module")
def folder() -> ModelFolder:
    return read_model_folder(str(MODEL))


@pytest.fixture(scope="module")
def tokenizer(folder: ModelFolder) -> OpenvinoTokenizer:
    return OpenvinoTokenizer(folder.path)


@pytest.fixture
def stepping(folder: ModelFolder, tokenizer: OpenvinoTokenizer) -> Iterator[tuple[Stepper, PlayedLoop]]:
    loop = PlayedLoop()
    ready: list[bool] = []
    stepper = Stepper(
        lambda: OpenvinoPipeline(folder, SETTINGS, tokenizer, cache_tokens=SETTINGS.kv_cache_tokens),
        tokenizer, loop, SystemClock(), max_sequences=8, pace=Pace(0, 0),
        on_ready=lambda: ready.append(True), on_dead=lambda error: None,
    )  # fmt: skip
    stepper.start()
    loop.run_until(lambda: bool(ready))
    yield stepper, loop
    assert stepper.stop(10.0)


def test_plain_broken_plain(
    stepping: tuple[Stepper, PlayedLoop], folder: ModelFolder, tokenizer: OpenvinoTokenizer
) -> None:
    """A schema that got past every guard raises in a step. Its request fails, and the next ones are answered as before."""
    stepper, loop = stepping
    prompt = Prompts(tokenizer, folder.special_tokens, folder.chat_template).chat(
        [Message("user", "What is a KV cache?")]
    )

    def ask(schema: str | None) -> Heard:
        heard = Heard()
        sampling = Sampling(max_tokens=100, temperature=0.0, schema=schema)
        stepper.submit(Generation(prompt, sampling, (), heard))
        loop.run_until(lambda: heard.finish is not None)
        return heard

    before, broken, after = ask(None), ask('{"type": "strin"}'), ask(None)
    assert (before.finish, broken.finish, after.finish) == (Finish.STOP, Finish.FAILED, Finish.STOP)
    assert after.text == before.text
    assert stepper.counters.failures == 1


def test_the_library_still_breaks_where_the_guard_expects_it(folder: ModelFolder, tokenizer: OpenvinoTokenizer) -> None:
    """If this ever fails, the library has learned to refuse bad schemas by itself, and the guard may become simpler."""
    pipeline = OpenvinoPipeline(folder, SETTINGS, tokenizer, cache_tokens=256)
    running = pipeline.add([1, 3, 300, 2, 4], Sampling(max_tokens=1, schema='{"type": "strin"}'))
    with pytest.raises(RuntimeError):
        pipeline.step()
    running.cancel()


def test_the_compiler_outlives_bad_schemas(folder: ModelFolder, tokenizer: OpenvinoTokenizer) -> None:
    compiler = SchemaCompiler(folder, SETTINGS, tokenizer)
    for _ in range(3):
        assert not compiler.compiles('{"type": "strin"}')
        assert compiler.compiles('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')


def test_padding_is_taken_off_again(tokenizer: OpenvinoTokenizer) -> None:
    texts = ["a", "Describe the rare golden key.", "x" * 300, " ", "ü → 😀"]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]
    assert tokenizer.decode(tokenizer.encode(texts)) == texts
    assert tokenizer.encode([]) == []
    assert tokenizer.decode([[], [300]])[0] == ""


@given(st.text(max_size=60))
def test_ids_decode_as_the_library_decodes_them(tokenizer: OpenvinoTokenizer, text: str) -> None:
    text = text.encode(errors="replace").decode()
    ids = [1, 3, *(tokenizer.encode([text])[0] if text else []), 2]
    assert tokenizer.decode([ids]) == tokenizer.inner.decode([ids], skip_special_tokens=True)


def test_windows_of_real_ids_join_to_the_text(tokenizer: OpenvinoTokenizer) -> None:
    text = "Ünïcödé → 😀😀 and «quotes», tabs\tand\n\nlines: 你好, здравствуй  two  spaces"
    (ids,) = tokenizer.encode([text])
    for size in (1, 2, 5):
        window = TextWindow()
        told = ""
        for at in range(0, len(ids), size):
            window.extend(ids[at : at + size])
            context, whole = tokenizer.decode(window.rows())
            told += window.accept(context, whole, final=at + size >= len(ids))
        assert told == text


def test_cancelling_frees_the_cache(folder: ModelFolder, tokenizer: OpenvinoTokenizer) -> None:
    pipeline = OpenvinoPipeline(folder, SETTINGS, tokenizer, cache_tokens=4096)
    running = [
        pipeline.add([1, 3, 300 + number, 2, 4], Sampling(max_tokens=500, ignore_eos=True)) for number in range(4)
    ]
    for _ in range(100):
        pipeline.step()
    assert pipeline.kv_usage() > 0.1
    for one in running:
        one.cancel()
    pipeline.step()
    small = pipeline.add([1, 3, 300, 2, 4], GREEDY)
    pipeline.step()
    assert pipeline.kv_usage() < 0.05
    small.cancel()


def test_more_than_the_cache_holds_is_finished_in_turns(folder: ModelFolder, tokenizer: OpenvinoTokenizer) -> None:
    """The library sets generations aside and computes them again: nothing is lost, only time."""
    pipeline = OpenvinoPipeline(folder, SETTINGS, tokenizer, cache_tokens=640)
    running = [
        pipeline.add([1, 3, 300 + number, 2, 4], Sampling(max_tokens=150, ignore_eos=True)) for number in range(8)
    ]
    tokens = [0] * len(running)
    ended = [False] * len(running)
    for _ in range(5000):
        pipeline.step()
        for i, one in enumerate(running):
            if not ended[i]:
                ids, finish = one.take()
                tokens[i] += len(ids)
                ended[i] = finish is Finish.LENGTH
        if all(ended):
            break
    assert tokens == [150] * len(running)


def test_importing_it_started_no_telemetry() -> None:
    assert sys.modules["openvino_telemetry"] is None
