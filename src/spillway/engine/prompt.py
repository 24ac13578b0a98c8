"""From messages to prompt ids, so that nothing a user writes can become a special token.

The template is rendered with a placeholder for each content and cut at the placeholders: its own text is encoded with special
tokens, contents without. The tokenizer reads `<|end|>` as a special id wherever it stands, so a content is cut inside every
such text and the parts are encoded apart; joined they decode to the same text.
"""

import re
from collections.abc import Sequence
from typing import cast

import jinja2
import jinja2.sandbox
import msgspec

from spillway.core.errors import BadRequestError, ConfigError
from spillway.engine.ports import Tokenizer

MAX_CACHED_FRAMES = 256
"""Texts of the template between contents, with their ids. A template has few; when they are more, the oldest is dropped."""
MAX_PARTS_AT_ONCE = 32
LONG_PART_CHARS = 512
"""Parts are encoded together, padded to the longest, so a long one goes alone."""

_PLACEHOLDER = re.compile("\ue0f0(\\d+)\ue0f1")


class Message(msgspec.Struct, frozen=True):
    """`role`: system, user or assistant."""

    role: str
    content: str


class Prompts:
    """Makes prompt ids for one model. Thread-safe as far as its tokenizer is: the cache tolerates races."""

    def __init__(self, tokenizer: Tokenizer, special_tokens: Sequence[str], chat_template: str) -> None:
        self._tokenizer = tokenizer
        self._special_ids = frozenset(ids[0] for ids in tokenizer.encode(special_tokens) if len(ids) == 1)
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._template = _compile(chat_template)
        self._frames: dict[str, list[int]] = {}

    def chat(self, messages: Sequence[Message], *, continues: bool = False) -> list[int]:
        """Prompt ids that end where the assistant's answer begins; or, where it `continues`, behind the text of the last message. Raises
        BadRequestError when the template refuses."""
        listed = [{"role": message.role, "content": f"\ue0f0{i}\ue0f1"} for i, message in enumerate(messages)]
        try:
            rendered = self._template.render(messages=listed, add_generation_prompt=not continues)
        except jinja2.TemplateError as error:
            raise BadRequestError(
                "The model's chat template does not take these messages.", param="messages"
            ) from error
        pieces = _PLACEHOLDER.split(rendered)  # frame, number, frame, number, … frame
        contents = self.texts([messages[int(number)].content for number in pieces[1::2]])
        ids = list(self._frame(pieces[0]))
        for content, frame in zip(contents, pieces[2::2], strict=True):
            ids += content
            ids += self._frame(frame)
        if continues and (last := self._frame(pieces[-1])):  # what ends a message
            del ids[-len(last) :]
        return ids

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, none of them special."""
        owners: list[int] = []
        parts: list[str] = []
        for owner, text in enumerate(texts):
            for part in self._plain_parts(text):
                owners.append(owner)
                parts.append(part)
        whole: list[list[int]] = [[] for _ in texts]
        for owner, ids in zip(owners, self._encode(parts), strict=True):
            whole[owner] += ids
        if any(not self._special_ids.isdisjoint(ids) for ids in whole):
            raise BadRequestError("The text cannot be read without special tokens.", param="messages")
        return whole

    def _plain_parts(self, text: str) -> list[str]:
        """Cuts behind the first character of every special text, again until no part has one."""
        if self._special is None or not text:
            return [text] if text else []
        parts: list[str] = []
        begin = at = 0
        while (found := self._special.search(text, at)) is not None:
            cut = found.start() + 1
            parts.append(text[begin:cut])
            begin = at = cut
        parts.append(text[begin:])
        return [part for part in parts if part]

    def _encode(self, parts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        together: list[str] = []
        for part in parts:
            if len(part) > LONG_PART_CHARS or len(together) >= MAX_PARTS_AT_ONCE:
                ids += self._tokenizer.encode(together)
                together = []
            together.append(part)
            if len(part) > LONG_PART_CHARS:
                ids += self._tokenizer.encode(together)
                together = []
        return ids + self._tokenizer.encode(together)

    def _frame(self, text: str) -> list[int]:
        ids = self._frames.get(text)
        if ids is None:
            ids = self._tokenizer.encode([text])[0] if text else []
            if len(self._frames) >= MAX_CACHED_FRAMES:
                self._frames.pop(next(iter(self._frames)), None)
            self._frames[text] = ids
        return ids


def _compile(chat_template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    cast("dict[str, object]", environment.globals)["raise_exception"] = _refuse  # templates in the wild call it
    try:
        return environment.from_string(chat_template)
    except jinja2.TemplateError as error:
        raise ConfigError(f"The model's chat template cannot be read: {error}") from error


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)
