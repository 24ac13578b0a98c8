"""A custom model: one small class in the user's own file.

    class Sentiment:
        task = "moderations"                      # or "embeddings": which path serves it
        def load(self, folder): ...               # once, before the first item; `folder`: where the file lies
        def preprocess(self, text): ...           # one item, in a thread beside the model's
        def predict(self, prepared): ...          # a list in, a list of the same length out: the only slow step
        def postprocess(self, output): ...        # one item: {category: score 0–1}, or a list of floats

`cost(prepared)` is optional: how much of the model's time an item takes, by which items are grouped; without it, the text's length.
`tokens(prepared)` is optional: what the usage says. `thresholds`, a dict: the score from which on a category counts; 0.5 without it. An item that one of these raises for fails alone.
"""

import importlib.util
from pathlib import Path
from typing import Any, Protocol

from spillway.core.errors import ConfigError

TASKS = ("embeddings", "moderations")


class CustomModel(Protocol):
    task: str

    def load(self, folder: Path) -> None: ...
    def preprocess(self, text: str) -> Any: ...
    def predict(self, prepared: list[Any]) -> list[Any]: ...
    def postprocess(self, output: Any) -> Any: ...


def load_class(place: str) -> tuple[CustomModel, Path]:
    """`FILE.py:CLASS`: the model, not loaded yet, and the folder of its file. ConfigError."""
    name, colon, wanted = place.rpartition(":")
    path = Path(name).resolve()
    if not colon or path.suffix != ".py" or not wanted.isidentifier():
        raise ConfigError(f"{place}: expected FILE.py:CLASS")
    if not path.is_file():
        raise ConfigError(f"{path} is not there")
    spec = importlib.util.spec_from_file_location(f"custom_{path.stem}", path)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        model = getattr(module, wanted)()
    except Exception as error:  # the user's own code: whatever it raises is said, and the engine does not start
        raise ConfigError(f"{place} cannot be used: {type(error).__name__}: {error}") from error
    check(model, place)
    return model, path.parent


def check(model: object, place: str) -> None:
    missing = [
        name for name in ("load", "preprocess", "predict", "postprocess") if not callable(getattr(model, name, None))
    ]
    if missing:
        raise ConfigError(f"{place} has no {', '.join(missing)}")
    if getattr(model, "task", None) not in TASKS:
        raise ConfigError(f"{place}: task must be one of {', '.join(TASKS)}")
