"""The upstream's own record of every request it saw: losses, leaks and double sending are counted from here."""

import enum
from collections import Counter, deque
from pathlib import Path

import msgspec

from spillway.core.clock import Seconds
from spillway.net.ports import Headers

KEPT = 100_000  # requests that are over; older ones are forgotten, the counters are not


class Ending(enum.StrEnum):
    OPEN = "open"  # not over yet: waiting, running, or deliberately unanswered
    FINISHED = "finished"  # answered completely
    REFUSED = "refused"  # answered with an error that is the engine's own (bad request, queue full)
    FAULTED = "faulted"  # a fault of the script decided how it ended
    LEFT = "left"  # the client went away first
    STOPPED = "stopped"  # the upstream was stopped first


class Seen(msgspec.Struct, kw_only=True):
    """One request. Times are the upstream's loop seconds. Headers and body are emptied when newer requests need their room."""

    number: int  # in the order of arrival, from 1
    request_id: str  # the x-request-id header, "" without one
    path: str
    arrived_s: Seconds
    model: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    asked_tokens: int = 0  # what a complete reply has
    generated_tokens: int = 0  # by the engine
    sent_tokens: int = 0  # written towards the client
    started_s: Seconds | None = None  # first ran in the engine
    ended_s: Seconds | None = None
    status: int = 0  # 0: none was sent
    fault: str | None = None
    ending: Ending = Ending.OPEN
    headers: Headers = []
    body: bytes = b""

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for field, value in self.headers if field == wanted), None)


class UpstreamLog:
    """In memory, and as JSON lines in `path`: one line when a request arrives, one when it is over.

    Lines hold neither headers nor bodies, and are flushed one by one: a killed process leaves what it knew.
    """

    def __init__(self, path: Path | None = None, *, kept_requests: int = 0) -> None:
        self._kept_requests = kept_requests
        self._with_content: deque[Seen] = deque()
        self._open: dict[int, Seen] = {}
        self._over: deque[Seen] = deque(maxlen=KEPT)
        self._file = path.open("ab", buffering=0) if path else None
        self.arrived = 0
        self.endings: Counter[Ending] = Counter()

    @property
    def requests(self) -> list[Seen]:
        """In the order of arrival."""
        return sorted([*self._over, *self._open.values()], key=lambda seen: seen.number)

    @property
    def open(self) -> list[Seen]:
        """Requests that are not over: after a test there must be none, or the upstream works for nobody."""
        return list(self._open.values())

    def since(self, number: int) -> list[Seen]:
        """Requests after that number, in the order of arrival."""
        return [seen for seen in self.requests if seen.number > number]

    def repeated(self) -> list[str]:
        """Request ids that came more than once: retries, or something sent twice."""
        times = Counter(seen.request_id for seen in self.requests if seen.request_id)
        return [request_id for request_id, count in times.items() if count > 1]

    def arrive(self, request_id: str, path: str, headers: Headers, body: bytes, now_s: Seconds) -> Seen:
        self.arrived += 1
        seen = Seen(
            number=self.arrived, request_id=request_id, path=path, headers=headers, body=body, arrived_s=now_s
        )  # fmt: skip
        self._open[seen.number] = seen
        self._with_content.append(seen)
        if len(self._with_content) > self._kept_requests:
            oldest = self._with_content.popleft()
            oldest.headers, oldest.body = [], b""
        self._write("arrived", seen)
        return seen

    def end(self, seen: Seen, ending: Ending, now_s: Seconds) -> None:
        """The first ending counts; a request that is over stays as it is."""
        if self._open.pop(seen.number, None) is None:
            return
        seen.ending, seen.ended_s = ending, now_s
        self.endings[ending] += 1
        self._over.append(seen)
        self._write("over", seen)

    def forget(self) -> None:
        """Drop what is over. Numbers go on."""
        self._over.clear()
        self.endings.clear()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, event: str, seen: Seen) -> None:
        if self._file is not None:
            self._file.write(msgspec.json.encode({"event": event, **as_line(seen)}) + b"\n")


def as_line(seen: Seen) -> dict[str, object]:
    """Without headers and body: those may hold what a user wrote."""
    return {name: getattr(seen, name) for name in Seen.__struct_fields__ if name not in ("headers", "body")}
