"""The shipped kind of text classifier: hashed character n-grams, one hidden layer, as OpenVINO IR.

`classifier.json` beside the IR says how texts become features, and what the outputs are called; `models/training/moderation.py` makes both.
"""

import sys
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from spillway.core.errors import ConfigError
from spillway.engine.micro.features import Recipe, features

# before the import: it starts a thread that reports to its makers, and writes into the home folder
cast("dict[str, object]", sys.modules)["openvino_telemetry"] = None

import openvino  # noqa: E402


class Classifier:
    task = "moderations"

    def __init__(self) -> None:
        self.thresholds: dict[str, float] = {}

    def load(self, folder: Path) -> None:
        path = folder / "classifier.json"
        try:
            self._recipe = msgspec.json.decode(path.read_bytes(), type=Recipe)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{path} cannot be used: {error}") from error
        self.thresholds = self._recipe.flagged
        compiled = openvino.Core().compile_model(str(folder / "classifier.xml"), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        self._request = compiled.create_infer_request()

    def preprocess(self, text: str) -> list[int]:
        return features(text, self._recipe)

    def cost(self, prepared: list[int]) -> int:
        return len(prepared)

    def tokens(self, prepared: list[int]) -> int:
        """About four characters a token, as texts are usually counted."""
        return max(1, len(prepared) // (4 * (self._recipe.largest - self._recipe.smallest + 1)))

    def predict(self, prepared: list[list[int]]) -> list[np.ndarray]:
        width = max(map(len, prepared))
        ids = np.zeros((len(prepared), width), dtype=np.int32)
        for row, one in enumerate(prepared):
            ids[row, : len(one)] = one
        return list(next(iter(self._request.infer({0: ids}).values())).copy())

    def postprocess(self, output: np.ndarray) -> dict[str, float]:
        scores = dict(zip(self._recipe.labels, map(float, output), strict=True))
        return {label: round(scores[label], 6) for label in self._recipe.flagged}
