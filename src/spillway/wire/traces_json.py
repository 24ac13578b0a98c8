"""Lines of JSON traces: Mooncake's, Bailian's, and our own, which can say everything that a record holds."""

import msgspec

from spillway.core.clock import Seconds
from spillway.core.priority import Priority
from spillway.wire.traces import BLOCK_TOKENS, MAX_RECORDS, Parse, TraceRecord

BAILIAN_BLOCK_TOKENS = 16


class _Keys(msgspec.Struct):
    """What tells the formats apart."""

    at_s: object = None
    chat_id: object = None
    timestamp: object = None


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


class _Bailian(msgspec.Struct):
    chat_id: int
    timestamp: float
    input_length: int
    output_length: int
    parent_chat_id: int = -1
    hash_ids: tuple[int, ...] = ()


class _Own(msgspec.Struct):
    at_s: Seconds
    input_tokens: int
    output_tokens: int
    model: str | None = None
    tenant: str | None = None
    organization: str | None = None
    user: str | None = None
    session: str | None = None
    priority: Priority | None = None
    region: str | None = None
    deadline_s: Seconds | None = None
    prefix: tuple[int, ...] | None = None
    block_tokens: int = BLOCK_TOKENS


def json_parser(line: str) -> Parse | None:
    """What reads lines like this one; None where it is no object that is known."""
    try:
        keys = msgspec.json.decode(line, type=_Keys)
    except (ValueError, RecursionError):
        return None
    if keys.at_s is not None:
        return parse_own
    if keys.chat_id is not None:
        return bailian_parser()
    return parse_mooncake if keys.timestamp is not None else None


def parse_own(line: str) -> TraceRecord:
    """Reads `{"at_s": 1.5, "input_tokens": 900, "output_tokens": 40}` with any of the other fields of a record."""
    of = msgspec.json.decode(line, type=_Own)
    return TraceRecord(
        of.at_s, of.input_tokens, of.output_tokens, of.prefix, of.block_tokens,
        of.model, of.tenant, of.organization, of.user, of.session, of.priority, of.region, of.deadline_s,
    )  # fmt: skip


def parse_mooncake(line: str) -> TraceRecord:
    """Reads `{"timestamp": MS, "input_length": N, "output_length": N, "hash_ids": […]}`."""
    of = msgspec.json.decode(line, type=_Mooncake)
    return TraceRecord(of.timestamp / 1000, of.input_length, of.output_length, of.hash_ids)


def bailian_parser() -> Parse:
    """Reads `{"chat_id": 159, "parent_chat_id": 55, "timestamp": SECONDS, "input_length": N, "output_length": N, "hash_ids": […], …}`.

    A session is what hangs together by parents (-1: none), and is named by its first request. The parser remembers at most
    MAX_RECORDS requests; the child of one that it never saw begins a session.
    """
    session_of: dict[int, int] = {}

    def parse(line: str) -> TraceRecord:
        of = msgspec.json.decode(line, type=_Bailian)
        session = session_of.get(of.parent_chat_id, of.chat_id)
        if len(session_of) < MAX_RECORDS:
            session_of[of.chat_id] = session
        return TraceRecord(
            of.timestamp, of.input_length, of.output_length, of.hash_ids, BAILIAN_BLOCK_TOKENS, session=str(session)
        )

    return parse
