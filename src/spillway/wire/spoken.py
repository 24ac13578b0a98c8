"""What was said: the text that a request brings last, and the text of answers, whole or in events. For those who must read it.

What cannot be read says nothing here: the upstream, or the client, will have its own word on it.
"""

import msgspec

from spillway.wire.sse import data_of


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_messages = msgspec.json.Decoder(list[_Message]).decode
_texts = msgspec.json.Decoder(str | list[str]).decode
_answer = msgspec.json.Decoder(_Answer).decode
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def asked(prompt: bytes) -> str:
    """Of the value of `messages`: what users say after the model's last word. Of `prompt` or `input`: all of it."""
    try:
        if not prompt.lstrip().startswith(b"["):
            found = _texts(prompt)
            return found if isinstance(found, str) else "\n".join(found)
        messages = _messages(prompt)
    except _UNREADABLE:
        return _texts_of(prompt)
    last = max((index for index, one in enumerate(messages) if one.role == "assistant"), default=-1)
    return "\n".join(_content(one) for one in messages[last + 1 :] if one.role not in ("system", "developer"))


def answered(body: bytes) -> str:
    """Of a whole answer, its choices one after the other."""
    try:
        return "\n".join(_text(choice) for choice in _answer(body).choices)
    except _UNREADABLE:
        return ""


def streamed(event: bytes) -> str:
    """Of one event."""
    data = data_of(event)
    if not data.startswith(b"{"):
        return ""
    try:
        return "".join(_text(choice) for choice in _answer(data).choices)
    except _UNREADABLE:
        return ""


def _texts_of(prompt: bytes) -> str:
    try:
        found = _texts(prompt)
    except _UNREADABLE:
        return ""
    return found if isinstance(found, str) else "\n".join(found)


def _content(message: _Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _text(choice: _Choice) -> str:
    said = choice.delta or choice.message
    if said is None:
        return choice.text or ""
    return "".join(part or "" for part in (said.reasoning, said.reasoning_content, said.content, said.refusal))
