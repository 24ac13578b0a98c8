"""The shipped kind of embedding model: a BERT sentence encoder from a Hugging Face folder, such as MiniLM. Needs `spillway[embedding]`."""

from pathlib import Path

import msgspec
import numpy as np
import openvino
from safetensors.numpy import load_file
from tokenizers import Encoding, Tokenizer

from spillway.core.errors import ConfigError
from spillway.engine.micro.bert import BertConfig, mean_encoder

MOST_TOKENS = 256


class SentenceEncoder:
    """A folder with config.json, model.safetensors and tokenizer.json. Longer texts are cut at MOST_TOKENS tokens."""

    task = "embeddings"

    def load(self, folder: Path) -> None:
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=BertConfig)
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            weights = load_file(folder / "model.safetensors")
            model = mean_encoder(config, weights)
        except (OSError, KeyError, msgspec.DecodeError) as error:
            raise ConfigError(f"{folder} is no folder of a BERT encoder: {error}") from error
        self._tokenizer.enable_truncation(min(MOST_TOKENS, config.max_position_embeddings))
        self._tokenizer.no_padding()
        compiled = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        self._request = compiled.create_infer_request()

    def preprocess(self, text: str) -> Encoding:
        return self._tokenizer.encode(text)

    def tokens(self, prepared: Encoding) -> int:
        return len(prepared.ids)

    def predict(self, prepared: list[Encoding]) -> list[np.ndarray]:
        width = max(len(one.ids) for one in prepared)
        ids = np.zeros((len(prepared), width), np.int32)
        mask = np.zeros((len(prepared), width), np.float32)
        for row, one in enumerate(prepared):
            ids[row, : len(one.ids)] = one.ids
            mask[row, : len(one.ids)] = 1.0
        return list(next(iter(self._request.infer({0: ids, 1: mask}).values())).copy())

    def postprocess(self, output: np.ndarray) -> list[float]:
        return output.tolist()
