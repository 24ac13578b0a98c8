"""How long a connection may wait, and for what. Looked at by the sweep, so that no connection needs a timer of its own."""

import enum

from spillway.net.settings import ServerLimits


class Waiting(enum.Enum):
    """What a server connection waits for."""

    ANSWER = enum.auto()  # from a route, or for its leave to read on: has no limit here
    TAKING = enum.auto()  # the client takes what was written, or closes
    BODY = enum.auto()
    HEAD = enum.auto()
    REQUEST = enum.auto()
    LAST_REQUEST = enum.auto()  # while draining


class Deadlines:
    """One connection's. Time runs from the first sweep that sees a state, so that no limit is shorter than it is set."""

    __slots__ = ("_buffered_bytes", "_limits", "_since_s")

    def __init__(self, limits: ServerLimits, now_s: float) -> None:
        self._limits = limits
        self._since_s = now_s
        self._buffered_bytes = 0

    def over(self, now_s: float, waiting: Waiting, *, progressed: bool, buffered_bytes: int) -> bool:
        """Whether the wait was too long. `progressed`: something came, or an answer went, since the last sweep."""
        if progressed or (waiting is Waiting.TAKING and buffered_bytes != self._buffered_bytes):
            self._since_s = now_s
        self._buffered_bytes = buffered_bytes
        return now_s - self._since_s > self._limit_s(waiting, buffered_bytes)

    def _limit_s(self, waiting: Waiting, buffered_bytes: int) -> float:
        limits = self._limits
        match waiting:
            case Waiting.ANSWER:
                return float("inf")
            case Waiting.TAKING:
                return limits.write_timeout_s if buffered_bytes else limits.linger_s
            case Waiting.BODY:
                return limits.body_timeout_s
            case Waiting.HEAD:
                return limits.head_timeout_s
            case Waiting.REQUEST:
                return limits.idle_timeout_s
            case Waiting.LAST_REQUEST:
                return limits.linger_s
