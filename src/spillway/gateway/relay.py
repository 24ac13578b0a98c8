"""Relay: passes one attempt's answer on to the client. Hot path.

Two kinds: `WholeRelay` for a plain answer, `StreamRelay` for server-sent events. Both hold the answer back while the
upstream can still be replaced (a whole answer until it is complete, a stream until its first content) and say through
`Attempts` how the attempt went: at most one `began`, then exactly one of `failed` (nothing reached the client) or
`ended`. What was measured: at 1000 streams the cost of a chunk is the kernel's read and write; a read that ends at an
event's end is passed on as the framed bytes that came, after four substring tests and no parsing.
"""

import re
from collections import deque
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from spillway.core.clock import Clock, Seconds
from spillway.core.outcome import Outcome
from spillway.core.usage import Usage
from spillway.gateway.call import Call
from spillway.gateway.settings import GatewaySettings
from spillway.gateway.verdict import Verdict, verdict_on
from spillway.net.ports import ConnectionFault, Headers
from spillway.traffic.events import Fault
from spillway.wire import quota, sse, usage_tail
from spillway.wire.quota import Quota

FAULT_OF = {
    ConnectionFault.CONNECT: Fault.CONNECT,
    ConnectionFault.LOST: Fault.RESET,
    ConnectionFault.MALFORMED: Fault.MALFORMED,
    ConnectionFault.TOO_LARGE: Fault.MALFORMED,
}
_LINE = rb"(?<![^\r\n])"  # where a line begins, whatever ended the one before
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"|' + _LINE + rb"data:\s*\[DONE\]")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(_LINE + rb'(?:data:\s*\{\s*"(?:error"\s*:|object"\s*:\s*"error")|event:\s*error)')
_NO_ANSWER = re.compile(rb'\s*(?:[^\s{]|\{\s*"(?:error"\s*:\s*\{|object"\s*:\s*"error"))')
_DONE = re.compile(_LINE + rb"data:\s*\[DONE\]")
MOST_GUARDED_BYTES = 16 << 20  # of a whole answer that is checked before any of it is passed on
_TAIL_READS = 4  # finish_reason, usage and [DONE] may come in reads of their own


class Attempts(Protocol):
    """The driver's side of a relay."""

    def began(self, call: Call) -> None: ...
    def failed(self, call: Call, fault: Fault, retry_after_s: Seconds | None, detail: str) -> None: ...
    def ended(self, call: Call, outcome: Outcome, usage: Usage) -> None: ...
    def quota_seen(self, call: Call, quota: Quota) -> None: ...


class Relay:
    """What both kinds share: the head, the answer of an upstream that says no, faults and time-outs."""

    __slots__ = (
        "_attempts", "_call", "_clock", "_content_type", "_held", "_held_bytes", "_open", "_over", "_refusal",
        "_retry_after_s", "_settings", "_status", "reads", "seen_at", "seen_reads",
    )  # fmt: skip

    def __init__(self, call: Call, attempts: Attempts, clock: Clock, settings: GatewaySettings) -> None:
        self._call = call
        self._attempts = attempts
        self._clock = clock
        self._settings = settings
        self._status = 0
        self._content_type = b"application/json"
        self._retry_after_s: Seconds | None = None
        self._refusal = False  # the upstream answered with an error status
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._open = False  # the client has the head: too late for another attempt
        self._over = False
        self.reads = 0
        self.seen_reads = 0
        self.seen_at: Seconds = call.dispatched_at

    def response_head(self, status: int, headers: Headers) -> None:
        self._status = status
        self._refusal = status != 200
        for name, value in headers:
            if name == b"content-type":
                self._content_type = value
            elif name == b"retry-after":
                self._retry_after_s = _seconds(value)
        if self._call.hosted:
            left = quota.read(headers)
            if left is not None:
                self._attempts.quota_seen(self._call, left)

    def response_failed(self, fault: ConnectionFault, detail: str) -> None:
        self._lost(FAULT_OF[fault], detail)

    def timed_out(self, message: str) -> None:
        """The sweep found this attempt too slow. Its connection is already cancelled."""
        self._lost(Fault.TIMEOUT, message)

    def spent(self) -> Usage:
        """What the upstream is known or guessed to have generated so far. For answers that never complete."""
        return Usage(prompt_tokens=self._call.input_tokens, estimated=True)

    def _lost(self, fault: Fault, detail: str) -> None:
        self._over = True
        if self._open:
            self._call.client.cut(Outcome.CUT, "")
            self._attempts.ended(self._call, Outcome.CUT, self.spent())
        else:
            self._attempts.failed(self._call, fault, None, detail)

    def _hold(self, pieces: list[bytes]) -> None:
        self._held.extend(pieces)
        self._held_bytes += sum(map(len, pieces))

    def _refused(self) -> None:
        """The whole error answer of the upstream is here: fault, load, or the request's own mistake."""
        call = self._call
        verdict: Verdict = verdict_on(self._status, b"".join(self._held))
        if verdict.fault is not None:
            self._attempts.failed(call, verdict.fault, self._retry_after_s, f"upstream answered {self._status}")
            return
        call.upstream_s += self._clock.monotonic() - call.dispatched_at
        call.client.refuse(verdict.outcome, verdict.message, call.served(self._clock.monotonic()))
        self._attempts.ended(call, verdict.outcome, Usage())

    def _content(self) -> Seconds:
        """The first content is here. Returns now."""
        call, now = self._call, self._clock.monotonic()
        call.content_at = now
        call.upstream_s += now - call.dispatched_at
        return now


