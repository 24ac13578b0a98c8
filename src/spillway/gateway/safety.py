"""Safety at the gate: another model of this gateway, a classifier, reads what users ask and what models answer.

A check is a request of its own: it goes to the classifier's pools through the same brain, and is the platform's to pay. What it finds
is blocked or only flagged, as the tenant's policy says; where it fails or is late, the rule says whether the door is open or closed.
Whole answers are checked before they are passed on. Of a stream the last `window_chars` are held back until what they belong to has been
checked, so no text that was found to be bad reaches the client.
"""

import enum
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import msgspec

from spillway.core.clock import Clock, Seconds, Timer, Timers
from spillway.core.ids import KeyId, ModelName, RequestId, TenantId
from spillway.core.outcome import Outcome
from spillway.core.priority import Priority
from spillway.gateway.call import Ask, Call
from spillway.gateway.ports import Principal, Served
from spillway.gateway.settings import SafetyRule
from spillway.wire import spoken
from spillway.wire.envelope import Kind

PLATFORM = Principal(KeyId("safety"), TenantId("safety"), None, Priority.REALTIME)
"""In whose name checks are made."""
MOST_CHARS = 16_384
"""Of one check; of a longer text the end is read."""


class Policy(enum.StrEnum):
    """What a tenant wants done about what is found."""

    OFF = "off"
    FLAG = "flag"
    BLOCK = "block"


class Stage(enum.StrEnum):
    INPUT = "input"
    OUTPUT = "output"


class Verdict(msgspec.Struct, frozen=True):
    """`flagged`: the categories found. `failed`: nobody could say."""

    flagged: tuple[str, ...] = ()
    failed: bool = False


class Watching(Protocol):
    """Told of every check."""

    def checked(self, model: ModelName, stage: str, verdict: str, took_s: Seconds) -> None: ...


class _Result(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool] = {}


class _Moderation(msgspec.Struct):
    results: list[_Result]


_read = msgspec.json.Decoder(_Moderation).decode
Submit = Callable[[Principal, Ask, "Check", Seconds], "Call | None"]


class Check:
    """One question to the classifier: the client's side of its request (`gateway.ports.ClientPort`). `told` is called once."""

    __slots__ = ("_over", "call", "timer", "told")

    def __init__(self, told: Callable[[Verdict], None]) -> None:
        self.told = told
        self.call: Call | None = None
        self.timer: Timer | None = None
        self._over = False

    def reply(self, status: int, content_type: bytes, body: bytes, served: Served) -> None:
        try:
            (result,) = _read(body).results
        except (msgspec.MsgspecError, ValueError, UnicodeDecodeError):
            self.end(Verdict(failed=True))
            return
        names = tuple(name for name, found in result.categories.items() if found)
        self.end(Verdict(names or ("unnamed",)) if result.flagged else Verdict())

    def refuse(
        self,
        outcome: Outcome,
        message: str,
        served: Served,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        self.end(Verdict(failed=True))

    def open(self, status: int, content_type: bytes, served: Served) -> None: ...
    def send(self, data: bytes, pieces: list[bytes]) -> None: ...

    def close(self) -> None:
        self.end(Verdict(failed=True))  # a verdict is not streamed

    def cut(self, outcome: Outcome, message: str) -> None:
        self.end(Verdict(failed=True))

    def late(self) -> None:
        if not self._over:
            if self.call is not None:
                self.call.client_left()
            self.end(Verdict(failed=True))

    def end(self, verdict: Verdict) -> None:
        if self._over:
            return
        self._over = True
        if self.timer is not None:
            self.timer.cancel()
        self.told(verdict)


class Safety:
    """`rules`: of the models that have one. `submit` sends a check's request on its way."""

    def __init__(self, submit: Submit, watching: Watching, clock: Clock, timers: Timers) -> None:
        self.rules: Mapping[ModelName, SafetyRule] = {}
        self._submit = submit
        self._watching = watching
        self._clock = clock
        self._timers = timers
        self._count = 0

    def guard_of(self, call: Call) -> "Guard | None":
        """None: nothing of this call is checked."""
        rule = self.rules.get(call.model)
        if rule is None or call.principal.safety == Policy.OFF.value:
            return None
        return Guard(self, call, rule)

    def ask(self, call: Call, rule: SafetyRule, stage: Stage, text: str, told: Callable[[Verdict], None]) -> None:
        began = self._clock.monotonic()
        self._count += 1
        body = msgspec.json.encode({"model": rule.model, "input": text[-MOST_CHARS:]})
        request = RequestId(f"{call.request}-s{self._count:x}")
        ask = Ask(request, Kind.EMBEDDINGS, b"/v1/moderations", b"", body, b"", priority=call.priority.value)

        def heard(verdict: Verdict) -> None:
            word = "failed" if verdict.failed else "flagged" if verdict.flagged else "passed"
            self._watching.checked(call.model, stage.value, word, self._clock.monotonic() - began)
            told(verdict)

        check = Check(heard)
        check.timer = self._timers.call_at(self._timers.time() + rule.timeout_s, check.late)
        check.call = self._submit(PLATFORM, ask, check, began)


class Guard:
    """What stands between one call and its safety."""

    __slots__ = ("_call", "_safety", "flagged", "rule")

    def __init__(self, safety: Safety, call: Call, rule: SafetyRule) -> None:
        self._safety = safety
        self._call = call
        self.rule = rule
        self.flagged: tuple[str, ...] = ()

    def check_input(self, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]) -> None:
        text = spoken.asked(bytes(self._call.envelope.prompt)) if self.rule.input else ""
        self._check(Stage.INPUT, text, passed, stopped)

    def check_answer(self, body: bytes, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]) -> None:
        text = spoken.answered(body) if self.rule.output else ""
        self._check(Stage.OUTPUT, text, passed, stopped)

    def check_text(self, text: str, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]) -> None:
        """Of a stream."""
        self._check(Stage.OUTPUT, text, passed, stopped)

    def _check(
        self, stage: Stage, text: str, passed: Callable[[], None], stopped: Callable[[Outcome, str], None]
    ) -> None:
        if not text.strip():
            passed()
        else:
            self._safety.ask(self._call, self.rule, stage, text, partial(self._judged, stage, passed, stopped))

    def _judged(
        self, stage: Stage, passed: Callable[[], None], stopped: Callable[[Outcome, str], None], verdict: Verdict
    ) -> None:
        if self._call.ended:
            return
        if verdict.failed and self.rule.on_failure == "closed":
            stopped(Outcome.UNAVAILABLE, "The safety check is not available.")
        elif verdict.flagged and self._call.principal.safety != Policy.FLAG.value:
            what = "The request" if stage is Stage.INPUT else "The answer"
            stopped(Outcome.CONTENT_FILTERED, f"{what} was stopped by the safety check: {', '.join(verdict.flagged)}.")
        else:
            self.flagged += tuple(name for name in verdict.flagged if name not in self.flagged)
            passed()
