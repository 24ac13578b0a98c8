"""Lines of comma-separated traces: Azure's and BurstGPT's. The header says which, and where its columns stand."""

import datetime

from spillway.core.clock import Seconds
from spillway.wire.traces import Parse, TraceRecord

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURSTGPT = ("Timestamp", "Model", "Request tokens", "Response tokens")


def csv_parser(header: str) -> Parse | None:
    """What reads the lines under this header; None for a header that is not known."""
    columns = [column.strip() for column in header.lstrip("\ufeff").split(",")]
    if set(AZURE) <= set(columns):
        return _azure(columns)
    if set(BURSTGPT) <= set(columns):
        return _burstgpt(columns)
    return None


def _azure(columns: list[str]) -> Parse:
    """Reads `2023-11-16 18:17:03.9799600,4808,10`. Without a zone, times are taken as UTC."""
    when, context, generated = (columns.index(name) for name in AZURE)

    def parse(line: str) -> TraceRecord:
        cells = _cells(line, len(columns))
        moment = datetime.datetime.fromisoformat(cells[when].strip())
        aware = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return TraceRecord(aware.timestamp(), int(cells[context]), int(cells[generated]))

    return parse


def _burstgpt(columns: list[str]) -> Parse:
    """Reads `5,7,2.1,ChatGPT,472,18,490,Conversation log`, or the older lines without session and elapsed time."""
    when, model, context, generated = (columns.index(name) for name in BURSTGPT)
    session = columns.index("Session ID") if "Session ID" in columns else None

    def parse(line: str) -> TraceRecord:
        cells = _cells(line, len(columns))
        at_s: Seconds = float(cells[when])
        output_tokens = int(cells[generated])
        if output_tokens == 0:
            raise ValueError("a request that failed: it has no response tokens")
        named = cells[session].strip() if session is not None else ""
        return TraceRecord(
            at_s, int(cells[context]), output_tokens, model=cells[model].strip() or None, session=named or None
        )

    return parse


def _cells(line: str, count: int) -> list[str]:
    cells = line.split(",")
    if len(cells) != count:
        raise ValueError(f"{len(cells)} columns instead of {count}")
    return cells
