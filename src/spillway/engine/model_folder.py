"""What the files beside a model say about it: how long its context is, its special tokens, its chat template, how to sample."""

from pathlib import Path
from typing import TypeVar

import msgspec

from spillway.core.errors import ConfigError

_File = TypeVar("_File")


class _AddedToken(msgspec.Struct):
    content: str
    special: bool = False


class _TokenizerFile(msgspec.Struct):
    added_tokens: list[_AddedToken] = []


class _ConfigFile(msgspec.Struct):
    max_position_embeddings: int
    vocab_size: int
    eos_token_id: int | list[int]


class SamplingDefaults(msgspec.Struct, frozen=True):
    """`generation_config.json`: what holds when a request does not say."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class _TokenizerConfigFile(msgspec.Struct):
    chat_template: str | None = None


class ModelFolder(msgspec.Struct, frozen=True):
    """`context_tokens`: prompt and output together. `special_tokens`: texts that the tokenizer reads as special ids."""

    path: str
    context_tokens: int
    vocabulary: int
    end_token: int
    special_tokens: tuple[str, ...]
    chat_template: str
    defaults: SamplingDefaults


def read_model_folder(folder: str) -> ModelFolder:
    """Raises ConfigError, naming the file, when something is missing or wrong."""
    path = Path(folder)
    config = _read(path / "config.json", _ConfigFile)
    tokenizer = _read(path / "tokenizer.json", _TokenizerFile)
    end = config.eos_token_id
    sampling = path / "generation_config.json"
    return ModelFolder(
        path=str(path),
        context_tokens=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        end_token=end if isinstance(end, int) else end[0],
        special_tokens=tuple(token.content for token in tokenizer.added_tokens if token.special),
        chat_template=_chat_template(path),
        defaults=_read(sampling, SamplingDefaults) if sampling.exists() else SamplingDefaults(),
    )


def _chat_template(path: Path) -> str:
    template = path / "chat_template.jinja"
    if template.exists():
        return template.read_text(encoding="utf-8")
    inside = _read(path / "tokenizer_config.json", _TokenizerConfigFile).chat_template
    if inside is None:
        raise ConfigError(f"{path}: no chat template, neither in chat_template.jinja nor in tokenizer_config.json")
    return inside


def _read(path: Path, type: type[_File]) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