class WholeRelay(Relay):
    """A plain answer. Held until complete; a very large one is passed on once it exceeds `max_held_bytes`."""

    __slots__ = ()

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        self.reads += 1
        if self._open:
            self._call.client.send(data, pieces)
            self._held = [*self._held[-_TAIL_READS:], *pieces]
            return
        if self._refusal and self._held_bytes > self._settings.max_error_bytes:
            return
        self._hold(pieces)
        if self._call.guard is not None:
            if self._held_bytes > MOST_GUARDED_BYTES:
                self._give_up()
            return
        if self._held_bytes > self._settings.max_held_bytes and not self._refusal:
            now = self._content()
            self._open = True
            self._attempts.began(self._call)
            self._call.client.open(self._status, self._content_type, self._call.served(now))
            self._call.client.send(b"", self._held)

    def response_end(self) -> None:
        if self._refusal:
            self._refused()
            return
        call = self._call
        if self._open:
            usage = usage_tail.from_tail(self._held) or self.spent()
            call.client.close()
        else:
            body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            if not body.strip().endswith(b"}") or _NO_ANSWER.match(body) is not None or _is_error(body):
                self._attempts.failed(call, Fault.MALFORMED, None, "the answer is no JSON object, or an error")
                return
            self._content()
            usage = usage_tail.from_body(body) or self._guessed(body)
            if call.guard is None:
                self._deliver(body, usage)
            else:
                call.guard.check_answer(body, partial(self._deliver, body, usage), partial(self._withhold, usage))
            return
        self._attempts.ended(call, Outcome.OK, usage)

    def _deliver(self, body: bytes, usage: Usage) -> None:
        call = self._call
        served = call.served(self._clock.monotonic())
        if call.item:
            served = replace(served, cost_usd=call.price.cost_usd(call.billable(usage)))
        call.client.reply(self._status, self._content_type, body, served)
        self._attempts.ended(call, Outcome.OK, usage)

    def _withhold(self, usage: Usage, outcome: Outcome, message: str) -> None:
        """What a safety check stopped was generated all the same, and is billed."""
        call = self._call
        call.client.refuse(outcome, message, call.served(self._clock.monotonic()))
        self._attempts.ended(call, outcome, usage)

    def _give_up(self) -> None:
        if self._call.ticket is not None:
            self._call.ticket.cancel()
        self._lost(Fault.MALFORMED, "the answer is too large to be checked")

    def _guessed(self, body: bytes) -> Usage:
        """Of an answer that does not say: its text, at the prompts' ratio of tokens to bytes."""
        written = self._call.ratio.tokens(usage_tail.written_bytes(body))
        return Usage(prompt_tokens=self._call.input_tokens, completion_tokens=written, estimated=True)


