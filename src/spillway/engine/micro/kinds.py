"""The kinds of custom models: two that are shipped, and the user's own."""

import importlib
from importlib import resources
from pathlib import Path

from spillway.core.errors import ConfigError
from spillway.engine.micro.model import CustomModel, load_class

BUNDLED = "chat-safety-0.1m"


def made(kind: str, place: str | None) -> tuple[CustomModel, Path]:
    """The model, not loaded yet, and the folder that it loads from. Each kind's libraries are imported for it alone. ConfigError."""
    if kind == "python":
        if place is None:
            raise ConfigError("--model FILE.py:CLASS is missing")
        return load_class(place)
    if kind == "embedding":
        if place is None:
            raise ConfigError("--model DIR is missing: a folder with config.json, model.safetensors and tokenizer.json")
        return importlib.import_module("spillway.engine.micro.embedding").SentenceEncoder(), Path(place)
    folder = bundled() if place is None else Path(place)
    return importlib.import_module("spillway.engine.micro.classifier").Classifier(), folder


def bundled() -> Path:
    """The shipped classifier: in the package where it was installed from a wheel, else in the checkout."""
    packaged = Path(str(resources.files("spillway"))) / "bundled" / BUNDLED
    checkout = Path(__file__).resolve().parents[4] / "models" / BUNDLED
    for folder in (packaged, checkout):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the bundled model {BUNDLED} is not installed; give one with --model DIR")
