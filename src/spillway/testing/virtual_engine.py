"""A place to send load to, in virtual time: an `Origin` without sockets that answers as an engine would."""

from collections.abc import Callable

import msgspec

from spillway.core.clock import Seconds
from spillway.net.ports import ConnectionFault, Headers, Receiver
from spillway.testing.virtual_loop import VirtualLoop

TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


class _Asked(msgspec.Struct):
    max_tokens: int


class Sent:
    """A request that the engine got; the ticket of whoever sent it."""

    def __init__(self, request: bytes, receiver: Receiver, at_s: Seconds) -> None:
        head, _, self.body = request.partition(b"\r\n\r\n")
        self.head = head.decode()
        self.at_s = at_s
        self.receiver = receiver
        self.max_tokens = msgspec.json.decode(self.body, type=_Asked).max_tokens
        self.begun = False
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class VirtualEngine:
    """`answer` is called for every request; it arms the timers of its answer with `events`, `reply` or `fail`. Before
    `stalled_until_s` nothing is begun."""

    def __init__(self, loop: VirtualLoop, *, ttft_s: Seconds = 0.1, tpot_s: Seconds = 0.01) -> None:
        self._loop = loop
        self.ttft_s = ttft_s
        self.tpot_s = tpot_s
        self.stalled_until_s: Seconds = 0.0
        self.headers: Headers = []
        self.sent: list[Sent] = []
        self.running = 0
        self.most_running = 0
        self.answer: Callable[[Sent], None] = self.stream

    def send(self, request: bytes, receiver: Receiver) -> Sent:
        sent = Sent(request, receiver, self._loop.time())
        self.sent.append(sent)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.answer(sent)
        return sent

    def stream(self, sent: Sent) -> None:
        """An event per token, then the finish reason, usage and [DONE]."""
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n'
        prompt_tokens = len(sent.body) // 4
        last = [FINISH, usage % (prompt_tokens, sent.max_tokens), DONE]
        self.events(sent, [TOKEN] * (sent.max_tokens - 1) + [b"".join([TOKEN, *last])])

    def events(self, sent: Sent, pieces: list[bytes], fault: ConnectionFault | None = None) -> None:
        """The first piece after `ttft_s`, the others `tpot_s` apart; then the end, or the fault."""
        begin_s = max(sent.at_s, self.stalled_until_s) + self.ttft_s
        self._loop.call_at(begin_s, self._play, sent, 200, b"text/event-stream", pieces, fault)

    def reply(self, sent: Sent, status: int, body: bytes) -> None:
        """A whole answer after `ttft_s`."""
        at_s = max(sent.at_s, self.stalled_until_s) + self.ttft_s
        self._loop.call_at(at_s, self._play, sent, status, b"application/json", [body], None)

    def fail(self, sent: Sent, fault: ConnectionFault) -> None:
        """No answer: the connection fails at once."""
        self._loop.call_soon(self._end, sent, fault)

    def _play(
        self, sent: Sent, status: int, content_type: bytes, pieces: list[bytes], fault: ConnectionFault | None
    ) -> None:
        if sent.cancelled:
            self.running -= 1
            return
        if not sent.begun:
            sent.begun = True
            sent.receiver.response_head(status, [(b"content-type", content_type), *self.headers])
        sent.receiver.response_body(b"", pieces[:1])
        if len(pieces) > 1:
            self._loop.call_later(self.tpot_s, self._play, sent, status, content_type, pieces[1:], fault)
        else:
            self._end(sent, fault)

    def _end(self, sent: Sent, fault: ConnectionFault | None) -> None:
        self.running -= 1
        if sent.cancelled:
            return
        if fault is None:
            sent.receiver.response_end()
        else:
            sent.receiver.response_failed(fault, "scripted")