class StreamRelay(Relay):
    """Server-sent events. Only whole events are passed on, so that an error in band always stands between events."""

    __slots__ = ("_broken", "_carry", "_events", "_strip_usage", "_tail", "_usage_event")

    def __init__(self, call: Call, attempts: Attempts, clock: Clock, settings: GatewaySettings) -> None:
        super().__init__(call, attempts, clock, settings)
        self._broken = False  # an event was no JSON
        self._carry = b""  # the beginning of an event that is not complete
        self._events = 0
        self._strip_usage = not call.envelope.include_usage
        self._tail: deque[bytes] = deque(maxlen=_TAIL_READS)
        self._usage_event = b""

    def response_body(self, data: bytes, pieces: list[bytes]) -> None:
        self.reads += 1
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._refusal:
            if self._held_bytes <= self._settings.max_error_bytes:
                self._hold([body])
            return
        if self._carry or not body.endswith(b"\n\n"):
            body = self._whole_events(body)
            data, pieces = b"", [body]
            if not body:
                return
        if not self._open:
            self._first_events(body)
            return
        events = body.count(b"data:")
        if (
            not body.endswith(b"}\n\n")
            or (events > 1 and events != body.count(b"}\n\n"))
            or b'"usage"' in body
            or b"error" in body
        ):
            body = self._looked_at(body)
            if not body:
                return
            data, pieces = b"", [body]
            events = body.count(b"data:")
        self._events += events
        self._tail.append(body)
        self._call.client.send(data, pieces)

    def response_end(self) -> None:
        if self._refusal:
            self._refused()
            return
        if self._carry:  # an upstream that ends without the last empty line
            rest, self._carry = self._carry + b"\n\n", b""
            self.response_body(b"", [rest])
        call = self._call
        if self._over:
            return
        if not self._open:
            self._attempts.failed(call, Fault.MALFORMED, None, "the stream ended without content")
            return
        tail = b"".join(self._tail)
        if _FINISHED.search(tail) is None:
            self._lost(Fault.RESET, "the stream ended in the middle")
            return
        done = _DONE.search(tail) is not None
        if not done:
            call.client.send(b"", [sse.DONE])
        self._events -= 1 + done  # the finish reason and [DONE] are no tokens
        if call.guard is None:
            self._complete()
        else:
            call.guard.finish(self._complete)

    def _complete(self) -> None:
        self._call.client.close()
        self._attempts.ended(self._call, Outcome.OK, self._usage())

    def spent(self) -> Usage:
        return self._usage()

    def _usage(self) -> Usage:
        reported = usage_tail.from_tail([self._usage_event]) if self._usage_event else None
        return reported or Usage(
            prompt_tokens=self._call.input_tokens, completion_tokens=max(0, self._events - 1), estimated=True
        )

    def _whole_events(self, body: bytes) -> bytes:
        """What is complete of what was carried and what came; the rest is carried on."""
        body = self._carry + body if self._carry else body
        end = sse.end_of_last_event(body)
        self._carry = body[end:]
        if len(self._carry) > self._settings.max_event_bytes:
            self._carry = b""
            self._cancelled(Fault.MALFORMED, "an event is larger than the bound")
            return b""
        return body[:end]

    def _first_events(self, body: bytes) -> None:
        """Holds the answer back until the first content, so that a failing upstream can still be replaced."""
        self._hold([body])
        if any(_is_error(event) for event in sse.raw_events(body)):
            self._cancelled(Fault.SERVER_ERROR, "the stream began with an error")
            return
        if not any(sse.has_content(event) for event in sse.events(body)):
            if self._held_bytes > self._settings.max_event_bytes:
                self._cancelled(Fault.MALFORMED, "no content within the bound")
            return
        now = self._content()
        self._open = True
        call = self._call
        self._attempts.began(call)
        held = b"".join(self._held)
        self._held.clear()
        call.client.open(self._status, self._content_type, call.served(now))
        if held.count(b"data:") != held.count(b"}\n\n") or b'"usage"' in held:
            held = self._looked_at(held)
        self._events += held.count(b"data:")
        self._tail.append(held)
        call.client.send(b"", [held])

    def _looked_at(self, body: bytes) -> bytes:
        """Remembers the usage event, takes it out for a client that did not ask, ends the stream at an error event.

        One event that is no JSON is left out, as clients break on it; at a second one the stream ends.
        """
        kept: list[bytes] = []
        for event in sse.raw_events(body):
            if _is_error(event):
                self._events += b"".join(kept).count(b"data:")
                self._call.client.send(b"", kept)
                self._cancelled(Fault.SERVER_ERROR, "an error in the middle of the stream")
                return b""
            if _USAGE.search(event) is not None:
                self._usage_event = event
                if self._strip_usage and sse.is_usage_only(event):
                    continue
            elif not sse.is_readable(event):
                if self._broken:
                    self._call.client.send(b"", kept)
                    self._cancelled(Fault.MALFORMED, "events that are no JSON")
                    return b""
                self._broken = True
                continue
            kept.append(event)
        return b"".join(kept)

    def _cancelled(self, fault: Fault, detail: str) -> None:
        """We, not the upstream, end this attempt."""
        if self._call.ticket is not None:
            self._call.ticket.cancel()
        self._lost(fault, detail)


def _is_error(event: bytes) -> bool:
    """Whether an event, or a whole answer, is an error. Hosted providers put one behind an id and choices too."""
    if b"error" not in event:  # so it is with nearly all, and a search by pattern costs 7 µs for 580 bytes
        return False
    return _ERROR.search(event) is not None or (b'"error"' in event and sse.is_error(event.lstrip()))


def _seconds(value: bytes) -> Seconds | None:
    """Retry-After in seconds; a date or nonsense is None."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < 86400.0 else None
