"""The binding to OpenVINO GenAI: the only file that knows it.

What its continuous batching asks for (seen with 2026.4): the generation handle must be kept, or the request is silently dropped ·
`eos_token_id` must be given with each request · without a seed of its own every request samples with seed 0 · a JSON schema that
cannot be compiled raises in `step()`, for everybody · compiled schemas are cached in the tokenizer, so pipelines that share a
tokenizer share them · inference threads beyond one make the tokenizer slower · it generates beyond the model's context when asked.
"""

import sys
from collections.abc import Sequence
from typing import cast

# importing openvino starts a telemetry client, which writes into HOME and calls out; with None here it finds none
cast("dict[str, object]", sys.modules)["openvino_telemetry"] = None

import numpy as np  # noqa: E402  after the line above
import openvino  # noqa: E402
import openvino_genai as genai  # noqa: E402
from openvino_genai.py_openvino_genai import GenerationHandle  # noqa: E402

from spillway.core.errors import ConfigError  # noqa: E402
from spillway.engine.model_folder import ModelFolder  # noqa: E402
from spillway.engine.ports import Finish, Sampling  # noqa: E402
from spillway.engine.settings import EngineSettings  # noqa: E402

BLOCK_TOKENS = 32
"""Of the KV cache on CPU."""
SAMPLE = "It's  two spaces, Größe 😀 你好 .\n\tEnd !"


class OpenvinoTokenizer:
    """`ports.Tokenizer`."""

    def __init__(self, folder: str) -> None:
        try:
            self.inner = genai.Tokenizer(folder, INFERENCE_NUM_THREADS=1)
        except RuntimeError as error:
            raise ConfigError(f"{folder}: no OpenVINO tokenizer can be read there") from error
        vocabulary = self.inner.get_vocab()
        self.longest_token_bytes = max(len(token) for token in vocabulary)
        self._bytes = self._byte_table(vocabulary)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.inner.encode(list(texts), add_special_tokens=False)
        rows = cast("list[list[int]]", encoded.input_ids.data.tolist())
        if len(rows) == 1:
            return rows
        masks = cast("list[list[int]]", encoded.attention_mask.data.tolist())
        return [
            [number for number, kept in zip(row, mask, strict=True) if kept]
            for row, mask in zip(rows, masks, strict=True)
        ]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        if self._bytes is None:
            return self.inner.decode(rows, skip_special_tokens=True) if rows else []
        table = self._bytes
        return [b"".join([table[number] for number in row]).decode("utf-8", "replace") for row in rows]

    def _byte_table(self, vocabulary: dict[bytes, int]) -> list[bytes] | None:
        """The bytes of each id, if the text of ids is that of their bytes joined: so it is with byte-level BPE.

        The library takes some 65 µs a call, which at 32 streams was a twelfth of a step; the table about 1 µs a row. Tried on every id
        and on a sample of text; with any other tokenizer, where words know of their neighbours, the library goes on decoding.
        """
        table = [b""] * (1 + max(vocabulary.values()))
        for token, number in vocabulary.items():
            table[number] = token
        alone = self.inner.decode([[number] for number in range(len(table))], skip_special_tokens=True)
        for number, text in enumerate(alone):
            if not text:
                table[number] = b""  # special
            elif text != table[number].decode("utf-8", "replace"):
                return None
        (sample,) = self.encode([SAMPLE])
        return table if b"".join([table[number] for number in sample]).decode() == SAMPLE else None


class OpenvinoRunning:
    """`ports.Running`."""

    __slots__ = ("_handle",)

    def __init__(self, handle: GenerationHandle) -> None:
        self._handle = handle

    def take(self) -> tuple[Sequence[int], Finish | None]:
        handle = self._handle
        ids: list[int] = []
        while handle.can_read():
            for output in handle.read().values():
                ids += output.generated_ids
                reason = output.finish_reason.value
                if reason:
                    return ids, Finish.LENGTH if reason == _LENGTH else Finish.STOP
        # a generation that the cache has no room for ends without a last output
        return ids, Finish.FAILED if handle.get_status().value == _IGNORED else None

    def cancel(self) -> None:
        self._handle.cancel()


_LENGTH = genai.GenerationFinishReason.LENGTH.value
_IGNORED = genai.GenerationStatus.IGNORED.value


class OpenvinoPipeline:
    """`ports.Pipeline`. Building one takes from a fraction of a second to minutes, by the size of the model."""

    def __init__(
        self, folder: ModelFolder, settings: EngineSettings, tokenizer: OpenvinoTokenizer, *, cache_tokens: int
    ) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = -(-cache_tokens // BLOCK_TOKENS)
        scheduler.max_num_batched_tokens = settings.max_batched_tokens
        scheduler.max_num_seqs = settings.max_sequences
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = True
        threads = {"INFERENCE_NUM_THREADS": settings.threads} if settings.threads else {}
        try:
            self._inner = genai.ContinuousBatchingPipeline(folder.path, tokenizer.inner, scheduler, "CPU", **threads)
        except RuntimeError as error:
            raise ConfigError(f"{folder.path}: no OpenVINO model can be read there") from error
        self._end_token = folder.end_token
        self._added = 0

    def add(self, prompt: list[int], sampling: Sampling) -> OpenvinoRunning:
        self._added += 1
        ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
        return OpenvinoRunning(self._inner.add_request(self._added, ids, self._config(sampling)))

    def step(self) -> None:
        self._inner.step()

    def kv_usage(self) -> float:
        return self._inner.get_metrics().cache_usage / 100

    def _config(self, sampling: Sampling) -> genai.GenerationConfig:
        config = genai.GenerationConfig(
            eos_token_id=self._end_token,
            apply_chat_template=False,
            max_new_tokens=sampling.max_tokens,
            min_new_tokens=sampling.min_tokens,
            ignore_eos=sampling.ignore_eos,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
        )
        if sampling.temperature > 0:
            config.do_sample = True
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = sampling.seed
            if sampling.top_k:
                config.top_k = sampling.top_k
        if sampling.schema is not None:
            config.structured_output_config = genai.StructuredOutputConfig(json_schema=sampling.schema)
        return config


class SchemaCompiler:
    """Compiles JSON schemas in a small pipeline of its own, into the cache of the tokenizer that the real one uses."""

    def __init__(self, folder: ModelFolder, settings: EngineSettings, tokenizer: OpenvinoTokenizer) -> None:
        one_thread = EngineSettings(
            model=settings.model, name=settings.name, max_sequences=1, max_batched_tokens=BLOCK_TOKENS, threads=1
        )
        self._pipeline = OpenvinoPipeline(folder, one_thread, tokenizer, cache_tokens=2 * BLOCK_TOKENS)
        self._prompt = [folder.end_token]
        self.compiles('{"type": "object"}')  # the first one prepares the vocabulary, which takes longer

    def compiles(self, schema: str) -> bool:
        """False when the compiler refuses it. Takes milliseconds, or much longer for a schema that `guard` should have refused."""
        running = self._pipeline.add(self._prompt, Sampling(max_tokens=1, temperature=0.0, schema=schema))
        try:
            self._pipeline.step()
        except RuntimeError:
            running.cancel()  # here, with nothing else in the batch, that is enough for the next one to work
            self._pipeline.step()
            return False
        running.take()
        return True
