"""A long chat generation in slices: each request goes on where the last answer ended, and the answers become one.

Only what can be continued without a trace is cut: no seed, tools, schema, logprobs, stop texts, nor more than one choice. A slice ends with
the engine's own `length`; the next one brings the text so far as the assistant's unfinished message (`continue_final_message`, as vLLM has it).
"""

import msgspec

_FORBIDDEN = (
    "seed", "tools", "tool_choice", "functions", "function_call", "response_format", "logprobs", "top_logprobs", "stop", "audio",
    "continue_final_message", "add_generation_prompt",
)  # fmt: skip
_NOTHING = (b"null", b"[]", b"false")


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage = _Usage()


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class Slices:
    """Of one request. `next_body`, then `took` its answer, until that says that it was the last; then `whole`."""

    def __init__(
        self, fields: dict[str, msgspec.Raw], messages: list[msgspec.Raw], most: int | None, each: int
    ) -> None:
        self._fields = fields
        self._messages = messages
        self._left = most
        self._each = each
        self._text = ""
        self._first_prompt_tokens: int | None = None
        self._tokens = 0
        self._last: dict[str, msgspec.Raw] = {}
        self.count = 0

    def next_body(self) -> bytes:
        messages, fields = list(self._messages), dict(self._fields)
        if self._text:
            messages.append(msgspec.Raw(_encode({"role": "assistant", "content": self._text})))
            fields["continue_final_message"] = msgspec.Raw(b"true")
            fields["add_generation_prompt"] = msgspec.Raw(b"false")
        tokens = self._each if self._left is None else min(self._each, self._left)
        fields["messages"] = msgspec.Raw(_encode(messages))
        fields["max_tokens"] = msgspec.Raw(_encode(tokens))
        return _encode(fields)

    def took(self, body: bytes) -> bool:
        """True: it was the last, or nothing that can be gone on with."""
        try:
            answer = _answer(body)
            (choice,) = answer.choices
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            return True
        self.count += 1
        self._last = _fields(body)
        written = choice.message.content or ""
        self._text += written
        self._tokens += answer.usage.completion_tokens
        if self._first_prompt_tokens is None:
            self._first_prompt_tokens = answer.usage.prompt_tokens
        if self._left is not None:
            self._left -= answer.usage.completion_tokens
        ended = choice.finish_reason != "length" or not written or not answer.usage.completion_tokens
        return ended or (self._left is not None and self._left <= 0)

    def whole(self) -> bytes:
        """The last answer with all of the text, and the tokens of all of them: of prompts those of the first."""
        prompt_tokens = self._first_prompt_tokens or 0
        choices = msgspec.json.decode(self._last["choices"])
        choices[0]["message"]["content"] = self._text
        usage = msgspec.json.decode(self._last.get("usage", msgspec.Raw(b"{}")))
        usage |= {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self._tokens,
            "total_tokens": prompt_tokens + self._tokens,
        }
        changed = {"choices": msgspec.Raw(_encode(choices)), "usage": msgspec.Raw(_encode(usage))}
        return _encode(self._last | changed)


def sliced(body: bytes, each: int) -> Slices | None:
    """None: it is short enough, or cannot be cut."""
    try:
        fields = _fields(body)
        messages = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
        named = fields.pop("max_completion_tokens", fields.get("max_tokens", msgspec.Raw(b"null")))
        most = msgspec.json.decode(named, type=int | None)
        choices = msgspec.json.decode(fields.get("n", msgspec.Raw(b"1")), type=int | None)
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if any(bytes(fields.get(name, msgspec.Raw(b"null"))) not in _NOTHING for name in _FORBIDDEN):
        return None
    if choices not in (None, 1) or (most is not None and most <= each):
        return None
    return Slices(fields, messages, most, each)
