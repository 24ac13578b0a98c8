"""What the engine's parts need of each other. `pipeline` implements the first three with OpenVINO, tests with a script."""

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec


class Sampling(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How to choose tokens. `temperature` 0 is greedy; `top_k` 0 is all; `schema` is JSON schema text that was checked."""

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    ignore_eos: bool = False
    schema: str | None = None


class Finish(enum.Enum):
    """Why a generation ended."""

    STOP = "stop"  # the model's end token, or a stop string
    LENGTH = "length"  # max_tokens
    FAILED = "failed"  # the engine could not go on with it


class Running(Protocol):
    """One generation inside the pipeline. Dropping it drops the generation."""

    def take(self) -> tuple[Sequence[int], Finish | None]:
        """Token ids since the last call, and the reason once it has ended."""
        ...

    def cancel(self) -> None:
        """Frees its place and its cache in the next step."""
        ...


class Pipeline(Protocol):
    """Continuous batching. Used by one thread only."""

    def add(self, prompt: list[int], sampling: Sampling) -> Running:
        """Joins the batch in the next step."""
        ...

    def step(self) -> None:
        """One step of every generation in the batch. If it raises, the pipeline must not be used any more."""
        ...

    def kv_usage(self) -> float:
        """Share of the cache that the last step used, 0 to 1."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back. Safe to use from several threads."""

    longest_token_bytes: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text. Special tokens written out in a text become special ids: see `prompt.py`."""
        ...

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row, special tokens left out; U+FFFD stands for what is not valid UTF-8."""
        ...


class GenerationListener(Protocol):
    """Told about one generation, on the event loop's thread."""

    def progress(self, text: str, tokens: int, finish: Finish | None) -> None:
        """New text (may be empty), all tokens generated so far, and why it ended. Nothing comes after an end."""
        ...
