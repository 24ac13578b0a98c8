"""A stream behind a guard: whatever its pieces, only what has been checked is passed on, and all of it in the end."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spillway.core.ids import RequestId
from spillway.core.outcome import Outcome
from spillway.gateway.held_back import HeldBack
from spillway.gateway.ports import Served
from spillway.gateway.settings import SafetyRule
from spillway.wire import spoken

SERVED = Served(RequestId("r"))


class Client:
    def __init__(self) -> None:
        self.opened = self.closed = False
        self.body = b""
        self.ended: list[str] = []

    def open(self, status: int, content_type: bytes, served: Served) -> None:
        assert not self.opened
        self.opened = True

    def send(self, data: bytes, pieces: list[bytes]) -> None:
        assert self.opened
        self.body += b"".join(pieces)

    def close(self) -> None:
        self.closed = True

    def cut(self, outcome: Outcome, message: str) -> None:
        assert self.opened
        self.ended.append("cut")

    def refuse(self, outcome: Outcome, message: str, *_: Any) -> None:
        assert not self.opened
        self.ended.append("refused")


class Guard:
    """Answers checks when it is told to."""

    def __init__(self, window: int, context: int) -> None:
        self.rule = SafetyRule("dog", window_chars=window, context_chars=context)
        self.flagged = ()
        self.waiting: list[tuple[str, Callable[[], None], Callable[[Outcome, str], None]]] = []
        self.seen: list[str] = []

    def check_text(self, text: str, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]) -> None:
        assert not self.waiting, "one at a time"
        self.waiting.append((text, passed, stopped))

    def answer(self) -> None:
        text, passed, stopped = self.waiting.pop()
        self.seen.append(text)
        if "BAD" in text:
            stopped(Outcome.CONTENT_FILTERED, "bad")
        else:
            passed()


def unwanted(outcome: Outcome, message: str) -> None:
    raise AssertionError(outcome, message)


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


@given(
    words=st.lists(st.sampled_from(["good ", "B", "A", "D", "BAD", "é ", "\n", ""]), max_size=60),
    answers=st.lists(st.booleans(), max_size=80),
    window=st.integers(1, 30),
    context=st.integers(3, 20),
)
def test_only_what_has_been_checked_is_passed_on(
    words: list[str], answers: list[bool], window: int, context: int
) -> None:
    client, guard = Client(), Guard(window, context)
    ended: list[str] = []
    call: Any = SimpleNamespace(ticket=None, paused=False)

    def stopped(outcome: Outcome, message: str) -> None:
        ended.append("stopped")
        held.cut(outcome, message)

    def done() -> None:
        held.close()
        ended.append("done")

    held = HeldBack(call, client, guard, stopped)  # pyright: ignore[reportArgumentType]
    held.open(200, b"text/event-stream", SERVED)
    turns = iter(answers)
    for word in words:
        if not ended:
            held.send(b"", [event(word)])
        if guard.waiting and next(turns, True) and not ended:
            guard.answer()
    if not ended:
        held.send(b"", [b"data: [DONE]\n\n"])
        held.finish(done)
    while guard.waiting and ended in ([], ["waiting"]):
        guard.answer()
    text = "".join(words)
    said = "".join(map(spoken.streamed, client.body.split(b"\n\n")))
    assert text.startswith(said)
    assert "BAD" not in said
    if "BAD" in text:
        assert ended == ["stopped"]
        assert client.ended == ["cut" if client.opened else "refused"]
        assert not client.closed
    else:
        assert ended == ["done"]
        assert said == text
        assert client.body.endswith(b"data: [DONE]\n\n")
        assert client.closed


def test_what_has_passed_is_on_its_way_while_the_rest_is_held() -> None:
    client, guard = Client(), Guard(10, 5)
    held = HeldBack(SimpleNamespace(ticket=None, paused=False), client, guard, unwanted)  # pyright: ignore[reportArgumentType]
    held.open(200, b"text/event-stream", SERVED)
    held.send(b"", [event("0123456789")])
    held.send(b"", [event("abc")])
    assert not client.opened
    guard.answer()
    assert client.body == event("0123456789")
    held.send(b"", [event("defghijkl")])
    (text, _, _) = guard.waiting[0]
    assert text == "56789abcdefghijkl"
    guard.answer()
    assert client.body == event("0123456789") + event("abc") + event("defghijkl")
