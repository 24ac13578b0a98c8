"""Three witnesses of the same requests: the clients, the upstreams' own logs, and the ledger. Do they agree?

A request that an upstream finished and whose client got all of it must have exactly one usage record, with the upstream's
tokens and the price of its pool. A killed worker may take along what it had not written yet: records of answers that ended
less than `UNWRITTEN_S` before it. Twice is never allowed: the sums per hour must be those of the single records.
"""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import msgspec

from spillway.core.clock import Seconds

UNWRITTEN_S = 0.05  # `store.spool.slice_s`: how long a record may wait for others before it is written
CLOCK_S = 0.005  # an event loop's time is that of its last turn
INPUT_NANO_USD, OUTPUT_NANO_USD = 150, 600  # of one token
PRICE = {"input_usd_per_mtok": INPUT_NANO_USD / 1e3, "output_usd_per_mtok": OUTPUT_NANO_USD / 1e3}


class Delivered(msgspec.Struct, frozen=True):
    """An answer that a client got whole, and when it had it."""

    request: str
    at_s: Seconds


class Finished(msgspec.Struct, frozen=True):
    """An answer that an upstream sent to its end, and when."""

    request: str
    at_s: Seconds
    prompt_tokens: int
    completion_tokens: int

    @property
    def cost_nano_usd(self) -> int:
        return self.prompt_tokens * INPUT_NANO_USD + self.completion_tokens * OUTPUT_NANO_USD


class Log(msgspec.Struct, frozen=True):
    """What an upstream wrote down. `open`: requests that came and whose end it never wrote: it was killed first."""

    finished: tuple[Finished, ...]
    open: frozenset[str]


class Row(msgspec.Struct, frozen=True):
    request: str
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: int


class Books(msgspec.Struct, frozen=True):
    rows: tuple[Row, ...]
    hourly: tuple[int, int, int, int]  # sums: requests, prompt tokens, completion tokens, nano-dollars


class Audit(msgspec.Struct, frozen=True):
    delivered: int  # and finished by an upstream: what must be in the ledger
    records: int
    missing: int
    missing_excused: int  # of those: ended just before their worker was killed
    counted_twice: int  # requests by which the sums per hour exceed the single records, or fall short of them
    invented: int  # records of success for what no upstream finished
    wrong_tokens: int
    wrong_cost: int
    sums_differ: bool

    @property
    def passed(self) -> bool:
        wrong = self.counted_twice or self.invented or self.wrong_tokens or self.wrong_cost or self.sums_differ
        return self.missing == self.missing_excused and not wrong


def audit(delivered: Iterable[Delivered], logs: Iterable[Log], books: Books, kills_s: list[Seconds]) -> Audit:
    """`kills_s`: when workers were killed, on the clock of the witnesses (CLOCK_MONOTONIC)."""
    answers: dict[str, list[Finished]] = {}
    unwitnessed: set[str] = set()
    for log in logs:
        unwitnessed |= log.open
        for answer in log.finished:
            answers.setdefault(answer.request, []).append(answer)
    whole = [one for one in delivered if one.request in answers]
    rows = {row.request: row for row in books.rows}
    missing = [one for one in whole if one.request not in rows]
    known = [(rows[one.request], answers[one.request]) for one in whole if one.request in rows]
    known_upstream = unwitnessed | answers.keys()
    own = (
        len(books.rows),
        sum(row.prompt_tokens for row in books.rows),
        sum(row.completion_tokens for row in books.rows),
        sum(row.cost_nano_usd for row in books.rows),
    )
    return Audit(
        delivered=len(whole),
        records=len(books.rows),
        missing=len(missing),
        missing_excused=sum(_excused(one, answers[one.request], kills_s) for one in missing),
        counted_twice=abs(books.hourly[0] - own[0]) + len(books.rows) - len(rows),
        invented=sum(row.outcome == "ok" and row.request not in known_upstream for row in books.rows),
        wrong_tokens=sum(not any(_same_tokens(row, answer) for answer in candidates) for row, candidates in known),
        wrong_cost=sum(
            all(row.cost_nano_usd != answer.cost_nano_usd for answer in candidates) for row, candidates in known
        ),
        sums_differ=books.hourly != own,
    )


def _excused(one: Delivered, answers: list[Finished], kills_s: list[Seconds]) -> bool:
    """Its worker had relayed it when it was killed, and had not had the time to write it down."""
    ended_s = min(answer.at_s for answer in answers)
    return any(ended_s - CLOCK_S <= kill_s <= one.at_s + UNWRITTEN_S for kill_s in kills_s)


def _same_tokens(row: Row, answer: Finished) -> bool:
    return (row.prompt_tokens, row.completion_tokens) == (answer.prompt_tokens, answer.completion_tokens)


def read_log(path: Path) -> Log:
    """From the log that `spillway upstream --log` appends to. A killed upstream's last line may be torn."""
    found: list[Finished] = []
    begun: set[str] = set()
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["event"] == "arrived":
            begun.add(entry["request_id"])
            continue
        begun.discard(entry["request_id"])
        if entry["ending"] == "finished":
            found.append(Finished(entry["request_id"], entry["ended_s"], entry["prompt_tokens"], entry["sent_tokens"]))
    return Log(tuple(found), frozenset(begun))


def read_books(database: Path) -> Books:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT request, outcome, prompt_tokens, completion_tokens, cost_nano_usd FROM usage"
        ).fetchall()
        hourly = connection.execute(
            "SELECT sum(requests), sum(prompt_tokens), sum(completion_tokens), sum(cost_nano_usd) FROM usage_hour"
        ).fetchone()
    requests, prompt_tokens, completion_tokens, nano_usd = (value or 0 for value in hourly)
    return Books(tuple(Row(*row) for row in rows), (requests, prompt_tokens, completion_tokens, nano_usd))
